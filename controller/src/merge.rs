//! JSON merge patches (RFC 7386) as differences: what must be said to turn one value into another.

use serde_json::{Map, Value};

/// The merge patch that turns `old` into `new`; `None` when they are equal.
///
/// Lists are replaced as a whole, as merge patches do. Members that are gone become null.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        let change = match before.get(name) {
            Some(old) => diff(old, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

/// Applies a merge patch.
#[cfg(test)]
pub(crate) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            apply(members.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_differences_are_said() {
        assert_eq!(diff(&json!({"a": 1}), &json!({"a": 1})), None);
        assert_eq!(
            diff(
                &json!({"a": 1, "b": {"c": 2, "d": 3}}),
                &json!({"b": {"c": 2, "e": [1]}})
            ),
            Some(json!({"a": null, "b": {"d": null, "e": [1]}}))
        );
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(|v| json!(v)),
            (0..9).prop_map(|v| json!(v))
        ];
        let value = leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|v| json!(v)),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|v| json!(v)),
            ]
        });
        prop::collection::btree_map("[a-c]", value, 0..4).prop_map(|v| json!(v))
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_new_value(old in object(), new in object()) {
            let mut value = old.clone();
            if let Some(patch) = diff(&old, &new) {
                apply(&mut value, &patch);
            }
            prop_assert_eq!(value, new);
        }
    }
}
