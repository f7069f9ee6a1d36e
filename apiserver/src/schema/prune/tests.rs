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
                    "mode": {"type": "string"},
                    "nested": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    "ports": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"protocol": {"type": "string"}}
                    }},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "byName": {"type": "object", "additionalProperties": {
                        "type": "object", "properties": {"size": {"type": "integer"}}
                    }},
                    "anything": {"type": "object", "additionalProperties": true},
                    "free": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {
                            "nested": {"type": "object", "properties": {"size": {"type": "integer"}}},
                            "ports": {"x-kubernetes-preserve-unknown-fields": true}
                        }
                    },
                    "template": {
                        "type": "object",
                        "x-kubernetes-embedded-resource": true,
                        "properties": {"spec": {"type": "object"}}
                    }
                }
            }
        }
    }))
    .unwrap()
}

#[test]
fn unknown_fields_go_and_are_reported() {
    let object = json!({
        "apiVersion": "v1", "kind": "X", "top": 1,
        "metadata": {"name": "n", "labels": {"a": "b"}, "clusterName": "gone"},
        "spec": {
            "mode": {"left": "alone"},
            "Mode": 1,
            "nested": {"size": 1, "colour": 2},
            "ports": [{"protocol": "TCP"}, {"protocol": "TCP", "port": 1}],
            "labels": {"any": "thing"},
            "byName": {"a": {"size": 1, "x": 1}},
            "anything": {"a": 1, "b": {"c": 1}},
            "free": {"kept": {"a": 1}, "nested": {"size": 1, "x": 1}, "ports": [{"x": 1}]},
            "template": {"apiVersion": "v1", "kind": "Y", "metadata": {"name": "m", "z": 1}, "spec": {"a": 1}, "z": 1}
        }
    });
    let mut pruned = object.clone();
    prune(&schema(), &mut pruned);
    assert_eq!(
        pruned,
        json!({
            "apiVersion": "v1", "kind": "X",
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {
                "mode": {},
                "nested": {"size": 1},
                "ports": [{"protocol": "TCP"}, {"protocol": "TCP"}],
                "labels": {"any": "thing"},
                "byName": {"a": {"size": 1}},
                "anything": {"a": 1, "b": {}},
                "free": {"kept": {"a": 1}, "nested": {"size": 1}, "ports": [{"x": 1}]},
                "template": {"apiVersion": "v1", "kind": "Y", "metadata": {"name": "m"}, "spec": {}}
            }
        })
    );
    assert_eq!(
        unknown_fields(&schema(), &object),
        [
            r#"unknown field "metadata.clusterName""#,
            r#"unknown field "spec.Mode""#,
            r#"unknown field "spec.anything.b.c""#,
            r#"unknown field "spec.byName.a.x""#,
            r#"unknown field "spec.free.nested.x""#,
            r#"unknown field "spec.mode.left""#,
            r#"unknown field "spec.nested.colour""#,
            r#"unknown field "spec.ports[1].port""#,
            r#"unknown field "spec.template.metadata.z""#,
            r#"unknown field "spec.template.spec.a""#,
            r#"unknown field "spec.template.z""#,
            r#"unknown field "top""#,
        ]
    );
}

#[test]
fn free_form_keeps_everything() {
    let object = json!({"a": {"b": [1, {"c": null}]}});
    let mut pruned = object.clone();
    prune(&Structural::free_form(), &mut pruned);
    assert_eq!(pruned, object);
    assert!(unknown_fields(&Structural::free_form(), &object).is_empty());
}

proptest! {
    #[test]
    fn twice_is_once(spec in any_json()) {
        let mut once = json!({"spec": spec});
        prune(&schema(), &mut once);
        let mut twice = once.clone();
        prune(&schema(), &mut twice);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn reported_is_what_goes(spec in any_json()) {
        let object = json!({"spec": spec});
        let mut pruned = object.clone();
        prune(&schema(), &mut pruned);
        prop_assert_eq!(pruned == object, unknown_fields(&schema(), &object).is_empty());
        prop_assert!(unknown_fields(&schema(), &pruned).is_empty());
    }
}
