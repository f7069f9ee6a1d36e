use proptest::prelude::*;
use serde_json::json;

use super::typed::tests::{any_spec, property_schema};
use super::*;
use crate::schema::apply_defaults;

fn schema() -> Structural {
    Structural::parse(&json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer"},
                "image": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "mode": {"type": "string", "default": "Running"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {
                        "port": {"type": "integer"}, "name": {"type": "string"}
                    }}
                }
            }},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }
    }))
    .unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn config(spec: &Value) -> Value {
    json!({"apiVersion": "e.io/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

/// A cluster of one object.
struct Server {
    schema: Structural,
    live: Option<Value>,
    now: i64,
}

impl Server {
    fn new() -> Self {
        Self {
            schema: schema(),
            live: None,
            now: 0,
        }
    }

    fn apply(&mut self, manager: &str, spec: &Value, force: bool) -> Result<(), String> {
        self.apply_config(manager, &config(spec), force)
    }

    fn apply_config(&mut self, manager: &str, applied: &Value, force: bool) -> Result<(), String> {
        self.now += 1;
        let mut next = server_side_apply(&ApplyInput {
            schema: &self.schema,
            live: self.live.as_ref(),
            applied,
            manager,
            api_version: "e.io/v1",
            subresource: "",
            now: at(self.now),
            force,
        })
        .map_err(|error| error.to_string())?;
        apply_defaults(&self.schema, &mut next);
        self.live = Some(next);
        Ok(())
    }

    fn update(&mut self, manager: &str, subresource: &str, change: impl FnOnce(&mut Value)) {
        self.now += 1;
        let mut new = self.live.clone().unwrap_or_else(|| config(&json!({})));
        change(&mut new);
        let input = UpdateInput {
            schema: &self.schema,
            manager,
            api_version: "e.io/v1",
            subresource,
            now: at(self.now),
        };
        record_update(input, self.live.as_ref(), &mut new);
        self.live = Some(new);
    }

    fn spec(&self) -> &Value {
        &self.live.as_ref().unwrap()["spec"]
    }

    /// `manager operation subresource: paths` of every owner.
    fn owners(&self) -> Vec<String> {
        let managers = Managers::parse(self.live.as_ref().unwrap()).unwrap();
        managers
            .owners()
            .iter()
            .map(|owner| {
                let identity = &owner.identity;
                let subresource = if identity.subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{}", identity.subresource)
                };
                format!(
                    "{} {:?}{subresource}: {}",
                    identity.manager,
                    identity.operation,
                    owner.fields.paths().join(" ")
                )
            })
            .collect()
    }

    fn times(&self) -> Vec<&str> {
        let record = &self.live.as_ref().unwrap()["metadata"]["managedFields"];
        record
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["time"].as_str().unwrap())
            .collect()
    }
}

#[test]
fn an_apply_creates_and_owns() {
    let mut server = Server::new();
    server
        .apply("a", &json!({"replicas": 1, "labels": {"x": "1"}}), false)
        .unwrap();
    assert_eq!(
        server.live.as_ref().unwrap(),
        &json!({
            "apiVersion": "e.io/v1", "kind": "Thing",
            "metadata": {"name": "x", "managedFields": [{
                "manager": "a", "operation": "Apply", "apiVersion": "e.io/v1",
                "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:labels": {"f:x": {}}, "f:replicas": {}}}
            }]},
            "spec": {"replicas": 1, "labels": {"x": "1"}, "mode": "Running"}
        })
    );
}

#[test]
fn what_is_not_applied_any_more_goes() {
    let mut server = Server::new();
    server
        .apply(
            "a",
            &json!({"replicas": 1, "image": "i", "labels": {"x": "1", "y": "2"},
                    "ports": [{"port": 1}, {"port": 2, "name": "n"}]}),
            false,
        )
        .unwrap();
    server
        .apply("b", &json!({"image": "i", "labels": {"z": "3"}}), false)
        .unwrap();
    server
        .apply(
            "a",
            &json!({"labels": {"x": "1"}, "ports": [{"port": 2}]}),
            false,
        )
        .unwrap();
    assert_eq!(
        server.spec(),
        &json!({"image": "i", "labels": {"x": "1", "z": "3"}, "ports": [{"port": 2}], "mode": "Running"})
    );
    server.apply("a", &json!({}), false).unwrap();
    assert_eq!(
        server.spec(),
        &json!({"image": "i", "labels": {"z": "3"}, "mode": "Running"})
    );
    assert_eq!(
        server.owners(),
        ["b Apply: .spec.image .spec.labels.z", "a Apply: .spec"]
    );
}

