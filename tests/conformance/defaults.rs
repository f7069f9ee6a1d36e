//! What a server makes of the least an object needs: defaults, zero values, spellings.
//!
//! `defaults.jsonl` pairs manifests with what a Kubernetes 1.36 API server stored for them, without
//! what is allocated, and without what admission adds for service-account tokens.

use anyhow::Result;
use serde_json::{Map, Value};

use crate::target::{Target, text};

const RECORDED: &str = include_str!("defaults.jsonl");

#[tokio::test(flavor = "multi_thread")]
async fn the_least_manifests_get_the_defaults_of_their_kinds() -> Result<()> {
    let target = Target::new().await?;
    let mut differences = Vec::new();
    let mut count = 0;
    for line in RECORDED.lines() {
        let case: Value = serde_json::from_str(line)?;
        let manifest = &case["manifest"];
        let kind = text(manifest, "/kind");
        // A namespace and a definition of fixed names are not the test's own; both have tests.
        if matches!(kind, "Namespace" | "CustomResourceDefinition") {
            continue;
        }
        let stored = create(&target, manifest).await?;
        let (expected, actual) = (comparable(case["stored"].clone()), comparable(stored));
        if expected != actual {
            differences.push(format!(
                "{kind} {}:\n  recorded {expected}\n  got      {actual}",
                text(manifest, "/metadata/name")
            ));
        }
        count += 1;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(count > 35, "only {count} manifests were compared");
    Ok(())
}

/// Creates an object of any kind, in the test's namespace if it has one.
async fn create(target: &Target, manifest: &Value) -> Result<Value> {
    let mut manifest = manifest.clone();
    let api_version = text(&manifest, "/apiVersion").to_owned();
    let root = if api_version.contains('/') {
        format!("/apis/{api_version}")
    } else {
        format!("/api/{api_version}")
    };
    let kind = text(&manifest, "/kind").to_lowercase();
    let plural = match kind.as_str() {
        "endpoints" => kind,
        "networkpolicy" => "networkpolicies".to_owned(),
        kind if kind.ends_with('s') => format!("{kind}es"),
        kind => format!("{kind}s"),
    };
    let namespaced = manifest.pointer("/metadata/namespace").is_some();
    let path = if namespaced {
        manifest["metadata"]["namespace"] = target.namespace().into();
        if let Some(subject) = manifest.pointer_mut("/involvedObject/namespace") {
            *subject = target.namespace().into();
        }
        target.path(&root, &plural)
    } else {
        // Objects without a namespace get a name of the test's own.
        let name = target.unique(text(&manifest, "/metadata/name"));
        manifest["metadata"]["name"] = name.into();
        format!("{root}/{plural}")
    };
    let created = target.create(&path, &manifest).await?;
    // Some defaults only show when an object is read again.
    target
        .get(&format!("{path}/{}", text(&created, "/metadata/name")))
        .await?
        .ok()
}

/// An object without what differs from run to run, and without nulls, which mean absence.
fn comparable(object: Value) -> Value {
    let mut object = without_nulls(object);
    let Some(fields) = object.as_object_mut() else {
        return object;
    };
    fields.shift_remove("status");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.retain(|name, _| matches!(name.as_str(), "labels" | "generation"));
        uids_replaced(metadata.get_mut("labels"));
    }
    if let Some(subject) = fields
        .get_mut("involvedObject")
        .and_then(Value::as_object_mut)
    {
        subject.shift_remove("namespace");
    }
    let kind = fields
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if let Some(Value::Object(spec)) = fields.get_mut("spec") {
        match kind.as_str() {
            "Pod" => without_token_volume(spec),
            "Service" => without_allocations(spec),
            // Admission holds pods back until a controller has seen the node.
            "Node" => {
                spec.shift_remove("taints");
            }
            // Filled in by a storage provisioner or its defaulting, where there is one.
            "PersistentVolumeClaim" => {
                spec.shift_remove("storageClassName");
            }
            "Job" => {
                uids_replaced(
                    spec.get_mut("selector")
                        .and_then(|s| s.get_mut("matchLabels")),
                );
                uids_replaced(
                    spec.get_mut("template")
                        .and_then(|t| t.pointer_mut("/metadata/labels")),
                );
            }
            _ => {}
        }
    }
    object
}

fn without_token_volume(spec: &mut Map<String, Value>) {
    let is_token = |volume: &Value| text(volume, "/name").starts_with("kube-api-access");
    retain(spec, "volumes", |volume| !is_token(volume));
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(container) = container.as_object_mut() {
                retain(container, "volumeMounts", |mount| !is_token(mount));
            }
        }
    }
    spec.shift_remove("nodeName");
}

/// Keeps some elements of a list, and the list only if any are left.
fn retain(object: &mut Map<String, Value>, list: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(Value::Array(items)) = object.get_mut(list) {
        items.retain(keep);
        if items.is_empty() {
            object.shift_remove(list);
        }
    }
}

fn without_allocations(spec: &mut Map<String, Value>) {
    if spec
        .get("clusterIP")
        .is_some_and(|address| address != "None")
    {
        spec.shift_remove("clusterIP");
        spec.shift_remove("clusterIPs");
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(port) = port.as_object_mut() {
            port.shift_remove("nodePort");
        }
    }
}

/// Labels that carry the UID of the job they belong to.
fn uids_replaced(labels: Option<&mut Value>) {
    let Some(labels) = labels else { return };
    for label in ["batch.kubernetes.io/controller-uid", "controller-uid"] {
        if let Some(uid) = labels.get_mut(label) {
            *uid = "uid".into();
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .into_iter()
            .map(without_nulls)
            .collect::<Vec<_>>()
            .into(),
        other => other,
    }
}
