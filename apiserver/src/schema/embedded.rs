//! Objects inside of objects (`x-kubernetes-embedded-resource`) must say what they are.

use serde_json::{Map, Value};

use super::error::FieldError;
use super::path::Path;
use super::structural::Node;
use crate::format::names::dns1035_label_errors;

/// Checks every embedded object in `value`; the outermost object is checked elsewhere.
pub(super) fn check(schema: &Node, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.embedded && !path.is_root() {
                check_object(map, path, errors);
            }
            for (name, value) in map {
                if let Some(property) = schema.property(name) {
                    check(property, value, &path.field(name), errors);
                } else if let Some(schema) = schema.additional_properties() {
                    check(schema, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items() {
                for (i, item) in items.iter().enumerate() {
                    check(schema, item, &path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn check_object(object: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let path = path.field(name);
        let problem = match object.get(name) {
            None => {
                errors.push(FieldError::required(path, ""));
                continue;
            }
            // Other types are refused by the schema.
            Some(Value::String(text)) if text.is_empty() => Some("must not be empty".to_owned()),
            Some(Value::String(text)) if name == "apiVersion" => (text.matches('/').count() > 1)
                .then(|| format!("unexpected GroupVersion string: {text}")),
            Some(Value::String(text)) => {
                let problems = dns1035_label_errors(&text.to_lowercase());
                (!problems.is_empty()).then(|| {
                    format!(
                        "may have mixed case, but should otherwise match: {}",
                        problems.join(",")
                    )
                })
            }
            Some(_) => None,
        };
        if let (Some(problem), Some(value)) = (problem, object.get(name)) {
            errors.push(FieldError::invalid(path, value, problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Structural;

    #[test]
    fn embedded_objects_name_their_kind() {
        let schema = Structural::parse(&json!({
            "type": "object",
            "properties": {"objects": {"type": "array", "items": {
                "type": "object",
                "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true
            }}}
        }))
        .unwrap();
        let value = json!({"objects": [
            {"apiVersion": "v1", "kind": "Pod"},
            {},
            {"apiVersion": "a/b/c", "kind": "x y"},
            {"apiVersion": "", "kind": "A"}
        ]});
        let mut errors = Vec::new();
        check(&schema, &value, &Path::ROOT, &mut errors);
        let texts: Vec<_> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            texts,
            [
                "objects[1].apiVersion",
                "objects[1].kind",
                "objects[2].apiVersion",
                "objects[2].kind",
                "objects[3].apiVersion"
            ]
        );
    }
}