#[test]
fn conflicts_name_manager_and_field() {
    let mut server = Server::new();
    server
        .apply("a", &json!({"replicas": 1, "image": "i"}), false)
        .unwrap();
    server.update("editor", "", |object| {
        object["spec"]["image"] = json!("j");
        object["spec"]["ports"] = json!([{"port": 1, "name": "n"}]);
    });
    assert_eq!(
        server.apply("b", &json!({"replicas": 2}), false),
        Err(r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#.to_owned())
    );
    assert_eq!(
        server.apply(
            "b",
            &json!({"replicas": 2, "image": "k", "ports": [{"port": 1, "name": "m"}]}),
            false
        ),
        Err(
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.replicas\n\
             conflicts with \"editor\" using e.io/v1:\n- .spec.image\n- .spec.ports[port=1].name"
                .to_owned()
        )
    );
    // The same value is no conflict: both own the field.
    server.apply("b", &json!({"replicas": 1}), false).unwrap();
    server.apply("c", &json!({"replicas": 2}), true).unwrap();
    assert_eq!(server.spec()["replicas"], 2);
    assert_eq!(
        server.owners(),
        [
            "c Apply: .spec.replicas",
            "editor Update: .spec.image .spec.ports .spec.ports[port=1] .spec.ports[port=1].name .spec.ports[port=1].port"
        ]
    );
}

#[test]
fn updates_take_what_they_change() {
    let mut server = Server::new();
    server
        .apply("a", &json!({"replicas": 1, "image": "i"}), false)
        .unwrap();
    server.update("u", "", |object| object["spec"]["replicas"] = json!(3));
    server.update("u", "", |object| {
        object["spec"]["labels"] = json!({"x": "1"});
    });
    server.update("u", "status", |object| {
        object["status"] = json!({"phase": "Up"});
    });
    assert_eq!(
        server.owners(),
        [
            "a Apply: .spec.image",
            "u Update: .spec.labels .spec.labels.x .spec.replicas",
            "u Update/status: .status .status.phase",
        ]
    );
    server.update("v", "", |object| {
        object["spec"] = json!({"image": "i", "labels": {"x": "2"}, "mode": "Running"});
    });
    assert_eq!(
        server.owners(),
        [
            "a Apply: .spec.image",
            "u Update: .spec.labels",
            "u Update/status: .status .status.phase",
            "v Update: .spec.labels.x",
        ]
    );
}

#[test]
fn nothing_new_leaves_the_record_alone() {
    let mut server = Server::new();
    let spec = json!({"replicas": 1, "labels": {"x": "1"}});
    server.apply("a", &spec, false).unwrap();
    server.update("u", "", |object| object["spec"]["image"] = json!("i"));
    let before = server.live.clone();
    server.apply("a", &spec, false).unwrap();
    server.update("u", "", |_| {});
    server.update("w", "status", |_| {});
    assert_eq!(server.live, before);
    assert_eq!(
        server.times(),
        ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]
    );
    server
        .apply("a", &json!({"replicas": 2, "labels": {"x": "1"}}), false)
        .unwrap();
    assert_eq!(
        server.times(),
        ["2026-01-01T00:00:06Z", "2026-01-01T00:00:02Z"]
    );
}

