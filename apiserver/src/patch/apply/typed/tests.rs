use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::fieldset::FieldSet;
use super::*;
use crate::schema::Structural;
use crate::schema::testing::any_json;

fn schema() -> Structural {
    Structural::parse(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "name": {"type": "string"},
            "mode": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "selector": {
                "type": "object", "x-kubernetes-map-type": "atomic",
                "additionalProperties": {"type": "string"}
            },
            "args": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"},
                    "protocol": {"type": "string", "default": "TCP"},
                    "name": {"type": "string"},
                    "target": {"x-kubernetes-int-or-string": true}
                }}
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }}}
    }))
    .unwrap()
}

fn set_of(spec: &Value) -> Vec<String> {
    let object = json!({"spec": spec});
    field_set(Type::Schema(&schema()), &object).paths()
}

fn merged(object: &Value, applied: &Value) -> Value {
    let wrap = |spec: &Value| json!({"spec": spec});
    merge(Type::Schema(&schema()), &wrap(object), &wrap(applied))["spec"].take()
}

#[test]
fn fields_of_a_configuration() {
    assert_eq!(
        set_of(&json!({
            "replicas": 1, "name": null,
            "labels": {"a": "b"}, "selector": {"a": "b"},
            "args": ["x"], "tags": ["x", "y"],
            "ports": [{"port": 80, "name": "http"}],
            "free": {"a": {"b": [1, {"c": 2}], "d": {}}}
        })),
        [
            ".spec.args",
            ".spec.free.a",
            ".spec.free.a.b",
            ".spec.free.a.d",
            ".spec.labels.a",
            ".spec.name",
            r#".spec.ports[port=80,protocol="TCP"]"#,
            r#".spec.ports[port=80,protocol="TCP"].name"#,
            r#".spec.ports[port=80,protocol="TCP"].port"#,
            ".spec.replicas",
            ".spec.selector",
            r#".spec.tags[="x"]"#,
            r#".spec.tags[="y"]"#,
        ]
    );
    assert_eq!(set_of(&json!({"labels": {}, "tags": []})), [".spec.labels"]);
    assert_eq!(set_of(&json!({})), [".spec"]);
}

#[test]
fn merging_keeps_and_replaces() {
    assert_eq!(
        merged(
            &json!({"replicas": 1, "labels": {"a": "1"}, "selector": {"a": "1"}, "args": ["1"],
                    "free": {"a": {"x": 1}, "l": [1]}}),
            &json!({"name": "n", "labels": {"b": "2"}, "selector": {"b": "2"}, "args": ["2"],
                    "free": {"a": {"y": 2}, "l": [2]}}),
        ),
        json!({"replicas": 1, "name": "n", "labels": {"a": "1", "b": "2"}, "selector": {"b": "2"}, "args": ["2"],
               "free": {"a": {"x": 1, "y": 2}, "l": [2]}})
    );
    assert_eq!(
        merged(
            &json!({"ports": [{"port": 80, "protocol": "TCP", "name": "a"}]}),
            &json!({"ports": [{"port": 80, "target": "x"}, {"port": 80, "protocol": "UDP"}]}),
        ),
        json!({"ports": [{"port": 80, "protocol": "TCP", "name": "a", "target": "x"}, {"port": 80, "protocol": "UDP"}]})
    );
}

#[test]
fn applied_items_come_in_the_applied_order() {
    for (object, applied, expected) in [
        ("abc", "", "abc"),
        ("abc", "b", "abc"),
        ("ab", "ba", "ba"),
        ("axb", "ba", "xba"),
        ("abc", "xby", "axbcy"),
        ("abcd", "dxa", "bcdxa"),
        ("", "ab", "ab"),
        ("ab", "cd", "abcd"),
        ("sab", "bna", "sbna"),
    ] {
        let list = |text: &str| -> Value { text.chars().map(|c| c.to_string()).collect() };
        let result = merged(
            &json!({"tags": list(object), "name": "n"}),
            &json!({"tags": list(applied), "name": "n"}),
        );
        assert_eq!(result["tags"], list(expected), "{object} with {applied}");
    }
}

