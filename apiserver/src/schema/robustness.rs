//! Whatever comes in, nothing here panics, and what is accepted can be used.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::format::Format;
use super::pattern::Pattern;
use super::testing::any_json;
use super::*;

/// Documents that look like schemas, right and wrong.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "integer", "minimum": 1, "default": 0})),
        Just(json!({"type": "string", "format": "date-time", "nullable": true})),
        Just(json!({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({})),
        any_json(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let named = proptest::collection::btree_map("[a-c]", inner.clone(), 0..4);
        prop_oneof![
            named.prop_map(|properties| json!({"type": "object", "properties": properties})),
            inner
                .clone()
                .prop_map(|value| json!({"type": "object", "additionalProperties": value})),
            (inner.clone(), "[a-z]{0,6}").prop_map(|(items, kind)| json!({
                "type": "array", "items": items, "x-kubernetes-list-type": kind,
                "x-kubernetes-list-map-keys": ["a"]
            })),
            inner
                .clone()
                .prop_map(|items| json!({"type": "array", "items": items})),
            (inner.clone(), inner).prop_map(|(a, b)| json!({
                "type": "object", "properties": {"a": a}, "anyOf": [b, {"required": ["a"]}],
                "x-kubernetes-validations": [{"rule": "has(self.a)"}]
            })),
        ]
    })
}

fn object(fields: Value) -> Value {
    let mut object = Map::new();
    object.insert("spec".to_owned(), fields);
    Value::Object(object)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_schema_is_refused_or_works(spec in any_schema(), new in any_json(), old in any_json()) {
        let document = json!({"type": "object", "properties": {"spec": spec}});
        let Ok(schema) = Structural::parse(&document) else {
            return Ok(());
        };
        let (mut new, old) = (object(new), object(old));
        prune(&schema, &mut new);
        apply_defaults(&schema, &mut new);
        let errors = validate(&schema, &new, Some(&old));
        prop_assert!(validate(&schema, &new, Some(&new)).len() <= errors.len());
        if let Ok(rules) = Rules::compile(&schema) {
            rules.check(&new, Some(&old));
        }
    }

    #[test]
    fn any_text_is_a_rule_or_not(rule in "[a-z0-9 ().,'\"<>=&|?:+*!\\[\\]{}_-]{0,40}") {
        let document = json!({
            "type": "object", "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": rule, "messageExpression": rule}]
        });
        if let Ok(schema) = Structural::parse(&document)
            && let Ok(rules) = Rules::compile(&schema)
        {
            rules.check(&json!({"a": "x"}), None);
        }
    }

    #[test]
    fn any_text_has_a_format_or_not(text in "\\PC{0,40}") {
        for name in ["uri", "email", "hostname", "cidr", "mac", "uuid", "isbn", "creditcard", "ssn",
                     "rgbcolor", "byte", "date", "duration", "date-time", "k8s-long-name"] {
            Format::parse(name, Kind::String).accepts(&text);
        }
        field_path::parse(&text);
        if let Ok(pattern) = Pattern::parse(&text) {
            pattern.matches(&text);
        }
    }

    #[test]
    fn any_bytes_are_json_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let parsed = serde_json::from_slice::<Value>(&bytes).is_ok();
        prop_assert_eq!(duplicate_fields(&bytes).is_ok(), parsed);
    }
}
