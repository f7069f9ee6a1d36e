//! The pure parts of the sandbox controller.

mod desired;
mod plan;
mod status;
mod status_writes;

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Holder, Observed, Rejected};
use super::policy::Policy;
use crate::fixtures::{condition, owner, row, uid};
use crate::objects::{PodRow, SandboxRow};

/// UID of the sandbox under test.
const SANDBOX: u64 = 1;

fn sandbox(spec: Value) -> Arc<SandboxRow> {
    with_status(spec, json!({}))
}

fn with_status(spec: Value, status: Value) -> Arc<SandboxRow> {
    row(json!({
        "metadata": {"name": "s", "uid": uid(SANDBOX), "generation": 3},
        "spec": spec, "status": status,
    }))
}

/// A pod the sandbox controls.
fn own_pod(metadata: Value, status: Value) -> Arc<PodRow> {
    let mut object = json!({"metadata": {
        "name": "s", "uid": uid(2), "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX)),
    }, "spec": {"nodeName": "node-1"}, "status": status});
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    row(object)
}

fn running() -> Value {
    json!({
        "phase": "Running",
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [condition("Ready", "True", ""), condition("PodScheduled", "True", "")],
    })
}

fn observed(sandbox: Arc<SandboxRow>, pods: Vec<Arc<PodRow>>) -> Observed {
    Observed {
        sandbox,
        pods,
        pod_name: Holder::Unseen,
        service: Holder::Unseen,
        volume_claims: Vec::new(),
        policy: Policy::NotNeeded,
        rejected: Rejected::default(),
    }
}
