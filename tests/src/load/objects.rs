//! The objects of a run and the writes that the floor repeats. The bodies have the shape and size of
//! those the operator sends, so that a bare call costs the API server what the operator's costs.

use agent_sandbox_crds::{annotations, labels};
use serde_json::{Map, Value, json};

/// Name of the template.
pub const TEMPLATE: &str = "bench";
/// Name of the pool.
pub const POOL: &str = "bench";
const EXTENSIONS: &str = "extensions.agents.x-k8s.io/v1beta1";
const SANDBOXES: &str = "agents.x-k8s.io/v1beta1";

/// What a pod is made of: one container with a port, a probe and resources.
fn pod_spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["8.8.8.8", "1.1.1.1"]},
        "containers": [{
            "name": "runtime",
            "image": "agent-sandbox-runtime:0.1.0",
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 8888}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8888}, "periodSeconds": 1},
            "resources": {
                "requests": {"cpu": "1m", "memory": "4Mi"},
                "limits": {"memory": "512Mi"},
            },
        }],
    })
}

/// The template. Its policy is left out: what it would isolate are simulated pods.
pub fn template() -> Value {
    json!({
        "apiVersion": EXTENSIONS,
        "kind": "SandboxTemplate",
        "metadata": {"name": TEMPLATE},
        "spec": {
            "networkPolicyManagement": "Unmanaged",
            "podTemplate": {"metadata": {"labels": {"app": "bench"}}, "spec": pod_spec()},
        },
    })
}

/// The pool.
pub fn pool(replicas: u32) -> Value {
    json!({
        "apiVersion": EXTENSIONS,
        "kind": "SandboxWarmPool",
        "metadata": {"name": POOL},
        "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": TEMPLATE}},
    })
}

/// A claim on the pool.
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": EXTENSIONS,
        "kind": "SandboxClaim",
        "metadata": {"name": name},
        "spec": {"warmPoolRef": {"name": POOL}},
    })
}

/// What a pool writes on its members and their pods.
fn pool_marks() -> Map<String, Value> {
    [
        labels::WARM_POOL_SANDBOX,
        labels::SANDBOX_TEMPLATE_REF_HASH,
        labels::SANDBOX_TEMPLATE_HASH,
        labels::SANDBOX_POD_TEMPLATE_HASH,
    ]
    .into_iter()
    .map(|key| (key.to_owned(), json!("0123abcd")))
    .collect()
}

/// A sandbox as a pool makes it, but without an owner.
pub fn member(name: &str) -> Value {
    let mut own = pool_marks();
    own.insert(
        labels::LAUNCH_TYPE.to_owned(),
        json!(labels::LAUNCH_TYPE_WARM),
    );
    own.insert(
        labels::CREATED_BY.to_owned(),
        json!(labels::CREATED_BY_CONTROLLER),
    );
    let mut of_pod = pool_marks();
    of_pod.insert("app".to_owned(), json!("bench"));
    json!({
        "apiVersion": SANDBOXES,
        "kind": "Sandbox",
        "metadata": {
            "name": name,
            "labels": own,
            "annotations": {annotations::SANDBOX_TEMPLATE_REF: TEMPLATE},
        },
        "spec": {"podTemplate": {
            "spec": pod_spec(),
            "metadata": {
                "labels": of_pod,
                "annotations": {annotations::SAFE_TO_EVICT: "true"},
            },
        }},
    })
}

/// The pod of a member, placed on no node.
pub fn pod(name: &str) -> Value {
    let mut of_pod = pool_marks();
    of_pod.insert("app".to_owned(), json!("bench"));
    let mut spec = pod_spec();
    if let Some(spec) = spec.as_object_mut() {
        // Nobody schedules it, so that only the write itself is measured.
        spec.insert("schedulerName".to_owned(), json!("none"));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": of_pod},
        "spec": spec,
    })
}

