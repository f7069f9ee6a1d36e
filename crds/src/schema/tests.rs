use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodSpec};
use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use serde_json::{Value, json};

use super::kubernetes;
use super::structural::structural;
use super::*;

fn pod_spec() -> Value {
    structural::<PodSpec>(PodSpecSchema::Full)
}

/// Calls `visit` with the path and the schema of every node.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(keyword) {
            walk(&format!("{path}{mark}"), inner, visit);
        }
    }
}

fn everything() -> Vec<Value> {
    [PodSpecSchema::Lean, PodSpecSchema::Full]
        .into_iter()
        .flat_map(crate::crd::all)
        .flat_map(|crd| crd.spec.versions)
        .map(|version| serde_json::to_value(version.schema.unwrap().open_api_v3_schema).unwrap())
        .collect()
}

#[test]
fn every_schema_is_structural() {
    const KEYWORDS: &[&str] = &[
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    for schema in everything() {
        walk("", &schema, &mut |path, node| {
            let node = node.as_object().unwrap();
            for keyword in node.keys() {
                assert!(KEYWORDS.contains(&keyword.as_str()), "{path}: {keyword}");
            }
            let int_or_string = node.contains_key("x-kubernetes-int-or-string");
            assert!(
                int_or_string || node.get("type").is_some_and(Value::is_string),
                "{path}"
            );
            assert!(
                !(node.contains_key("properties") && node.contains_key("additionalProperties")),
                "{path}"
            );
            assert_eq!(
                node.get("type") == Some(&json!("array")),
                node.contains_key("items"),
                "{path}"
            );
            for required in node
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let property = &node["properties"][required.as_str().unwrap()];
                assert!(property.is_object(), "{path}: {required}");
                assert!(property.get("default").is_none(), "{path}: {required}");
            }
            if node.get("x-kubernetes-list-type") == Some(&json!("map")) {
                let items = &node["items"];
                for key in node["x-kubernetes-list-map-keys"].as_array().unwrap() {
                    let demanded = items["required"]
                        .as_array()
                        .is_some_and(|r| r.contains(key));
                    let filled = items["properties"][key.as_str().unwrap()]
                        .get("default")
                        .is_some();
                    assert!(demanded || filled, "{path}: {key}");
                }
            }
        });
    }
}

#[test]
fn the_pod_spec_is_that_of_kubernetes_1_36() {
    let spec = pod_spec();
    assert_eq!(spec["properties"].as_object().unwrap().len(), 42);
    assert_eq!(spec["required"], json!(["containers"]));
    for newest in ["hostnameOverride", "schedulingGroup", "resources"] {
        assert!(spec["properties"][newest].is_object(), "{newest}");
    }
    let claim = structural::<PersistentVolumeClaimSpec>(PodSpecSchema::Full);
    assert_eq!(claim["properties"].as_object().unwrap().len(), 9);
    assert_eq!(claim.get("required"), None);
}

/// The whole list, because the values take part in template hashes.
#[test]
fn the_pod_spec_has_these_defaults_and_no_other() {
    let mut found = BTreeMap::new();
    walk("", &pod_spec(), &mut |path, node| {
        if let Some(default) = node.get("default") {
            found.insert(path.to_owned(), default.clone());
        }
    });
    let mut expected = BTreeMap::new();
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for (path, value) in [
            ("ports[].protocol", json!("TCP")),
            ("env[].valueFrom.configMapKeyRef.name", json!("")),
            ("env[].valueFrom.secretKeyRef.name", json!("")),
            ("env[].valueFrom.fileKeyRef.optional", json!(false)),
            ("envFrom[].configMapRef.name", json!("")),
            ("envFrom[].secretRef.name", json!("")),
            ("livenessProbe.grpc.service", json!("")),
            ("readinessProbe.grpc.service", json!("")),
            ("startupProbe.grpc.service", json!("")),
        ] {
            expected.insert(format!(".{containers}[].{path}"), value);
        }
    }
    for (path, value) in [
        ("azureDisk.fsType", json!("ext4")),
        ("azureDisk.readOnly", json!(false)),
        ("iscsi.iscsiInterface", json!("default")),
        ("rbd.pool", json!("rbd")),
        ("rbd.user", json!("admin")),
        ("rbd.keyring", json!("/etc/ceph/keyring")),
        ("scaleIO.fsType", json!("xfs")),
        ("scaleIO.storageMode", json!("ThinProvisioned")),
        ("cephfs.secretRef.name", json!("")),
        ("cinder.secretRef.name", json!("")),
        ("configMap.name", json!("")),
        ("csi.nodePublishSecretRef.name", json!("")),
        ("flexVolume.secretRef.name", json!("")),
        ("iscsi.secretRef.name", json!("")),
        ("projected.sources[].configMap.name", json!("")),
        ("projected.sources[].secret.name", json!("")),
        ("rbd.secretRef.name", json!("")),
        ("scaleIO.secretRef.name", json!("")),
        ("storageos.secretRef.name", json!("")),
    ] {
        expected.insert(format!(".volumes[].{path}"), value);
    }
    expected.insert(".imagePullSecrets[].name".to_owned(), json!(""));
    assert_eq!(found, expected);
}

