use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::testing::any_json;

fn schema() -> Structural {
    Structural::resolve(
        &json!({
            "Pod": {"type": "object", "properties": {
                "metadata": {"type": "object", "properties": {
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "finalizers": {
                        "type": "array", "items": {"type": "string"},
                        "x-kubernetes-patch-strategy": "merge"
                    }
                }},
                "spec": {"$ref": "#/Spec"}
            }},
            "Spec": {"type": "object", "properties": {
                "args": {"type": "array", "items": {"type": "string"}},
                "strategy": {
                    "type": "object",
                    "x-kubernetes-patch-strategy": "retainKeys",
                    "properties": {"type": {"type": "string"}, "rollingUpdate": {"type": "object"}}
                },
                "containers": {
                    "type": "array", "items": {"$ref": "#/Container"},
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"
                }
            }},
            "Container": {"type": "object", "properties": {
                "name": {"type": "string"},
                "image": {"type": "string"},
                "env": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"
                }
            }}
        }),
        "Pod",
    )
    .unwrap()
}

#[track_caller]
fn merges_to(current: &Value, patch: &Value, expected: &Value) {
    assert_eq!(
        &apply(&schema(), current, patch).unwrap(),
        expected,
        "{patch}"
    );
}

#[test]
fn objects_and_scalars() {
    let current =
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"args": ["x", "y"]}});
    merges_to(
        &current,
        &json!({"metadata": {"labels": {"a": "3", "b": null, "c": null}}, "spec": {"args": ["z"]}}),
        &json!({"metadata": {"labels": {"a": "3"}}, "spec": {"args": ["z"]}}),
    );
    merges_to(
        &current,
        &json!({"metadata": {"$patch": "replace", "labels": {"z": "1"}}}),
        &json!({"metadata": {"labels": {"z": "1"}}, "spec": {"args": ["x", "y"]}}),
    );
    merges_to(
        &current,
        &json!({"metadata": {"$patch": "delete"}}),
        &json!({"metadata": {}, "spec": {"args": ["x", "y"]}}),
    );
    // What is new is taken as it is, without nulls and directives.
    merges_to(
        &json!({}),
        &json!({"spec": {
            "containers": [{"name": "a", "image": null, "$setElementOrder/env": [], "env": [{"$patch": "delete", "name": "x"}]},
                           {"$patch": "replace"}],
            "$setElementOrder/args": ["a"]
        }}),
        &json!({"spec": {"containers": [{"name": "a", "env": []}]}}),
    );
}

#[test]
fn lists_of_objects() {
    let current = json!({"spec": {"containers": [
        {"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]},
        {"name": "b", "image": "1"},
        {"name": "c", "image": "1"}
    ]}});
    merges_to(
        &current,
        &json!({"spec": {"containers": [
            {"name": "b", "image": "2"},
            {"name": "d", "image": "4"},
            {"name": "a", "env": [{"name": "y", "value": "2"}]},
            {"$patch": "delete", "name": "c"}
        ]}}),
        &json!({"spec": {"containers": [
            {"name": "b", "image": "2"},
            {"name": "d", "image": "4"},
            {"name": "a", "image": "1", "env": [{"name": "y", "value": "2"}, {"name": "x", "value": "1"}]}
        ]}}),
    );
    merges_to(
        &current,
        &json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
        &json!({"spec": {"containers": [{"name": "z"}]}}),
    );
    merges_to(
        &current,
        &json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}, {"name": "b", "$patch": "delete"}]}}),
        &json!({"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]},
            {"name": "c", "image": "1"}
        ]}}),
    );
}

#[test]
fn ordered_lists() {
    let current = json!({"spec": {"containers": [
        {"name": "server1"}, {"name": "a", "image": "1"}, {"name": "b"}, {"name": "server2"}
    ]}});
    merges_to(
        &current,
        &json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "new"}],
            "containers": [{"name": "a", "image": "2"}, {"name": "new"}]
        }}),
        &json!({"spec": {"containers": [
            {"name": "server1"}, {"name": "b"}, {"name": "a", "image": "2"}, {"name": "new"}, {"name": "server2"}
        ]}}),
    );
    merges_to(
        &current,
        &json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        &json!({"spec": {"containers": [
            {"name": "server1"}, {"name": "b"}, {"name": "a", "image": "1"}, {"name": "server2"}
        ]}}),
    );
    merges_to(
        &json!({"metadata": {"finalizers": ["s", "a", "b"]}}),
        &json!({"metadata": {"$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"],
                             "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        &json!({"metadata": {"finalizers": ["c", "s", "b"]}}),
    );
}

#[test]
fn lists_of_scalars() {
    merges_to(
        &json!({"metadata": {"finalizers": ["a", "b"]}}),
        &json!({"metadata": {"finalizers": ["c", "a", "c"]}}),
        &json!({"metadata": {"finalizers": ["c", "a", "b"]}}),
    );
    merges_to(
        &json!({"metadata": {"finalizers": ["a", "b"]}}),
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}}),
        &json!({"metadata": {"finalizers": ["b"]}}),
    );
    merges_to(
        &json!({"metadata": {}}),
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        &json!({"metadata": {}}),
    );
}

