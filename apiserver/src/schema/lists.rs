//! Uniqueness in lists of type set and map.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::FieldError;
use super::path::Path;
use super::render;
use super::structural::{ListType, Node};

/// Checks every list in `value`.
pub(super) fn check(schema: &Node, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(property) = schema.property(name) {
                    check(property, value, &path.field(name), errors);
                } else if let Some(schema) = schema.additional_properties() {
                    check(schema, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type {
                ListType::Set => check_set(items, path, errors),
                ListType::Map => check_map(schema, items, path, errors),
                ListType::Unset | ListType::Atomic => {}
            }
            if let Some(schema) = schema.items() {
                for (i, item) in items.iter().enumerate() {
                    check(schema, item, &path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn check_set(items: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let repeated = repeated(items.iter().map(render::json));
    for i in repeated {
        if let Some(item) = items.get(i) {
            errors.push(FieldError::duplicate(path.index(i), item));
        }
    }
}

fn check_map(schema: &Node, items: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some((i, item)) = items
        .iter()
        .enumerate()
        .find(|(_, item)| !item.is_object() && !item.is_null())
    {
        errors.push(FieldError::invalid(
            path.index(i),
            item,
            "must be an object for an array of list-type map",
        ));
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut key = Map::new();
            for name in schema.list_map_keys() {
                if let Some(value) = item.get(&**name) {
                    key.insert(name.to_string(), value.clone());
                }
            }
            Value::Object(key)
        })
        .collect();
    for i in repeated(keys.iter().map(render::json)) {
        if let Some(key) = keys.get(i) {
            errors.push(FieldError::duplicate(path.index(i), key));
        }
    }
}

/// The index of the second occurrence of every text that occurs more than once.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            found.push(i);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Structural;

    #[test]
    fn duplicates_are_found() {
        let schema = Structural::parse(&json!({
            "type": "object",
            "properties": {
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "free": {"type": "array", "items": {"type": "string"}},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "required": ["port"], "properties": {
                        "port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"},
                        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
                    }}
                },
                "byName": {"type": "object", "additionalProperties": {
                    "type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}
                }}
            }
        }))
        .unwrap();
        let value = json!({
            "tags": ["a", "b", "a", "a"],
            "free": ["a", "a"],
            "ports": [
                {"port": 1, "protocol": "TCP", "tags": ["x", "x"]},
                {"port": 1, "protocol": "UDP"},
                {"port": 1, "protocol": "TCP"}
            ],
            "byName": {"k": [1, 1]}
        });
        let mut errors = Vec::new();
        check(&schema, &value, &Path::ROOT, &mut errors);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"tags[2]: Duplicate value: "a""#,
                r#"ports[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#,
                r#"ports[0].tags[1]: Duplicate value: "x""#,
                "byName[k][1]: Duplicate value: 1",
            ]
        );
    }
}