#[test]
fn the_record_can_be_changed_and_reset() {
    let mut server = Server::new();
    server.apply("a", &json!({"replicas": 1}), false).unwrap();
    let record = server.live.as_ref().unwrap()["metadata"]["managedFields"].clone();
    // Clients that do not know the record do not lose it.
    server.update("u", "", |object| {
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
    });
    assert_eq!(
        server.live.as_ref().unwrap()["metadata"]["managedFields"],
        record
    );
    // A malformed one is ignored, and subresources cannot touch it.
    server.update("u", "", |object| {
        object["metadata"]["managedFields"] = json!([{"operation": 1}]);
    });
    server.update("u", "status", |object| {
        object["metadata"]["managedFields"] = json!([]);
    });
    assert_eq!(
        server.live.as_ref().unwrap()["metadata"]["managedFields"],
        record
    );

    server.update("u", "", |object| {
        object["metadata"]["managedFields"] = json!([{}]);
    });
    assert!(
        server.live.as_ref().unwrap()["metadata"]
            .get("managedFields")
            .is_none()
    );
    server.update("u", "", |object| object["spec"]["replicas"] = json!(2));
    assert!(
        server.live.as_ref().unwrap()["metadata"]
            .get("managedFields")
            .is_none()
    );
    server.apply("a", &json!({"image": "i"}), false).unwrap();
    assert_eq!(
        server.owners(),
        [
            "a Apply: .spec.image",
            "before-first-apply Update: .spec .spec.mode .spec.replicas"
        ]
    );
}

#[test]
fn metadata_of_the_server_is_nobodys() {
    let mut server = Server::new();
    server.update("u", "", |object| {
        object["metadata"] = json!({"name": "x", "namespace": "n", "uid": "1", "generation": 1,
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"a": "b"}, "finalizers": ["f"]});
    });
    assert_eq!(
        server.owners(),
        [
            "u Update: .metadata.finalizers .metadata.finalizers[=\"f\"] .metadata.labels .metadata.labels.a .spec"
        ]
    );
}

