//! Whatever comes in, nothing here panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::apply::{ApplyInput, FieldSet, UpdateInput, record_update, server_side_apply};
use super::{json, strategic};
use crate::schema::Structural;
use crate::schema::testing::any_json;

fn schema() -> Structural {
    Structural::resolve(
        &json!({"Kind": {"type": "object", "properties": {
            "metadata": {"type": "object"},
            "mode": {"type": "string"},
            "nested": {"type": "object", "x-kubernetes-map-type": "atomic"},
            "ports": {
                "type": "array", "items": {"type": "object"},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["size"],
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "size"
            },
            "levels": {
                "type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set",
                "x-kubernetes-patch-strategy": "merge"
            },
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}
        }}}),
        "Kind",
    )
    .unwrap()
}

/// Strategic patches with directives in all places.
fn any_patch() -> impl Strategy<Value = Value> {
    (any_json(), any_json(), any_json(), "[a-z]{0,7}").prop_map(|(a, b, c, directive)| {
        json!({
            "ports": [a, {"$patch": directive, "size": 1}],
            "$setElementOrder/ports": b,
            "$deleteFromPrimitiveList/levels": c,
            "labels": {"$retainKeys": [directive], "x": "y"}
        })
    })
}

fn any_operation() -> impl Strategy<Value = Value> {
    let pointer = "(/[a-z0-9~-]{0,6}){0,3}";
    (
        prop_oneof!["add", "remove", "replace", "move", "copy", "test"],
        pointer,
        pointer,
        any_json(),
    )
        .prop_map(
            |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn json_patches(mut target in any_json(), patch in proptest::collection::vec(any_operation(), 0..6)) {
        let before = target.clone();
        if json::apply(&mut target, &Value::from(patch)).is_err() {
            prop_assert_eq!(target, before);
        }
    }

    #[test]
    fn strategic_patches(current in any_json(), free in any_json(), patch in any_patch()) {
        let schema = schema();
        for patch in [&free, &patch] {
            for current in [&current, &json!({"ports": [{"size": 1}], "levels": [1, 2]})] {
                strategic::apply(&schema, current, patch).ok();
            }
        }
    }

    #[test]
    fn applies_and_records(live in any_json(), applied in any_json(), record in any_json()) {
        let schema = schema();
        let object = |fields: &Value| {
            let mut object = fields.clone();
            if let Value::Object(map) = &mut object {
                map.insert("apiVersion".to_owned(), json!("v1"));
                map.insert("metadata".to_owned(), json!({
                    "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1",
                                       "fieldsType": "FieldsV1", "fieldsV1": record}]
                }));
            }
            object
        };
        let (live, mut new) = (object(&live), object(&applied));
        let mut applied = new.clone();
        if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
            metadata.clear();
        }
        let now = jiff::Timestamp::UNIX_EPOCH;
        for live in [None, Some(&live)] {
            server_side_apply(&ApplyInput {
                schema: &schema, live, applied: &applied, manager: "m", api_version: "v1",
                subresource: "", now, force: true,
            })
            .ok();
        }
        let input = UpdateInput {
            schema: &schema, manager: "u", api_version: "v1", subresource: "", now,
        };
        record_update(input, Some(&live), &mut new);
        FieldSet::parse(&record).ok();
    }
}
