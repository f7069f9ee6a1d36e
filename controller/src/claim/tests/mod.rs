//! The pure parts of the claim controller.

mod desired;
mod notes;
mod observe;
mod plan;
mod rules;
mod status;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixtures::{condition, owner, row, uid};
use crate::objects::{ClaimRow, SandboxRow, TemplateRow};

/// UID of the claim under test.
const CLAIM: u64 = 1;

fn claim(spec: Value) -> Arc<ClaimRow> {
    claim_with(json!({}), spec, json!({}))
}

fn claim_with(metadata: Value, spec: Value, status: Value) -> Arc<ClaimRow> {
    let mut object = json!({
        "metadata": {"name": "c", "uid": uid(CLAIM), "generation": 4},
        "spec": {"warmPoolRef": {"name": "p"}},
        "status": status,
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    row(object)
}

fn template(spec: Value) -> Arc<TemplateRow> {
    let mut object = json!({
        "metadata": {"name": "t", "uid": uid(30)},
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main"}]}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    row(object)
}

/// A sandbox, by default a Ready one of the claim.
fn sandbox(metadata: Value, spec: Value, ready: Option<(&str, &str)>) -> Arc<SandboxRow> {
    let mut object = json!({
        "metadata": {
            "name": "p-1", "uid": uid(20), "generation": 7,
            "ownerReferences": owner("SandboxClaim", "c", &uid(CLAIM)),
            "annotations": {"agents.x-k8s.io/sandbox-template-ref": "t"},
            "labels": {"agents.x-k8s.io/launch-type": "warm"},
        },
        "spec": spec,
        "status": {"podIPs": ["10.0.0.1"], "conditions": []},
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    if let Some((status, reason)) = ready {
        object["status"]["conditions"] = json!([condition("Ready", status, reason)]);
    }
    row(object)
}

fn bound() -> Arc<SandboxRow> {
    sandbox(json!({}), json!({}), Some(("True", "DependenciesReady")))
}
