use serde_json::json;

use super::*;

fn pod_like() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "other": {"type": "string"},
                    "ports": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["port"],
                        "items": {
                            "type": "object",
                            "required": ["port"],
                            "properties": {
                                "port": {"x-kubernetes-int-or-string": true},
                                "labels": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"}
                                }
                            }
                        }
                    }
                },
                "x-kubernetes-validations": [{"rule": "true", "message": "m"}]
            }
        }
    })
}

#[test]
fn what_was_written_can_be_read() {
    let schema = Structural::parse(&pod_like()).unwrap();
    assert_eq!(schema.required().len(), 1);
    let spec = schema.property("spec").unwrap();
    assert_eq!(spec.rules().first().unwrap().message, "m");
    assert!(schema.has_rules());
    let ports = spec.property("ports").unwrap();
    assert_eq!(ports.kind(), Kind::Array);
    assert_eq!(ports.list_type(), ListType::Map);
    assert_eq!(&*ports.list_map_keys()[0], "port");
    let item = ports.items().unwrap();
    assert_eq!(item.property("port").unwrap().kind(), Kind::IntOrString);
    let labels = item.property("labels").unwrap();
    assert_eq!(labels.child("any").unwrap().kind(), Kind::String);
    assert!(item.property("none").is_none());
    assert!(!ports.has_rules());
}

#[test]
fn equal_parts_are_shared() {
    let mut interner = Interner::default();
    let first = Structural::parse_with(&mut interner, &pod_like()).unwrap();
    let nodes = interner.len();
    let second = Structural::parse_with(&mut interner, &pod_like()).unwrap();
    assert_eq!(interner.len(), nodes);
    assert!(first.same(&second));
    let spec = first.property("spec").unwrap();
    let name = spec.property("name").unwrap();
    assert!(name.same(spec.property("other").unwrap()));

    drop(second);
    interner.sweep();
    assert_eq!(interner.len(), nodes);
    drop(first);
    interner.sweep();
    assert!(interner.is_empty());
}

#[test]
fn references_are_followed() {
    let definitions = json!({
        "Pod": {
            "type": "object",
            "description": "a pod",
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}],
            "properties": {
                "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}], "default": {}},
                "spec": {"$ref": "#/definitions/PodSpec"}
            }
        },
        "Meta": {"type": "object", "properties": {"description": {"type": "string"}}},
        "PodSpec": {
            "type": "object",
            "properties": {
                "containers": {
                    "type": "array",
                    "items": {"allOf": [{"$ref": "#/components/schemas/Container"}], "default": {}},
                    "x-kubernetes-patch-merge-key": "name",
                    "x-kubernetes-patch-strategy": "merge"
                },
                "strategy": {
                    "allOf": [{"$ref": "#/components/schemas/Meta"}],
                    "x-kubernetes-patch-strategy": "merge,retainKeys",
                    "x-kubernetes-map-type": "atomic"
                }
            }
        },
        "Container": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "default": ""},
                "protocol": {"type": "string", "default": "TCP"},
                "port": {"$ref": "#/components/schemas/IntOrString"},
                "cpu": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"},
                "raw": {"$ref": "#/components/schemas/Raw"}
            }
        },
        "IntOrString": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
        "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        "Raw": {"type": "object"}
    });
    let pod = Structural::resolve(&definitions, "Pod").unwrap();
    assert_eq!(pod.group_version_kinds()[0].kind, "Pod");
    let meta = pod.property("metadata").unwrap();
    assert!(meta.property("description").is_some());
    assert_eq!(meta.default_value(), None);
    let spec = pod.property("spec").unwrap();
    let containers = spec.property("containers").unwrap();
    assert_eq!(containers.patch_merge_key(), Some("name"));
    assert!(containers.patch_merges() && !containers.patch_retains_keys());
    let strategy = spec.property("strategy").unwrap();
    assert!(strategy.patch_merges() && strategy.patch_retains_keys());
    assert_eq!(strategy.map_type(), MapType::Atomic);
    assert_eq!(meta.map_type(), MapType::Unset);
    let container = containers.items().unwrap();
    assert_eq!(container.property("name").unwrap().default_value(), None);
    assert_eq!(
        container.property("protocol").unwrap().default_value(),
        Some(&json!("TCP"))
    );
    assert_eq!(
        container.property("port").unwrap().kind(),
        Kind::IntOrString
    );
    assert_eq!(container.property("cpu").unwrap().kind(), Kind::Quantity);
    assert!(container.property("raw").unwrap().preserves_unknown());

    let error = Structural::resolve(&definitions, "None").unwrap_err();
    assert_eq!(error.to_string(), r#"<nil>: Not found: "None""#);
}

#[test]
fn recursion_expands_as_far_as_it_is_walked() {
    let definitions = json!({
        "Props": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "items": {"$ref": "#/Props"},
                "properties": {"type": "object", "additionalProperties": {"$ref": "#/Props"}},
                "extra": {"allOf": [{"$ref": "#/Props"}], "x-kubernetes-map-type": "atomic"}
            }
        },
        "Root": {"type": "object", "properties": {"schema": {"$ref": "#/Props"}}}
    });
    let root = Structural::resolve(&definitions, "Root").unwrap();
    let mut at = root.property("schema").unwrap();
    for _ in 0..20 {
        at = at.property("properties").unwrap().child("any").unwrap();
        at = at.property("items").unwrap();
        assert_eq!(at.property("type").unwrap().kind(), Kind::String);
        let extra = at.property("extra").unwrap();
        assert_eq!(extra.map_type(), MapType::Atomic);
        assert!(extra.property("items").is_some());
    }
    let mut object = json!({"schema": {"items": {"properties": {"a": {"type": "x", "bad": 1}}}}});
    crate::schema::prune(&root, &mut object);
    assert_eq!(
        object,
        json!({"schema": {"items": {"properties": {"a": {"type": "x"}}}}})
    );
}

#[test]
fn handles_stay_small() {
    assert!(size_of::<Structural>() <= 16);
    assert!(size_of::<Node>() <= 96);
}
