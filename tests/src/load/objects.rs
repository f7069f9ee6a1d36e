//! The objects of a run and the writes that the floor repeats. The bodies have the shape and size of
//! those the operator sends, so that a bare call costs the API server what the operator's costs.

use agent_sandbox_controller::names;
use agent_sandbox_crds::allocation::{Allocation, Reference};
use agent_sandbox_crds::{annotations, labels};
use serde_json::{Map, Value, json};

use crate::cluster::IMAGE;

/// Name of the template.
pub const TEMPLATE: &str = "bench";
/// Name of the pool.
pub const POOL: &str = "bench";
const EXTENSIONS: &str = "extensions.agents.x-k8s.io/v1beta1";
const SANDBOXES: &str = "agents.x-k8s.io/v1beta1";

/// A name that nothing has.
pub fn fresh() -> String {
    format!("f{:016x}", fastrand::u64(..))
}

/// What a pod is made of: one container with a port, a probe and resources.
fn pod_spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["8.8.8.8", "1.1.1.1"]},
        "containers": [{
            "name": "runtime",
            "image": IMAGE,
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

/// A pool.
pub fn pool(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": EXTENSIONS,
        "kind": "SandboxWarmPool",
        "metadata": {"name": name},
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

/// The pod of a member, as an operator makes it: placed on a node, and gone with its sandbox.
pub fn started_pod(sandbox: &Version) -> Value {
    let mut pod = pod(&sandbox.name);
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("schedulerName");
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        let owner = json!([{
            "apiVersion": SANDBOXES,
            "kind": "Sandbox",
            "name": sandbox.name,
            "uid": sandbox.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
        metadata.insert("ownerReferences".to_owned(), owner);
    }
    pod
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
    fn reference(&self) -> Reference<'_> {
        Reference {
            name: &self.name,
            uid: &self.uid,
        }
    }

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

/// The patch that makes a claim the owner of a member. `untracked` clears the record of who set which field, as
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
        "annotations": {names::BINDING_GENERATION: "2"},
        "labels": {
            labels::WARM_POOL_SANDBOX: null,
            labels::SANDBOX_TEMPLATE_HASH: null,
            labels::SANDBOX_POD_TEMPLATE_HASH: null,
            labels::LAUNCH_TYPE: labels::LAUNCH_TYPE_WARM,
            labels::CLAIM_UID: claim.uid,
            labels::CREATED_BY: null,
            labels::SANDBOX_TEMPLATE_REF_HASH: "0123abcd",
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

/// The status of a pool that is full, before anybody claims.
pub fn pool_status(pool: &Version, replicas: u32) -> Value {
    json!({
        "metadata": {"uid": pool.uid, "resourceVersion": pool.revision},
        "status": {
            "replicas": replicas,
            "readyReplicas": replicas,
            "selector": format!("{}=0123abcd", labels::WARM_POOL_SANDBOX),
            "observedGeneration": 1,
            "conditions": [condition("Progressing")],
        },
    })
}

/// An entry of a pool's allocation record: which member a claim was given.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The claim.
    pub claim: Version,
    /// The member.
    pub member: Version,
}

/// The write of a pool's allocation record: all entries, on condition that the pool is as it was read.
/// It also tells how many members are still Ready.
pub fn allocations(pool: &Version, entries: &[Entry], ready: u32, settled: Option<&str>) -> Value {
    let entries = entries.iter().map(|entry| {
        let entry = Allocation {
            claim: entry.claim.reference(),
            sandbox: entry.member.reference(),
        };
        entry.to_string()
    });
    let entries: Vec<String> = entries.collect();
    json!({
        "metadata": {"uid": pool.uid, "resourceVersion": pool.revision},
        "status": {
            "allocations": (!entries.is_empty()).then_some(entries),
            "retiring": null,
            "settledResourceVersion": settled,
            "readyReplicas": (ready > 0).then_some(ready),
        },
    })
}
