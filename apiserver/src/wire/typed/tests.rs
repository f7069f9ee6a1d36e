//! What clients see of the typed decoder, and its messages.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(fields: Value) -> Result<Value, TypeError> {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    conform("", "v1", "Pod", &mut object)?;
    Ok(object)
}

#[test]
fn empty_values_nulls_and_unknown_fields_go() {
    let object = pod(json!({
        "metadata": {"name": "x", "labels": {}, "annotations": null, "creationTimestamp": null,
                     "finalizers": [], "generation": 0, "unknown": 1},
        "spec": {
            "containers": [
                {"name": "a", "image": "b", "command": [], "tty": false, "env": [
                    {"name": "A", "value": ""},
                    {"name": "B", "value": "1", "valueFrom": null},
                ], "securityContext": {}, "typo": true},
            ],
            "hostNetwork": false,
            "nodeName": "",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
        "extra": {},
    }))
    .expect("valid");
    assert_eq!(
        object,
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "x"},
            "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {"name": "a", "image": "b", "env": [{"name": "A"}, {"name": "B", "value": "1"}],
                     "resources": {}, "securityContext": {}},
                ],
                // Optional, so zero is a value.
                "terminationGracePeriodSeconds": 0,
            },
            "status": {},
        })
    );
}

#[test]
fn quantities_times_and_bytes_get_one_spelling() {
    let object = pod(json!({
        "metadata": {"name": "x", "creationTimestamp": "2024-01-02T03:04:05.678+01:00"},
        "spec": {"containers": [{"name": "a", "resources": {
            "limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "1000m"}}}]},
        "status": {"phase": "Running"},
    }))
    .expect("valid");
    assert_eq!(
        object["metadata"]["creationTimestamp"],
        "2024-01-02T02:04:05Z"
    );
    assert_eq!(
        object["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1"}})
    );

    let mut secret = json!({"data": {"a": "YQ==\n", "empty": ""}, "stringData": {"b": "c"}});
    conform("", "v1", "Secret", &mut secret).expect("valid");
    assert_eq!(secret["data"], json!({"a": "YQ==", "empty": ""}));

    let mut lease = json!({"spec": {"renewTime": "2024-01-02T03:04:05Z"}});
    conform("coordination.k8s.io", "v1", "Lease", &mut lease).expect("valid");
    assert_eq!(lease["spec"]["renewTime"], "2024-01-02T03:04:05.000000Z");
}

#[test]
fn zero_values_appear_where_a_struct_always_writes_them() {
    let mut set = json!({"spec": {"selector": {}}});
    conform("apps", "v1", "ReplicaSet", &mut set).expect("valid");
    assert_eq!(set["status"], json!({"replicas": 0}));
    assert_eq!(
        set["spec"],
        json!({"selector": {}, "template": {"metadata": {}, "spec": {}}})
    );

    let object = pod(json!({"spec": {"containers": [
        {"name": "a", "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "r"}}}]},
        null,
    ]}}))
    .expect("valid");
    let containers = &object["spec"]["containers"];
    let reference = &containers[0]["env"][0]["valueFrom"]["resourceFieldRef"];
    assert_eq!(*reference, json!({"resource": "r", "divisor": "0"}));
    assert_eq!(containers[1], json!({"name": "", "resources": {}}));
}

#[test]
fn inlined_structs_are_read_in_place() {
    let object = pod(
        json!({"spec": {"containers": [{"name": "a", "livenessProbe": {
        "httpGet": {"port": "http", "scheme": ""}, "periodSeconds": 3}}]}}),
    )
    .expect("valid");
    assert_eq!(
        object["spec"]["containers"][0]["livenessProbe"],
        json!({"httpGet": {"port": "http"}, "periodSeconds": 3})
    );
}

#[test]
fn type_errors_are_worded_as_on_a_real_server() {
    let with = |extra: Value| {
        let mut container = json!({"name": "a", "image": "b"});
        container
            .as_object_mut()
            .expect("object")
            .extend(extra.as_object().expect("object").clone());
        json!({"spec": {"containers": [container]}})
    };
    for (object, message) in [
        (
            json!({"spec": {"terminationGracePeriodSeconds": "x"}}),
            "json: cannot unmarshal string into Go struct field \
             PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            with(json!({"image": 5})),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of \
             type string",
        ),
        (
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type \
             []v1.Container",
        ),
        (
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            with(json!({"ports": [{"containerPort": 1.5}]})),
            "json: cannot unmarshal number 1.5 into Go struct field \
             ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            with(json!({"ports": [{"containerPort": 99_999_999_999_u64}]})),
            "json: cannot unmarshal number 99999999999 into Go struct field \
             ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            with(json!({"livenessProbe": {"httpGet": {"port": true}}})),
            "json: cannot unmarshal bool into Go struct field \
             HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            json!({"spec": {"nodeSelector": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeSelector of type \
             string",
        ),
        (
            json!({"spec": {"tolerations": ["a"]}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.tolerations of type \
             v1.Toleration",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type \
             string",
        ),
        (
            json!({"status": {"startTime": "foo"}}),
            "parsing time \"foo\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"foo\" as \"2006\"",
        ),
        (
            json!({"status": {"startTime": 5}}),
            "json: cannot unmarshal number into Go struct field PodStatus.status.startTime of type \
             string",
        ),
        (
            with(json!({"resources": {"limits": {"cpu": [1]}}})),
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(pod(object).expect_err(message).to_string(), message);
    }
    let mut secret = json!({"data": {"a": "!!!"}});
    let error = conform("", "v1", "Secret", &mut secret).expect_err("not base64");
    assert_eq!(error.to_string(), "illegal base64 data at input byte 0");
}

#[test]
fn metadata_of_custom_resources() {
    let mut object =
        json!({"metadata": {"name": "x", "labels": {}, "foo": 1}, "spec": {"a": null}});
    conform_metadata(&mut object).expect("valid");
    assert_eq!(
        object,
        json!({"metadata": {"name": "x"}, "spec": {"a": null}})
    );

    let mut object = json!({"metadata": {"annotations": {"a": true}}});
    let error = conform_metadata(&mut object).expect_err("a boolean annotation");
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.annotations of type \
         string"
    );
    let mut object = json!({"metadata": ["a"]});
    conform_metadata(&mut object).expect_err("metadata is an object");
    let mut object = json!({"spec": {}});
    conform_metadata(&mut object).expect("metadata may be absent");
}

#[test]
fn kinds_without_a_type_are_left_alone() {
    let mut object = json!({"spec": {"a": null}});
    let before = object.clone();
    conform("example.com", "v1", "Foo", &mut object).expect("unknown kinds pass");
    assert_eq!(object, before);
    assert!(is_known("", "v1", "Pod") && !is_known("example.com", "v1", "Foo"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9:=.-]{0,12}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "containers",
        "name",
        "labels",
        "ports",
        "env",
        "resources",
        "limits",
        "cpu",
        "volumes",
        "template",
        "selector",
        "data",
        "startTime",
    ]);
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn conforming_twice_is_conforming_once(object in any_json()) {
        for (group, version, kind) in [("", "v1", "Pod"), ("apps", "v1", "Deployment"), ("", "v1", "Secret")] {
            let mut once = object.clone();
            if conform(group, version, kind, &mut once).is_ok() {
                let mut twice = once.clone();
                conform(group, version, kind, &mut twice).expect("a conforming object conforms");
                prop_assert_eq!(once, twice);
            }
        }
    }
}
