//! RFC 6902 JSON patches.
//!
//! A patch is applied as a whole or not at all, and cannot blow up what it is applied to: the number
//! of operations, the bytes that `copy` adds and the depth of the result are bounded, as in a real
//! API server.

use std::borrow::Cow;

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// Most operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Most bytes of JSON that the `copy` operations of one patch may add.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Deepest nesting of the result; bodies are not parsed deeper either.
pub const MAX_DEPTH: usize = 128;

/// Applies `patch`, an array of operations; on error the target is unchanged.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if let Some(count) = patch.as_array().map(Vec::len)
        && count > MAX_OPERATIONS
    {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let Patch(operations) = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut next = target.clone();
    let mut copied = 0;
    for (i, operation) in operations.iter().enumerate() {
        let Some(operation) = as_published(&next, operation) else {
            continue;
        };
        check_growth(&next, &operation, &mut copied)?;
        json_patch::patch(&mut next, std::slice::from_ref(&*operation)).map_err(|error| {
            PatchError::Inapplicable(format!(
                "operation {i} failed at path {:?}: {}",
                operation.path().as_str(),
                error.kind
            ))
        })?;
    }
    *target = next;
    Ok(())
}

/// An operation in the sense of a real API server, which is laxer than the standard: to `replace` and
/// `test` a missing member of an object is null. None if there is nothing left to do.
fn as_published<'a>(
    document: &Value,
    operation: &'a PatchOperation,
) -> Option<Cow<'a, PatchOperation>> {
    let is_missing_member = |path: &Pointer| {
        let parent = path.parent().map(|parent| parent.resolve(document));
        matches!(parent, Some(Ok(Value::Object(_)))) && path.resolve(document).is_err()
    };
    match operation {
        PatchOperation::Replace(op) if is_missing_member(&op.path) => {
            Some(Cow::Owned(PatchOperation::Add(AddOperation {
                path: op.path.clone(),
                value: op.value.clone(),
            })))
        }
        PatchOperation::Test(op) if op.value.is_null() && is_missing_member(&op.path) => None,
        _ => Some(Cow::Borrowed(operation)),
    }
}

/// Refuses an operation that would make the document too deep or too large.
fn check_growth(
    document: &Value,
    operation: &PatchOperation,
    copied: &mut usize,
) -> Result<(), PatchError> {
    let added = match operation {
        PatchOperation::Add(op) => &op.value,
        PatchOperation::Replace(op) => &op.value,
        PatchOperation::Copy(op) => match document.pointer(op.from.as_str()) {
            Some(value) => {
                *copied += bytes(value);
                value
            }
            None => return Ok(()),
        },
        PatchOperation::Move(op) => match document.pointer(op.from.as_str()) {
            Some(value) => value,
            None => return Ok(()),
        },
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if *copied > MAX_COPIED_BYTES {
        return Err(PatchError::TooLarge(format!(
            "the copy operations of a JSON patch may add at most {MAX_COPIED_BYTES} bytes"
        )));
    }
    if operation.path().count() + depth(added) > MAX_DEPTH {
        return Err(PatchError::TooLarge(format!(
            "a JSON patch may not nest an object deeper than {MAX_DEPTH} levels"
        )));
    }
    Ok(())
}

/// Levels of nesting; 1 for a scalar.
fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => None,
    };
    1 + below.unwrap_or(0)
}

