use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn blueprint(value: Value) -> Blueprint {
    serde_json::from_value(value).unwrap()
}

fn pod(spec: &Value) -> Blueprint {
    blueprint(json!({ "podTemplate": { "spec": spec } }))
}

fn printed(blueprint: &Blueprint) -> String {
    canonical::text("Blueprint", blueprint)
}

#[test]
fn name_hash_vectors() {
    for (name, hash) in [
        ("", "811c9dc5"),
        ("a", "e40c292c"),
        ("my-sandbox", "374de8f5"),
        ("default", "933b5bde"),
        ("sandbox-name", "ab179450"),
        ("test-template", "69155462"),
        ("test-warmpool", "abdcc27b"),
        ("python-sandbox-pool", "00375482"),
        ("sandbox-0ac4t", "42733ff9"),
        ("sandbox-yml5e", "42733ff9"),
    ] {
        assert_eq!(name_hash(name), hash, "{name}");
    }
}

#[test]
fn blueprint_hash_vectors() {
    let pause = r#"{"podTemplate":{"spec":{"containers":[{"name":"pause","image":"registry.k8s.io/pause:3.10","resources":{}}]},"metadata":{}}}"#;
    let read: Blueprint = serde_json::from_str(pause).unwrap();
    assert_eq!(printed(&read), pause);
    assert_eq!(blueprint_hash(&read), "ef56b0f7");
    assert_eq!(pod_template_hash(&read.pod_template), "777b379c");

    let with_service = Blueprint {
        service: Some(true),
        ..read
    };
    assert_eq!(blueprint_hash(&with_service), "e71c0ccc");

    let full = r#"{"podTemplate":{"spec":{"containers":[{"name":"main","image":"busybox:1.36","ports":[{"containerPort":8080,"protocol":"TCP"}],"resources":{}}]},"metadata":{}},"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}},"storageClassName":"fast"}}],"service":false}"#;
    let read: Blueprint = serde_json::from_str(full).unwrap();
    assert_eq!(printed(&read), full);
    assert_eq!(blueprint_hash(&read), "6e314b06");
    assert_eq!(pod_template_hash(&read.pod_template), "e20530e6");
}

#[test]
fn hashes_are_those_of_the_go_types() {
    let vectors = include_str!("vectors.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    let mut compared = 0;
    for (hash, text) in vectors.filter_map(|line| line.split_once(' ')) {
        let read: Blueprint = serde_json::from_str(text).unwrap();
        assert_eq!(blueprint_hash(&read), hash, "{}", printed(&read));
        compared += 1;
    }
    assert_eq!(compared, 14);
}

#[test]
fn zero_values_are_left_out_and_what_always_appears_is_filled_in() {
    let written = json!({
        "podTemplate": {
            "metadata": { "labels": {}, "annotations": { "b": "", "a": "1" } },
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "hostNetwork": false,
                "dnsPolicy": "",
                "nodeSelector": {},
                "tolerations": [],
                "hostname": null,
                "securityContext": {},
                "volumes": [
                    { "name": "scratch", "emptyDir": {} },
                    { "name": "tokens", "projected": { "sources": [{ "downwardAPI": {} }] } },
                    { "name": "own", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } },
                ],
                "containers": [{
                    "name": "main",
                    "env": [
                        { "name": "EMPTY", "value": "" },
                        { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                    ],
                    "livenessProbe": { "grpc": { "port": 1 }, "periodSeconds": 0 },
                    "readinessProbe": { "httpGet": { "port": "http" } },
                }],
            },
        },
        "volumeClaimTemplates": [{ "spec": {} }],
    });
    let expected = concat!(
        r#"{"podTemplate":{"spec":{"volumes":[{"name":"scratch","emptyDir":{}},"#,
        r#"{"name":"tokens","projected":{"sources":[{"downwardAPI":{}}]}},"#,
        r#"{"name":"own","ephemeral":{"volumeClaimTemplate":{"metadata":{},"spec":{"resources":{}}}}}],"#,
        r#""containers":[{"name":"main","env":[{"name":"EMPTY"},"#,
        r#"{"name":"CPU","valueFrom":{"resourceFieldRef":{"resource":"limits.cpu","divisor":"0"}}}],"#,
        r#""resources":{},"livenessProbe":{"grpc":{"port":1,"service":null}},"#,
        r#""readinessProbe":{"httpGet":{"port":"http"}}}],"#,
        r#""terminationGracePeriodSeconds":0,"automountServiceAccountToken":false,"securityContext":{}},"#,
        r#""metadata":{"annotations":{"a":"1","b":""}}},"#,
        r#""volumeClaimTemplates":[{"metadata":{},"spec":{"resources":{}}}]}"#,
    );
    assert_eq!(printed(&blueprint(written)), expected);
}

#[test]
fn strings_are_escaped_like_go_does() {
    let text = "\" \\ \n \r \t \u{8} \u{c} \u{1} \u{7f} < > & \u{2028} \u{2029} ä 😀";
    let written = pod(&json!({ "containers": [{ "name": text }] }));
    let expected = r#"{"podTemplate":{"spec":{"containers":[{"name":"\" \\ \n \r \t \b \f \u0001 DEL \u003c \u003e \u0026 \u2028 \u2029 ä 😀","resources":{}}]},"metadata":{}}}"#
        .replace("DEL", "\u{7f}");
    assert_eq!(printed(&written), expected);
}

#[test]
fn members_newer_than_the_table_count_and_come_last_in_order() {
    let written = pod(&json!({
        "zeta": { "b": 1, "a": [] },
        "containers": [{ "name": "main", "gpuMode": "" }],
        "alpha": false,
    }));
    assert_eq!(
        printed(&written),
        r#"{"podTemplate":{"spec":{"containers":[{"name":"main","resources":{},"gpuMode":""}],"alpha":false,"zeta":{"a":[],"b":1}},"metadata":{}}}"#
    );
}