#[test]
fn differences() {
    let object = |spec: &Value| json!({"spec": spec});
    let diff = compare(
        Type::Schema(&schema()),
        &object(&json!({
            "replicas": 1, "labels": {"a": "1", "b": "2"}, "args": ["x"], "tags": ["x", "y"],
            "ports": [{"port": 80, "name": "a"}, {"port": 81}], "free": {"a": {"b": 1}, "s": "x"}
        })),
        &object(&json!({
            "replicas": 1.0, "name": "n", "labels": {"a": "3", "c": "4"}, "args": ["y"], "tags": ["y", "z"],
            "ports": [{"port": 80, "protocol": "TCP", "name": "b"}, {"port": 82}], "free": {"a": {"c": 1}, "s": {"t": 1}}
        })),
    );
    assert_eq!(
        diff.added.paths(),
        [
            ".spec.free.a.c",
            ".spec.free.s.t",
            ".spec.labels.c",
            ".spec.name",
            r#".spec.ports[port=80,protocol="TCP"].protocol"#,
            r#".spec.ports[port=82,protocol="TCP"]"#,
            r#".spec.ports[port=82,protocol="TCP"].port"#,
            r#".spec.tags[="z"]"#,
        ]
    );
    assert_eq!(
        diff.modified.paths(),
        [
            ".spec.args",
            ".spec.free.s",
            ".spec.labels.a",
            r#".spec.ports[port=80,protocol="TCP"].name"#,
        ]
    );
    assert_eq!(
        diff.removed.paths(),
        [
            ".spec.free.a.b",
            ".spec.labels.b",
            r#".spec.ports[port=81,protocol="TCP"]"#,
            r#".spec.ports[port=81,protocol="TCP"].port"#,
            r#".spec.tags[="x"]"#,
        ]
    );
    let whole = compare(
        Type::Schema(&schema()),
        &json!({}),
        &json!({"spec": {"labels": {"a": "b"}}}),
    );
    assert_eq!(
        whole.added.paths(),
        [".spec", ".spec.labels", ".spec.labels.a"]
    );
}

#[test]
fn removal() {
    let schema = schema();
    let ty = Type::Schema(&schema);
    let object = json!({"spec": {
        "replicas": 1, "labels": {"a": "1", "b": "2"}, "tags": ["x", "y"], "args": ["a"],
        "ports": [{"port": 80, "name": "a"}]
    }});
    let set = FieldSet::parse(&json!({"f:spec": {
        "f:replicas": {}, "f:labels": {"f:a": {}}, "f:tags": {"v:\"x\"": {}},
        "f:args": {"i:0": {}},
        "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}
    }}))
    .unwrap();
    assert_eq!(
        remove(ty, &object, &set),
        json!({"spec": {"labels": {"b": "2"}, "tags": ["y"], "args": ["a"], "ports": [{"port": 80}]}})
    );
    let all = field_set(ty, &object);
    assert_eq!(remove(ty, &object, &named_fields(ty, &all)), json!({}));
}

#[test]
fn sets_follow_the_schema() {
    let schema = schema();
    let written = FieldSet::parse(&json!({"f:spec": {
        "f:args": {"v:\"x\"": {}}, "f:selector": {"f:a": {}}, "f:labels": {"f:a": {}}
    }}))
    .unwrap();
    assert_eq!(
        reconcile(Type::Schema(&schema), &written).paths(),
        [".spec.args", ".spec.labels.a", ".spec.selector"]
    );
}

