//! Defaulting: absent fields get their defaults, nulls that mean nothing go away.
//!
//! Runs on write, and on read so that objects stored before a default existed show it too. The
//! rules for null are the published ones: where null is not a value, it becomes the default, or is
//! dropped when there is none.

use serde_json::Value;

use super::structural::{Node, Structural};

/// Fills in the defaults of absent fields and drops nulls where null is not a value.
pub fn apply_defaults(schema: &Structural, object: &mut Value) {
    walk(schema, object);
}

/// Writes whole floating-point numbers as integers, as they come back from a real server's storage:
/// clients that expect an integer cannot read `1.0`.
pub fn normalize_numbers(value: &mut Value) {
    /// Below this, every whole number is exact as a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64()
                && float.fract() == 0.0
                && float.abs() < EXACT
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                let whole = float as i64;
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize_numbers),
        Value::Object(map) => map.values_mut().for_each(normalize_numbers),
        _ => {}
    }
}

fn walk(schema: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                if let Some(default) = property.default_value()
                    && !map.contains_key(&**name)
                {
                    map.insert(name.to_string(), default.clone());
                }
            }
            map.retain(|name, value| {
                let Some(schema) = schema.child(name) else {
                    return true;
                };
                if value.is_null() && !schema.is_nullable() {
                    match schema.default_value() {
                        Some(default) => value.clone_from(default),
                        None => return false,
                    }
                }
                walk(schema, value);
                true
            });
        }
        Value::Array(items) => {
            let Some(schema) = schema.items() else {
                return;
            };
            for item in items {
                if item.is_null()
                    && !schema.is_nullable()
                    && let Some(default) = schema.default_value()
                {
                    item.clone_from(default);
                }
                walk(schema, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schema::testing::any_json;

    fn schema() -> Structural {
        Structural::parse(&json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "mode": {"type": "string", "default": "Running", "enum": ["Running", "Off"]},
                        "note": {"type": "string", "nullable": true, "default": "n"},
                        "plain": {"type": "string"},
                        "nested": {
                            "type": "object",
                            "default": {},
                            "properties": {"size": {"type": "integer", "default": 3}}
                        },
                        "absent": {
                            "type": "object",
                            "properties": {"size": {"type": "integer", "default": 3}}
                        },
                        "ports": {"type": "array", "items": {
                            "type": "object",
                            "properties": {"protocol": {"type": "string", "default": "TCP"}}
                        }},
                        "levels": {"type": "array", "items": {"type": "integer", "default": 1}},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "free": {"x-kubernetes-preserve-unknown-fields": true}
                    }
                }
            }
        }))
        .unwrap()
    }

    #[test]
    fn fills_and_drops() {
        let cases = [
            (
                json!({}),
                json!({"mode": "Running", "note": "n", "nested": {"size": 3}}),
            ),
            (
                json!({"mode": null, "note": null, "plain": null, "nested": {"size": null}}),
                json!({"mode": "Running", "note": null, "nested": {"size": 3}}),
            ),
            (
                json!({"mode": "Off", "note": "x", "nested": {}, "absent": {}}),
                json!({"mode": "Off", "note": "x", "nested": {"size": 3}, "absent": {"size": 3}}),
            ),
            (
                json!({"mode": "Off", "note": "x", "nested": {}, "ports": [{}, {"protocol": "UDP"}],
                       "levels": [null, 2], "labels": {"a": null, "b": "c"}, "free": {"x": null}}),
                json!({"mode": "Off", "note": "x", "nested": {"size": 3},
                       "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}],
                       "levels": [1, 2], "labels": {"b": "c"}, "free": {"x": null}}),
            ),
        ];
        for (given, expected) in cases {
            let mut object = json!({"spec": given});
            apply_defaults(&schema(), &mut object);
            assert_eq!(object, json!({"spec": expected}));
        }
    }

    #[test]
    fn unknown_creation_times_go_away() {
        let mut object = json!({"metadata": {"name": "x", "creationTimestamp": null}});
        apply_defaults(&schema(), &mut object);
        assert_eq!(object, json!({"metadata": {"name": "x"}}));
    }

    #[test]
    fn whole_floats_become_integers() {
        let mut value = json!({"a": [1.0, 1.5, -0.0, 1e300, 3], "b": "1.0"});
        normalize_numbers(&mut value);
        assert_eq!(value, json!({"a": [1, 1.5, 0, 1e300, 3], "b": "1.0"}));
    }

    proptest! {
        #[test]
        fn twice_is_once(spec in any_json()) {
            let mut once = json!({"spec": spec});
            apply_defaults(&schema(), &mut once);
            let mut twice = once.clone();
            apply_defaults(&schema(), &mut twice);
            prop_assert_eq!(once, twice);
        }
    }
}