#[test]
fn quantities_are_canonical() {
    let written = |memory: Value, cpu: &str| {
        pod(
            &json!({ "containers": [{ "name": "a", "resources": { "limits": { "memory": memory, "cpu": cpu } } }] }),
        )
    };
    let hash = |memory: Value, cpu: &str| blueprint_hash(&written(memory, cpu));
    assert_eq!(hash(json!("1024Mi"), "1000m"), hash(json!("1Gi"), "1"));
    assert_eq!(hash(json!("1"), "1"), hash(json!(1), "1"));
    assert_ne!(hash(json!("1Gi"), "1"), hash(json!("1G"), "1"));
    let odd = printed(&written(json!("lots"), "1"));
    assert!(odd.contains(r#""memory":"lots""#), "{odd}");
}

#[test]
fn labels_annotations_and_ways_of_writing_do_not_make_a_sandbox_stale() {
    let template = blueprint(json!({
        "podTemplate": {
            "metadata": { "labels": { "a": "1" } },
            "spec": { "containers": [{ "name": "a", "env": [], "resources": { "limits": { "memory": "1Gi" } } }] },
        },
        "volumeClaimTemplates": [{
            "metadata": { "name": "data", "labels": { "x": "y" } },
            "spec": { "resources": { "requests": { "storage": "1024Mi" } } },
        }],
    }));
    let member = blueprint(json!({
        "volumeClaimTemplates": [{
            "spec": { "resources": { "requests": { "storage": "1073741824" } } },
            "metadata": { "name": "data" },
        }],
        "podTemplate": {
            "spec": { "containers": [{ "resources": { "limits": { "memory": "1048576Ki" } }, "name": "a" }] },
        },
    }));
    assert!(same_blueprint(&template, &member));
    assert_ne!(blueprint_hash(&template), blueprint_hash(&member));
}

#[test]
fn what_changes_a_sandbox_makes_it_stale() {
    let claim = |name: &str, size: &str| json!({ "metadata": { "name": name }, "spec": { "resources": { "requests": { "storage": size } } } });
    let base = json!({
        "podTemplate": { "spec": { "containers": [{ "name": "a", "image": "i:1" }] } },
        "volumeClaimTemplates": [claim("x", "1Gi"), claim("y", "1Gi")],
    });
    let changed = |path: &str, value: Value| {
        let mut changed = base.clone();
        *changed.pointer_mut(path).unwrap() = value;
        blueprint(changed)
    };
    let original = blueprint(base.clone());
    assert!(same_blueprint(&original, &original));
    for other in [
        changed("/podTemplate/spec/containers/0/image", json!("i:2")),
        changed("/podTemplate/spec/containers", json!([])),
        changed(
            "/podTemplate/spec/containers/0",
            json!({ "name": "a", "image": "i:1", "newer": 1 }),
        ),
        changed(
            "/podTemplate/spec/containers/0",
            json!({ "name": "a", "image": "i:1", "securityContext": {} }),
        ),
        changed(
            "/podTemplate/spec/containers/0",
            json!({ "name": "a", "image": "i:1", "securityContext": { "privileged": false } }),
        ),
        changed(
            "/volumeClaimTemplates",
            json!([claim("y", "1Gi"), claim("x", "1Gi")]),
        ),
        changed("/volumeClaimTemplates", json!([claim("x", "1Gi")])),
        changed("/volumeClaimTemplates/0", claim("x", "1G")),
        Blueprint {
            service: Some(false),
            ..original.clone()
        },
    ] {
        assert!(!same_blueprint(&original, &other), "{other:?}");
    }
}

/// Pod specs with members in random order, some of them unknown to the table.
fn specs() -> impl Strategy<Value = Vec<(String, Value)>> {
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!("")),
        Just(json!(0)),
        any::<bool>().prop_map(Value::from),
        "[a-z<&\"]{0,4}".prop_map(Value::from),
        Just(json!({})),
        Just(json!([])),
        Just(
            json!([{ "name": "a", "newer": { "q": 1, "p": 2 }, "resources": { "limits": { "cpu": "0.5" } } }])
        ),
    ];
    let name = prop::sample::select(vec![
        "containers",
        "initContainers",
        "hostname",
        "nodeSelector",
        "priority",
        "affinity",
        "newer1",
        "newer2",
        "aaa",
    ]);
    prop::collection::btree_map(name.prop_map(str::to_owned), value, 0..9)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn the_order_of_members_does_not_matter(spec in specs()) {
        let forward = pod(&Value::Object(spec.iter().cloned().collect()));
        let backward = pod(&Value::Object(spec.into_iter().rev().collect()));
        prop_assert_eq!(blueprint_hash(&forward), blueprint_hash(&backward));
        prop_assert!(same_blueprint(&forward, &backward));
    }

    #[test]
    fn the_text_is_json_and_printing_it_again_changes_nothing(spec in specs()) {
        let first = printed(&pod(&Value::Object(spec.into_iter().collect())));
        let back: Blueprint = serde_json::from_str(&first).unwrap();
        prop_assert_eq!(printed(&back), first);
    }

    #[test]
    fn a_newer_member_always_counts(spec in specs(), value in "[a-z]{1,4}") {
        let mut map: serde_json::Map<_, _> = spec.into_iter().collect();
        let without = pod(&Value::Object(map.clone()));
        map.insert("brandNew".to_owned(), value.into());
        let with = pod(&Value::Object(map));
        prop_assert_ne!(printed(&without), printed(&with));
        prop_assert!(!same_blueprint(&without, &with));
    }
}
