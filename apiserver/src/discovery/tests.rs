//! The documents as clients read them.

use std::collections::HashSet;

use serde_json::Value;

use super::*;
use crate::registry::builtin;
use crate::registry::{Origin, Scope, Subresource, SubresourceAction, Verb, strategy_for};

fn widget(group: &str, versions: &[(&str, bool)]) -> Descriptor {
    let version = |name: &str, served| Version {
        name: name.to_owned(),
        served,
        storage: name == "v1",
        deprecation: None,
        schema: Arc::default(),
        rules: Arc::default(),
        openapi: Some(
            r#"{"type":"object","description":"A widget.","properties":{
                "metadata":{"type":"object"},
                "spec":{"type":"object","description":"What it should be.","properties":{
                    "size":{"x-kubernetes-int-or-string":true,"description":"How large."}}}}}"#
                .into(),
        ),
        columns: Vec::new(),
        selectable_fields: Vec::new(),
        subresources: vec![Subresource {
            name: "status".to_owned(),
            body: None,
            verbs: vec![Verb::Get, Verb::Patch, Verb::Update],
            action: SubresourceAction::Part {
                paths: vec![vec!["status".to_owned()]],
            },
        }],
    };
    Descriptor {
        group: group.to_owned(),
        plural: "widgets".to_owned(),
        singular: "widget".to_owned(),
        kind: "Widget".to_owned(),
        list_kind: "WidgetList".to_owned(),
        short_names: vec!["wd".to_owned()],
        categories: Vec::new(),
        scope: Scope::Namespaced,
        verbs: Verb::ALL.to_vec(),
        versions: versions
            .iter()
            .map(|(name, served)| Arc::new(version(name, *served)))
            .collect(),
        generation: true,
        create_on_update: false,
        unconditional_update: false,
        returns_deleted: false,
        stored_as: None,
        origin: Origin::Custom {
            uid: "1".to_owned(),
        },
        strategy: strategy_for("example.com", "widgets"),
    }
}

fn snapshot() -> Snapshot {
    let custom = widget(
        "example.com",
        &[
            ("v1alpha1", true),
            ("v1", true),
            ("v1beta1", true),
            ("v2", false),
        ],
    );
    Snapshot::new(
        builtin::descriptors()
            .into_iter()
            .chain([custom])
            .map(Arc::new),
    )
}

fn document(snapshot: &Snapshot, path: &str) -> Value {
    let text = openapi::document(snapshot, path).expect(path);
    serde_json::from_slice(&text).expect("a document is JSON")
}

#[test]
fn versions_are_ordered_by_stability_then_number() {
    let mut versions = vec![
        "v1alpha1", "foo", "v1", "v10", "v2beta1", "v1beta2", "v1beta10", "v2", "bar",
    ];
    versions.sort_by_cached_key(|version| Reverse(priority(version)));
    assert_eq!(
        versions,
        [
            "v10", "v2", "v1", "v2beta1", "v1beta10", "v1beta2", "v1alpha1", "bar", "foo"
        ]
    );
}

#[test]
fn legacy_documents() {
    let snapshot = snapshot();
    let versions = legacy::versions(&snapshot, "127.0.0.1:6443");
    assert_eq!(versions["versions"], json!(["v1"]));

    let groups = legacy::groups(&snapshot);
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|g| g["name"].as_str())
        .collect();
    assert_eq!(names.first(), Some(&"apps"));
    assert_eq!(
        names.last(),
        Some(&"example.com"),
        "custom groups come last"
    );
    assert!(!names.contains(&""));

    let group = legacy::group(&snapshot, "example.com").expect("served");
    assert_eq!(
        group,
        json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": "example.com",
            "preferredVersion": {"groupVersion": "example.com/v1", "version": "v1"},
            "versions": [
                {"groupVersion": "example.com/v1", "version": "v1"},
                {"groupVersion": "example.com/v1beta1", "version": "v1beta1"},
                {"groupVersion": "example.com/v1alpha1", "version": "v1alpha1"},
            ],
        })
    );
    assert!(legacy::group(&snapshot, "other").is_none() && legacy::group(&snapshot, "").is_none());

    let core = legacy::resources(&snapshot, "", "v1").expect("served");
    assert_eq!(core["groupVersion"], "v1");
    let find = |name: &str| {
        core["resources"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|r| r["name"] == name)
            .cloned()
    };
    assert_eq!(
        find("pods"),
        Some(json!({
            "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["po"], "categories": ["all"],
        }))
    );
    assert_eq!(
        find("pods/eviction"),
        Some(json!({
            "name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy",
            "version": "v1", "kind": "Eviction", "verbs": ["create"],
        }))
    );
    assert!(
        legacy::resources(&snapshot, "example.com", "v2").is_none(),
        "v2 is not served"
    );
}

