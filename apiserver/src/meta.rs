//! Reading and writing `metadata` of an object held as a JSON value.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The type of an object as messages name it: `group/version, Kind=Kind`, where the core group is empty.
pub(crate) fn group_version_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

/// `metadata`, or an empty view when the object has none.
pub(crate) fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// A string in `metadata`; empty when absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    metadata(object)
        .and_then(|m| m.get(field))
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// A value in `metadata`.
pub(crate) fn get<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    metadata(object)?.get(field)
}

/// Sets a value in `metadata`.
pub(crate) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    put(
        object,
        &["metadata".to_owned(), field.to_owned()],
        Some(value.into()),
    );
}

/// Removes a value from `metadata`.
pub(crate) fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .shift_remove(field)
}

/// Makes `field` what it is in `from`: copied when there, removed when not.
pub(crate) fn copy(object: &mut Value, from: &Value, field: &str) {
    match get(from, field) {
        Some(value) => set(object, field, value.clone()),
        None => drop(remove(object, field)),
    }
}

/// `metadata.generation`
pub(crate) fn generation(object: &Value) -> Option<i64> {
    get(object, "generation")?.as_i64()
}

/// `metadata.finalizers`
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    strings(get(object, "finalizers"))
}

/// Whether `metadata.deletionTimestamp` is set.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// Adds a finalizer unless it is there.
pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let mut names: Vec<String> = finalizers(object)
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    if names.iter().all(|name| name != finalizer) {
        names.push(finalizer.to_owned());
        set(object, "finalizers", names);
    }
}

/// Removes a finalizer.
pub(crate) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let names: Vec<String> = finalizers(object)
        .into_iter()
        .filter(|name| *name != finalizer)
        .map(ToOwned::to_owned)
        .collect();
    if names.is_empty() {
        remove(object, "finalizers");
    } else {
        set(object, "finalizers", names);
    }
}

/// The strings of an array.
pub(crate) fn strings(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// A time as `metav1.Time` writes it: RFC 3339 in UTC with whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    let seconds = Timestamp::from_second(at.as_second()).unwrap_or(at);
    seconds.to_string()
}

/// The value at a path.
pub(crate) fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step))
}

/// Puts a value at a path, or removes what is there; objects on the way are created for a value.
pub(crate) fn put(object: &mut Value, path: &[String], value: Option<Value>) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut place = object;
    for step in parents {
        let Some(map) = place.as_object_mut() else {
            return;
        };
        if value.is_none() && !map.contains_key(step) {
            return;
        }
        place = map.entry(step.clone()).or_insert_with(|| Map::new().into());
    }
    let Some(map) = place.as_object_mut() else {
        return;
    };
    match value {
        Some(value) => drop(map.insert(last.clone(), value)),
        None => drop(map.shift_remove(last)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_named_with_their_group() {
        for (api_version, named) in [
            ("apps/v1", "apps/v1, Kind=K"),
            ("v1", "/v1, Kind=K"),
            ("", "/, Kind=K"),
        ] {
            assert_eq!(group_version_kind(api_version, "K"), named);
        }
    }

    #[test]
    fn times_have_whole_seconds() {
        let at: Timestamp = "2026-01-02T03:04:05.999Z".parse().unwrap();
        assert_eq!(time(at), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn finalizers_are_a_set_that_disappears_when_empty() {
        let mut object = json!({});
        add_finalizer(&mut object, "a");
        add_finalizer(&mut object, "b");
        add_finalizer(&mut object, "a");
        assert_eq!(finalizers(&object), ["a", "b"]);
        remove_finalizer(&mut object, "a");
        remove_finalizer(&mut object, "b");
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn paths_are_created_for_values_and_left_alone_for_removals() {
        let path = ["a".to_owned(), "b".to_owned()];
        let mut object = json!({});
        put(&mut object, &path, None);
        assert_eq!(object, json!({}));
        put(&mut object, &path, Some(json!(1)));
        assert_eq!(at(&object, &path), Some(&json!(1)));
        put(&mut object, &path, None);
        assert_eq!(object, json!({"a": {}}));
        put(
            &mut object,
            &["a".to_owned(), "b".to_owned(), "c".to_owned()],
            Some(json!(2)),
        );
        assert_eq!(object, json!({"a": {"b": {"c": 2}}}));
    }
}