#[test]
fn wrong_configurations_are_refused() {
    let object = json!({"spec": {
        "replicas": "x", "unknown": 1, "labels": {"a": 1},
        "tags": ["a", "a", {}], "args": [1],
        "ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}, 5],
        "free": {"any": [{"thing": 1}]}
    }});
    let schema = schema();
    let problems: Vec<_> = check(Type::Schema(&schema), &object)
        .into_iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    assert_eq!(
        problems,
        [
            r#".spec.replicas: expected numeric (int or float), got "x""#,
            ".spec.unknown: field not declared in schema",
            ".spec.labels.a: expected string, got 1",
            ".spec.tags: element 2: associative list without keys has an element that's a map type",
            r#".spec.tags: duplicate entries for key [="a"]"#,
            ".spec.args[0]: expected string, got 1",
            ".spec.ports: element 2: associative list with keys may not have non-map elements",
            r#".spec.ports: duplicate entries for key [port=80,protocol="TCP"]"#,
        ]
    );
}

/// Specs with the fields of the schema and values of the right types.
pub(crate) fn any_spec() -> impl Strategy<Value = Value> {
    let port = (80_i64..83, proptest::option::of("[ab]")).prop_map(|(port, name)| {
        name.map_or_else(
            || json!({"port": port}),
            |name| json!({"port": port, "name": name}),
        )
    });
    (
        proptest::option::of(0_i64..3),
        proptest::option::of(proptest::collection::btree_map("[a-c]", "[xy]", 0..3)),
        proptest::option::of(proptest::collection::btree_map("[a-c]", "[xy]", 1..3)),
        proptest::option::of(proptest::collection::btree_set("[a-e]", 0..4)),
        proptest::option::of(proptest::collection::vec("[a-c]", 0..3)),
        proptest::option::of(proptest::collection::vec(port, 0..3)),
        proptest::option::of(any_json()),
    )
        .prop_map(|(replicas, labels, selector, tags, args, ports, free)| {
            let mut spec = json!({});
            let mut put = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    spec[name] = value;
                }
            };
            put("replicas", replicas.map(|v| json!(v)));
            put("labels", labels.map(|v| json!(v)));
            put("selector", selector.map(|v| json!(v)));
            put("tags", tags.map(|v| json!(v)));
            put("args", args.map(|v| json!(v)));
            put(
                "ports",
                ports.map(|ports| {
                    let mut seen = Vec::new();
                    ports
                        .into_iter()
                        .filter(|port| {
                            let new = !seen.contains(&port["port"]);
                            seen.push(port["port"].clone());
                            new
                        })
                        .collect()
                }),
            );
            put("free", free.filter(Value::is_object));
            spec
        })
}

pub(crate) fn property_schema() -> Structural {
    schema()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_differs_from_itself(spec in any_spec()) {
        let object = json!({"spec": spec});
        prop_assert_eq!(compare(Type::Schema(&schema()), &object, &object), Diff::default());
    }

    #[test]
    fn merging_again_changes_nothing(a in any_spec(), b in any_spec()) {
        let once = merged(&a, &b);
        prop_assert_eq!(merged(&once, &b), once.clone());
        prop_assert_eq!(merged(&a, &a), a);
    }

    #[test]
    fn differences_are_told_apart(a in any_spec(), b in any_spec()) {
        let (a, b) = (json!({"spec": a}), json!({"spec": b}));
        let schema = schema();
        let there = compare(Type::Schema(&schema), &a, &b);
        let back = compare(Type::Schema(&schema), &b, &a);
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.removed, &back.added);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(there.added.intersection(&there.modified).is_empty());
        prop_assert!(there.added.intersection(&there.removed).is_empty());
    }

    #[test]
    fn what_was_set_can_be_removed(spec in any_spec()) {
        let object = json!({"spec": spec});
        let schema = schema();
        let ty = Type::Schema(&schema);
        let rest = remove(ty, &object, &named_fields(ty, &field_set(ty, &object)));
        let left = field_set(ty, &rest);
        prop_assert!(left.is_empty(), "{left}");
    }
}