#[test]
fn kubectl_upgrades_from_client_side_apply() {
    let mut server = Server::new();
    let applied = config(&json!({"replicas": 1, "image": "i"}));
    let mut created = applied.clone();
    created["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    server.update("kubectl-client-side-apply", "", |object| *object = created);
    assert!(
        server
            .apply("other", &json!({"replicas": 2}), false)
            .is_err()
    );

    server
        .apply("kubectl", &json!({"replicas": 2, "image": "i"}), false)
        .unwrap();
    assert_eq!(server.spec()["replicas"], 2);
    let annotation = server.live.as_ref().unwrap()["metadata"]["annotations"]
        ["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    let annotated: Value = serde_json::from_str(annotation).unwrap();
    assert_eq!(annotated, config(&json!({"replicas": 2, "image": "i"})));

    // What somebody else changed since is a conflict still.
    let mut server = Server::new();
    let mut created = applied.clone();
    created["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    server.update("kubectl-client-side-apply", "", |object| *object = created);
    server.update("scaler", "", |object| object["spec"]["replicas"] = json!(5));
    assert_eq!(
        server.apply("kubectl", &json!({"replicas": 2, "image": "j"}), false),
        Err(
            r#"Apply failed with 1 conflict: conflict with "scaler" using e.io/v1: .spec.replicas"#
                .to_owned()
        )
    );
}

#[test]
fn wrong_configurations_are_refused() {
    let mut server = Server::new();
    let mut with_record = config(&json!({}));
    with_record["metadata"]["managedFields"] = json!([]);
    let mut other_version = config(&json!({}));
    other_version["apiVersion"] = json!("e.io/v2");
    for (applied, message) in [
        (json!([]), "the applied configuration must be an object"),
        (with_record, "metadata.managedFields must be nil"),
        (
            other_version,
            "Incorrect version specified in apply patch. Specified patch version: e.io/v2, expected: e.io/v1",
        ),
        (
            config(&json!({"foo": 1})),
            "failed to create typed patch object (/x; e.io/v1, Kind=Thing): .spec.foo: field not declared in schema",
        ),
        (
            config(&json!({"ports": [{"port": 1}, {"port": 1}], "image": 1})),
            "failed to create typed patch object (/x; e.io/v1, Kind=Thing): errors:\n  .spec.ports: duplicate entries for key [port=1]\n  .spec.image: expected string, got 1",
        ),
    ] {
        assert_eq!(
            server.apply_config("a", &applied, false),
            Err(message.to_owned())
        );
    }
    assert_eq!(server.live, None);
}

fn property_server() -> Server {
    Server {
        schema: property_schema(),
        ..Server::new()
    }
}

/// Specs without nulls and empty containers. Those are owned like any value when they are new, but
/// lost when something is removed around them, in the published server too.
fn any_dense_spec() -> impl Strategy<Value = Value> {
    any_spec().prop_map(|spec| {
        let mut spec = dense(&spec).unwrap_or_else(|| json!({}));
        spec["name"] = json!("n");
        spec
    })
}

fn dense(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(dense).collect();
            (!items.is_empty()).then(|| items.into())
        }
        Value::Object(map) => {
            let map: Map<_, _> = map
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), dense(value)?)))
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        scalar => Some(scalar.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn applying_twice_is_applying_once(live in any_dense_spec(), a in any_dense_spec(), b in any_dense_spec()) {
        let mut server = property_server();
        server.update("u", "", |object| object["spec"] = live);
        server.apply("m", &a, true).unwrap();
        server.apply("m", &b, true).unwrap();
        let once = server.live.clone();
        server.apply("m", &b, true).unwrap();
        prop_assert_eq!(server.live, once);
    }

    #[test]
    fn managers_of_different_fields_commute(a in any_dense_spec(), b in any_dense_spec(), a2 in any_dense_spec(), b2 in any_dense_spec()) {
        let part = |spec: &Value, names: &[&str]| -> Value {
            let fields = spec.as_object().unwrap().iter()
                .filter(|(name, _)| names.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()));
            let mut part = Value::Object(fields.collect());
            part[names[names.len() - 1]] = json!("x");
            part
        };
        let left = |spec: &Value| part(spec, &["replicas", "labels", "ports", "name"]);
        let right = |spec: &Value| part(spec, &["selector", "tags", "args", "free", "mode"]);
        let mut one = property_server();
        one.apply("a", &left(&a), true).unwrap();
        one.apply("b", &right(&b), true).unwrap();
        one.apply("a", &left(&a2), true).unwrap();
        one.apply("b", &right(&b2), true).unwrap();
        let mut two = property_server();
        two.apply("b", &right(&b), true).unwrap();
        two.apply("b", &right(&b2), true).unwrap();
        two.apply("a", &left(&a), true).unwrap();
        two.apply("a", &left(&a2), true).unwrap();
        prop_assert_eq!(one.spec(), two.spec());
        let mut owners = (one.owners(), two.owners());
        owners.0.sort();
        owners.1.sort();
        prop_assert_eq!(owners.0, owners.1);
    }

    #[test]
    fn only_the_last_configuration_counts(a in any_dense_spec(), b in any_dense_spec()) {
        let mut server = property_server();
        server.apply("m", &a, false).unwrap();
        server.apply("m", &b, false).unwrap();
        let mut fresh = property_server();
        fresh.apply("m", &b, false).unwrap();
        let bare = |server: &Server| { let mut o = server.live.clone().unwrap(); remove_record(&mut o); o };
        prop_assert_eq!(bare(&server), bare(&fresh));
        prop_assert_eq!(server.owners(), fresh.owners());
    }

    #[test]
    fn owners_own_what_is_there(a in any_dense_spec(), b in any_dense_spec(), c in any_dense_spec()) {
        let mut server = property_server();
        server.apply("a", &a, true).unwrap();
        server.update("u", "", |object| object["spec"] = b);
        server.apply("a", &c, true).unwrap();
        let mut object = server.live.clone().unwrap();
        remove_record(&mut object);
        let ty = Type::Schema(&server.schema);
        let there = typed::compare(ty, &json!({}), &object).added;
        for owner in Managers::parse(server.live.as_ref().unwrap()).unwrap().owners() {
            let missing = owner.fields.difference(&there);
            prop_assert!(missing.is_empty(), "{} owns {missing}", owner.identity.manager);
        }
    }
}