#[test]
fn aggregated_documents() {
    let snapshot = snapshot();
    let core = aggregated::core(&snapshot, aggregated::Form::V2);
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
    let others = aggregated::groups(&snapshot, aggregated::Form::V2Beta1);
    assert_eq!(others["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let custom = others["items"]
        .as_array()
        .and_then(|items| items.last())
        .expect("a group");
    assert_eq!(custom["metadata"], json!({"name": "example.com"}));
    assert_eq!(
        custom["versions"][0],
        json!({
            "version": "v1", "freshness": "Current",
            "resources": [{
                "resource": "widgets",
                "responseKind": {"group": "example.com", "version": "v1", "kind": "Widget"},
                "scope": "Namespaced", "singularResource": "widget",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["wd"],
                "subresources": [{
                    "subresource": "status",
                    "responseKind": {"group": "example.com", "version": "v1", "kind": "Widget"},
                    "verbs": ["get", "patch", "update"],
                }],
            }],
        })
    );
}

#[test]
fn every_document_of_the_index_is_whole() {
    let snapshot = snapshot();
    let index: Value = serde_json::from_slice(&openapi::index(&snapshot)).expect("JSON");
    let paths = index["paths"].as_object().expect("paths");
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/example.com/v1beta1"));
    for (path, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().expect("a URL");
        let hash = openapi::document_hash(&snapshot, path).expect("a hash");
        assert_eq!(url, format!("/openapi/v3/{path}?hash={hash}"));

        let document = document(&snapshot, path);
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        let text = document.to_string();
        for target in builtin::schemas::references(&text) {
            assert!(schemas.contains_key(target), "{path} refers to {target}");
        }
        let mut ids = HashSet::new();
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("an item").values() {
                if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
                    ids.insert(id.to_owned());
                }
            }
        }
        assert!(!ids.is_empty());
    }
    for path in [
        "api/v2",
        "apis/example.com/v2",
        "apis/",
        "apis",
        "",
        "apis//v1",
    ] {
        assert!(
            openapi::document(&snapshot, path).is_none(),
            "{path:?} was answered"
        );
    }
}

#[test]
fn kubectl_finds_what_it_needs_before_it_applies() {
    let snapshot = snapshot();
    for (path, item, kind) in [
        (
            "api/v1",
            "/api/v1/namespaces/{namespace}/pods/{name}",
            ("", "v1", "Pod"),
        ),
        (
            "api/v1",
            "/api/v1/namespaces/{name}",
            ("", "v1", "Namespace"),
        ),
        (
            "apis/example.com/v1",
            "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}",
            ("example.com", "v1", "Widget"),
        ),
    ] {
        let document = document(&snapshot, path);
        let patch = &document["paths"][item]["patch"];
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": kind.0, "version": kind.1, "kind": kind.2})
        );
        let parameters: Vec<&str> = patch["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(
            parameters,
            ["dryRun", "fieldManager", "fieldValidation", "force"]
        );
    }
}

#[test]
fn custom_schemas_are_published_in_full() {
    let document = document(&snapshot(), "apis/example.com/v1");
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["description"], "A widget.");
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "kind": "Widget", "version": "v1"}])
    );
    let size = &widget["properties"]["spec"]["properties"]["size"];
    assert_eq!(size["description"], "How large.");
    assert_eq!(
        size["anyOf"],
        json!([{"type": "integer"}, {"type": "string"}])
    );
    assert!(widget["properties"]["metadata"]["allOf"].is_array());
    let list = &document["components"]["schemas"]["com.example.v1.WidgetList"];
    assert_eq!(
        list["properties"]["items"]["items"]["$ref"],
        "#/components/schemas/com.example.v1.Widget"
    );
}

#[test]
fn the_hash_follows_the_content() {
    let before = Snapshot::new([Arc::new(widget("example.com", &[("v1", true)]))]);
    let mut changed = widget("example.com", &[("v1", true)]);
    changed.short_names.clear();
    let same = Snapshot::new([Arc::new(changed.clone())]);
    let path = "apis/example.com/v1";
    assert_eq!(
        openapi::document_hash(&before, path),
        openapi::document_hash(&same, path)
    );
    changed.kind = "Gadget".to_owned();
    let after = Snapshot::new([Arc::new(changed)]);
    assert_ne!(
        openapi::document_hash(&before, path),
        openapi::document_hash(&after, path)
    );
}

#[test]
fn the_version_names_the_release() {
    let version = version();
    assert_eq!(
        (version["major"].as_str(), version["minor"].as_str()),
        (Some("1"), Some("36"))
    );
    assert!(
        version["gitVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("v1.36."))
    );
}