fn condition(kind: &str) -> Value {
    json!({
        "type": kind,
        "status": "True",
        "reason": "DependenciesReady",
        "message": "Pod is Ready",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    })
}

/// What an object that was read or written is called and which version of it.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub revision: String,
}

impl Version {
    /// Reads it from an answer; `None` when that is no object.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |field: &str| {
            let value = object.pointer(field)?.as_str()?;
            Some(value.to_owned())
        };
        Some(Self {
            name: text("/metadata/name")?,
            uid: text("/metadata/uid")?,
            revision: text("/metadata/resourceVersion")?,
        })
    }
}

/// The status of a member that is ready.
pub fn member_status(member: &Version) -> Value {
    json!({
        "metadata": {"uid": member.uid, "resourceVersion": member.revision},
        "status": {
            "conditions": [condition("PodScheduled"), condition("Ready")],
            "nodeName": "node",
            "podIPs": ["10.0.0.1"],
        },
    })
}

/// The patch that binds a member to a claim. `untracked` clears the record of who set which field, as
/// the operator does; the API server then skips that bookkeeping, which is half of what the write
/// costs.
pub fn binding(claim: &Version, member: &Version, untracked: bool) -> Value {
    let mut metadata = json!({
        "uid": member.uid,
        "resourceVersion": member.revision,
        "ownerReferences": [{
            "apiVersion": EXTENSIONS,
            "kind": "SandboxClaim",
            "name": claim.name,
            "uid": claim.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
        "labels": {
            labels::WARM_POOL_SANDBOX: null,
            labels::SANDBOX_TEMPLATE_HASH: null,
            labels::SANDBOX_POD_TEMPLATE_HASH: null,
            labels::CLAIM_UID: claim.uid,
            labels::CREATED_BY: null,
        },
    });
    if let (true, Some(metadata)) = (untracked, metadata.as_object_mut()) {
        metadata.insert("managedFields".to_owned(), json!([{}]));
    }
    json!({
        "metadata": metadata,
        "spec": {"podTemplate": {"metadata": {
            "labels": {
                labels::WARM_POOL_SANDBOX: null,
                labels::SANDBOX_TEMPLATE_HASH: null,
                labels::SANDBOX_POD_TEMPLATE_HASH: null,
                labels::CLAIM_UID: claim.uid,
            },
            "annotations": {annotations::SAFE_TO_EVICT: null},
        }}},
    })
}

/// The patch that gives a bound member's pod the claim's label.
pub fn relabelling(claim: &Version, pod: &Version, untracked: bool) -> Value {
    let mut metadata = json!({
        "uid": pod.uid,
        "labels": {
            labels::WARM_POOL_SANDBOX: null,
            labels::SANDBOX_TEMPLATE_HASH: null,
            labels::SANDBOX_POD_TEMPLATE_HASH: null,
            labels::CLAIM_UID: claim.uid,
        },
    });
    if let (true, Some(metadata)) = (untracked, metadata.as_object_mut()) {
        metadata.insert("managedFields".to_owned(), json!([{}]));
    }
    json!({ "metadata": metadata })
}

/// The one status write that tells a claim's user everything.
pub fn claim_status(claim: &Version, member: &str) -> Value {
    json!({
        "metadata": {"uid": claim.uid, "resourceVersion": claim.revision},
        "status": {
            "conditions": [condition("Ready")],
            "sandbox": {"name": member, "podIPs": ["10.0.0.1"]},
        },
    })
}

/// An allocation record: one small object that names a sandbox for every claim of a batch.
pub fn record(name: &str, revision: Option<&str>, pairs: &[(String, String)]) -> Value {
    let data: Map<String, Value> = pairs
        .iter()
        .map(|(claim, member)| (claim.clone(), json!(member)))
        .collect();
    let mut metadata = json!({"name": name});
    if let (Some(revision), Some(metadata)) = (revision, metadata.as_object_mut()) {
        metadata.insert("resourceVersion".to_owned(), json!(revision));
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}