/// About the size as JSON text.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| bytes(item) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(key, value)| key.len() + 4 + bytes(value))
                .sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply() {
        let cases = [
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "add", "path": "/a/c", "value": [1]},
                       {"op": "add", "path": "/a/c/-", "value": 2},
                       {"op": "add", "path": "/a/c/0", "value": 0}]),
                json!({"a": {"b": 1, "c": [0, 1, 2]}}),
            ),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "test", "path": "/a/b", "value": 1},
                       {"op": "replace", "path": "/a/b", "value": {"x": null}},
                       {"op": "copy", "from": "/a/b", "path": "/c"},
                       {"op": "move", "from": "/a", "path": "/d"},
                       {"op": "remove", "path": "/d/b/x"}]),
                json!({"c": {"x": null}, "d": {"b": {}}}),
            ),
            (
                json!({"a/b": {"m~n": 1}}),
                json!([{"op": "replace", "path": "/a~1b/m~0n", "value": 2}]),
                json!({"a/b": {"m~n": 2}}),
            ),
            // As a real server takes it, not the standard.
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "test", "path": "/a/none", "value": null},
                       {"op": "replace", "path": "/a/none", "value": 1},
                       {"op": "replace", "path": "/c", "value": 2}]),
                json!({"a": {"b": 1, "none": 1}, "c": 2}),
            ),
        ];
        for (mut target, patch, expected) in cases {
            apply(&mut target, &patch).unwrap();
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn a_failed_patch_changes_nothing() {
        let original = json!({"a": [1], "b": 1});
        for (operation, message) in [
            (
                json!({"op": "test", "path": "/b", "value": 2}),
                r#"operation 1 failed at path "/b": value did not match"#,
            ),
            (
                json!({"op": "remove", "path": "/none"}),
                r#"operation 1 failed at path "/none": path is invalid"#,
            ),
            (
                json!({"op": "copy", "from": "/none", "path": "/c"}),
                r#"operation 1 failed at path "/c": "from" path is invalid"#,
            ),
            (
                json!({"op": "replace", "path": "/none/b", "value": 1}),
                r#"operation 1 failed at path "/none/b": path is invalid"#,
            ),
            (
                json!({"op": "replace", "path": "/a/1", "value": 1}),
                r#"operation 1 failed at path "/a/1": path is invalid"#,
            ),
            (
                json!({"op": "test", "path": "/none", "value": 1}),
                r#"operation 1 failed at path "/none": path is invalid"#,
            ),
            (
                json!({"op": "add", "path": "/a/7", "value": 1}),
                r#"operation 1 failed at path "/a/7": path is invalid"#,
            ),
        ] {
            let mut target = original.clone();
            let patch = json!([{"op": "replace", "path": "/b", "value": 5}, operation]);
            let error = apply(&mut target, &patch).unwrap_err();
            assert_eq!(error, PatchError::Inapplicable(message.to_owned()));
            assert_eq!(target, original);
        }
    }

    #[test]
    fn malformed_patches_are_refused() {
        for patch in [
            json!({"op": "add"}),
            json!([{"op": "jump", "path": "/a"}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "add", "path": "/a"}]),
        ] {
            let error = apply(&mut json!({}), &patch).unwrap_err();
            assert!(
                matches!(error, PatchError::Malformed(_)),
                "{patch}: {error}"
            );
        }
    }

    #[test]
    fn growth_is_bounded() {
        let many: Vec<_> = (0..=MAX_OPERATIONS)
            .map(|_| json!({"op": "test", "path": "/a", "value": 1}))
            .collect();
        let error = apply(&mut json!({"a": 1}), &Value::from(many)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The allowed maximum operations in a JSON patch is 10000, got 10001"
        );

        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::from(vec![double; 40]);
        let error = apply(&mut json!({"a": ["x".repeat(1000)]}), &patch).unwrap_err();
        assert!(matches!(error, PatchError::TooLarge(_)), "{error}");

        let deeper = json!({"op": "move", "from": "/a", "path": "/b"});
        let back = json!({"op": "add", "path": "/a", "value": {}});
        let nest = json!({"op": "move", "from": "/b", "path": "/a/b"});
        let patch: Vec<_> = [deeper, back, nest]
            .into_iter()
            .cycle()
            .take(3 * MAX_DEPTH)
            .collect();
        let error = apply(&mut json!({"a": {}}), &Value::from(patch)).unwrap_err();
        assert!(matches!(error, PatchError::TooLarge(_)), "{error}");
    }
}