#[test]
fn lists_and_objects_merge_as_in_core_v1() {
    let mut found = BTreeMap::new();
    walk("", &pod_spec(), &mut |path, node| {
        for keyword in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
            if let Some(value) = node.get(keyword) {
                let keys = &node
                    .get("x-kubernetes-list-map-keys")
                    .cloned()
                    .unwrap_or(Value::Null);
                found.insert(path.to_owned(), json!([value, keys]));
            }
        }
    });
    for (path, expected) in [
        (".containers", json!(["map", ["name"]])),
        (".initContainers[].env", json!(["map", ["name"]])),
        (
            ".ephemeralContainers[].ports",
            json!(["map", ["containerPort", "protocol"]]),
        ),
        (".containers[].volumeMounts", json!(["map", ["mountPath"]])),
        (
            ".containers[].volumeDevices",
            json!(["map", ["devicePath"]]),
        ),
        (".containers[].resources.claims", json!(["map", ["name"]])),
        (
            ".containers[].restartPolicyRules[].exitCodes.values",
            json!(["set", null]),
        ),
        (".volumes", json!(["map", ["name"]])),
        (".hostAliases", json!(["map", ["ip"]])),
        (
            ".topologySpreadConstraints",
            json!(["map", ["topologyKey", "whenUnsatisfiable"]]),
        ),
        (".nodeSelector", json!(["atomic", null])),
        (".imagePullSecrets[]", json!(["atomic", null])),
    ] {
        assert_eq!(found.get(path), Some(&expected), "{path}");
    }
    for plain in [
        ".tolerations",
        ".readinessGates",
        ".containers[].envFrom",
        ".containers[].command",
    ] {
        assert_eq!(found.get(plain), None, "{plain}");
    }
}

/// A fact about a definition that is renamed or gone would silently stop to apply.
#[test]
fn every_fact_is_about_something_that_exists() {
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    struct All {
        pod: PodSpec,
        claim: PersistentVolumeClaimSpec,
        ingress: NetworkPolicyIngressRule,
        egress: NetworkPolicyEgressRule,
    }
    let root = schemars::schema_for!(All).to_value();
    let definitions = &root["$defs"];
    let property =
        |definition: &str, name: &str| definitions[definition]["properties"][name].clone();
    for (definition, name, keys) in kubernetes::LIST_MAPS {
        let list = property(definition, name);
        assert_eq!(list["type"], "array", "{definition}.{name}");
        let items = list["items"]["$ref"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        for key in *keys {
            assert!(property(items, key).is_object(), "{items}.{key}");
        }
    }
    for (definition, name) in kubernetes::LIST_SETS {
        assert_eq!(
            property(definition, name)["type"],
            "array",
            "{definition}.{name}"
        );
    }
    for (definition, name) in kubernetes::ATOMIC_MAPS {
        assert_eq!(
            property(definition, name)["type"],
            "object",
            "{definition}.{name}"
        );
    }
    for definition in kubernetes::ATOMIC_OBJECTS {
        assert_eq!(definitions[definition]["type"], "object", "{definition}");
    }
    for (definition, name, _) in kubernetes::DEFAULTS {
        assert!(
            property(definition, name).is_object(),
            "{definition}.{name}"
        );
    }
    for definition in definitions.as_object().unwrap().keys() {
        let stands = kubernetes::replacement(definition, PodSpecSchema::Lean).is_some();
        let known = ["PodSpec", "Quantity", "ObjectMeta"];
        assert_eq!(
            stands,
            known
                .iter()
                .any(|name| definition.ends_with(&format!(".{name}"))),
            "{definition}"
        );
    }
}