#[test]
fn retained_keys() {
    merges_to(
        &json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        &json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn malformed_patches_are_refused() {
    let current = json!({"metadata": {"finalizers": ["a"]}, "spec": {"strategy": {"type": "x"}, "containers": [{"name": "a"}]}});
    for (patch, message) in [
        (
            json!([]),
            "a strategic merge patch must be an object, got a list",
        ),
        (
            json!({"spec": {"$patch": "merge"}}),
            r#"unknown patch type: merge in map: {"$patch":"merge"}"#,
        ),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            r#"map: {"image":"x"} does not contain declared merge key: name"#,
        ),
        (
            json!({"spec": {"containers": [{"$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"spec": {"containers": [{"$patch": "explode", "name": "a"}]}}),
            r#"unknown patch type: explode in map: {"$patch":"explode","name":"a"}"#,
        ),
        (
            json!({"spec": {"containers": ["x"]}}),
            "a list of objects cannot be merged with a string",
        ),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": 1}}),
            "expected a list, but received a number",
        ),
        (
            json!({"metadata": {"$setElementOrder/finalizers": ["b"], "finalizers": ["c"]}}),
            "The order in patch list:\n[\"c\"]\n doesn't match $setElementOrder list:\n[\"b\"]\n",
        ),
    ] {
        let error = apply(&schema(), &current, &patch).unwrap_err();
        assert_eq!(error, PatchError::Malformed(message.to_owned()), "{patch}");
    }
    let nested = json!({"metadata": {"finalizers": [["a"]]}});
    let error = apply(&schema(), &current, &nested).unwrap_err();
    assert_eq!(
        error,
        PatchError::Inapplicable("lists of lists are not supported".to_owned())
    );
}

proptest! {
    /// Without directives and merging lists, a strategic merge is a merge patch.
    #[test]
    fn free_form_merges_like_a_merge_patch(current in any_json(), patch in any_json()) {
        let current = json!({"a": current});
        let patch = json!({"a": patch});
        let mut expected = current.clone();
        crate::patch::merge::apply(&mut expected, &patch);
        let result = apply(&Structural::free_form(), &current, &patch).unwrap();
        // New lists lose the nulls inside of their objects, which a merge patch keeps.
        prop_assume!(!patch.to_string().contains("null"));
        prop_assert_eq!(result, expected);
    }

    #[test]
    fn twice_is_once(names in proptest::collection::vec("[a-e]", 0..6), patched in proptest::collection::vec("[a-e]", 0..6)) {
        let list = |names: &[String], image: &str| -> Vec<Value> {
            let mut seen = Vec::new();
            names.iter().filter(|name| { let new = !seen.contains(name); seen.push(name); new })
                .map(|name| json!({"name": name, "image": image})).collect()
        };
        let current = json!({"spec": {"containers": list(&names, "1")}});
        let patch = json!({"spec": {"containers": list(&patched, "2")}});
        let once = apply(&schema(), &current, &patch).unwrap();
        let twice = apply(&schema(), &once, &patch).unwrap();
        prop_assert_eq!(once, twice);
    }
}

/// Replays what a real API server answered (see `apiserver/golden/record.py`).
#[test]
fn recorded_patches() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../golden/strategic.json")).unwrap();
    let definitions: Value =
        serde_json::from_str(include_str!("../../../data/schemas.json")).unwrap();
    let schema = Structural::resolve(&definitions, "io.k8s.api.apps.v1.Deployment").unwrap();
    for case in recorded["cases"].as_array().unwrap() {
        let (patch, answer) = (&case["patch"], &case["answer"]);
        match apply(&schema, &recorded["object"], patch) {
            Ok(mut object) => {
                let mut expected = answer["object"].clone();
                for object in [&mut object, &mut expected] {
                    let Some(fields) = object.as_object_mut() else {
                        continue;
                    };
                    // A controller of the recorded cluster was at work, too.
                    fields.remove("status");
                    let metadata = fields["metadata"].as_object_mut().unwrap();
                    metadata.remove("annotations");
                    // A decoded object has no empty maps.
                    if metadata.get("labels") == Some(&json!({})) {
                        metadata.remove("labels");
                    }
                }
                if answer["code"] == 200 {
                    assert_eq!(object, expected, "{patch}");
                } else {
                    // The patch applies; what comes out of it is refused by decoding or validation.
                    assert!(
                        matches!(answer["code"].as_u64(), Some(400 | 422)),
                        "{case:#}"
                    );
                }
            }
            Err(error) => {
                assert_ne!(answer["code"], 200, "{patch}: {error}");
            }
        }
    }
}
