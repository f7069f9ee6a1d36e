//! Values for property tests of schemas and patches.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// JSON whose keys are few, so that two values often have fields in common.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A field name that the test schemas know, mostly.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("mode"),
        Just("nested"),
        Just("ports"),
        Just("levels"),
        Just("labels"),
        Just("size"),
        Just("protocol"),
        Just("free"),
        Just("x"),
    ]
    .prop_map(str::to_owned)
}
