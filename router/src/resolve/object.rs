//! The few fields the router reads of a Pod, a Sandbox and a pool of them.
//!
//! Watches decode into these types and drop the rest as it streams by: a whole Pod costs tens of
//! kilobytes, of which routing needs some two hundred bytes.

use std::net::IpAddr;

use agent_sandbox_crds::allocation::Allocation;
use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::sandbox::OperatingMode;
use agent_sandbox_crds::{CORE_GROUP, annotations, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::kube::Watched;
use super::table::{Addresses, Index, Kind, Phase, PodFacts, PoolFacts, SandboxFacts, Uid};

const SANDBOX_KIND: &str = "Sandbox";

/// A pod.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
pub(crate) struct Pod {
    metadata: ObjectMeta,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodStatus {
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodAddress>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodAddress {
    #[serde(default)]
    ip: Option<String>,
}

/// A Sandbox.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = agent_sandbox_crds::Sandbox)]
pub(crate) struct Sandbox {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SandboxSpec,
    #[serde(default)]
    status: SandboxStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SandboxSpec {
    #[serde(default)]
    operating_mode: Option<OperatingMode>,
    #[serde(default)]
    replicas: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SandboxStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// A pool.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = agent_sandbox_crds::SandboxWarmPool)]
pub(crate) struct Pool {
    metadata: ObjectMeta,
    #[serde(default)]
    status: PoolStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PoolStatus {
    #[serde(default)]
    allocations: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason: Option<String>,
}

impl Pod {
    /// What the table keeps; `None` for a pod that no Sandbox controls.
    fn facts(&self, index: &mut Index) -> Option<PodFacts> {
        let owner = self
            .metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| {
                let group = owner
                    .api_version
                    .split_once('/')
                    .map_or(owner.api_version.as_str(), |(group, _)| group);
                owner.controller == Some(true) && owner.kind == SANDBOX_KIND && group == CORE_GROUP
            })?;
        let status = &self.status;
        let addresses = status
            .pod_ips
            .iter()
            .filter_map(|address| address.ip.as_deref())
            .chain(
                status
                    .pod_ip
                    .as_deref()
                    .filter(|_| status.pod_ips.is_empty()),
            )
            .filter_map(|ip| ip.parse::<IpAddr>().ok());
        Some(PodFacts {
            uid: self.uid()?,
            namespace: index.intern(self.metadata.namespace.as_deref()?),
            name: index.intern(self.metadata.name.as_deref()?),
            sandbox_uid: Uid::parse(&owner.uid)?,
            sandbox_name: index.intern(&owner.name),
            addresses: Addresses::new(addresses),
            ready: is_true(&status.conditions, condition::READY),
            deleting: self.metadata.deletion_timestamp.is_some(),
            pooled: has_label(&self.metadata, labels::WARM_POOL_SANDBOX),
        })
    }
}

impl SandboxSpec {
    fn wants_running(&self) -> bool {
        let mode = self
            .operating_mode
            .as_ref()
            .unwrap_or(&OperatingMode::Running);
        mode.wants_running(self.replicas)
    }
}

impl Sandbox {
    /// What the table keeps.
    fn facts(&self, index: &mut Index) -> Option<SandboxFacts> {
        let conditions = &self.status.conditions;
        let expired = conditions.iter().any(|it| {
            it.r#type == condition::READY && it.reason.as_deref() == Some(reason::SANDBOX_EXPIRED)
        });
        let pod_name = self
            .metadata
            .annotations
            .as_ref()
            .and_then(|held| held.get(annotations::POD_NAME))
            .filter(|name| !name.is_empty() && Some(*name) != self.metadata.name.as_ref())
            .map(|name| index.intern(name));
        Some(SandboxFacts {
            uid: self.uid()?,
            namespace: index.intern(self.metadata.namespace.as_deref()?),
            name: index.intern(self.metadata.name.as_deref()?),
            pod_name,
            phase: if self.metadata.deletion_timestamp.is_some() || expired {
                Phase::Gone
            } else if !self.spec.wants_running() {
                Phase::Suspended
            } else if is_true(conditions, condition::FINISHED) {
                Phase::Finished
            } else {
                Phase::Running
            },
            pooled: has_label(&self.metadata, labels::WARM_POOL_SANDBOX),
        })
    }
}

impl Pool {
    /// What the table keeps.
    fn facts(&self, index: &mut Index) -> Option<PoolFacts> {
        let given = self.status.allocations.iter();
        let given = given.filter_map(|text| Allocation::parse(text));
        Some(PoolFacts {
            uid: self.uid()?,
            namespace: index.intern(self.metadata.namespace.as_deref()?),
            given: given.filter_map(|it| Uid::parse(it.sandbox.uid)).collect(),
        })
    }
}

impl Watched for Pod {
    const KIND: Kind = Kind::Pods;
    const LABEL: Option<&'static str> = Some(labels::SANDBOX_NAME_HASH);

    fn apply(&self, index: &mut Index) {
        match self.facts(index) {
            Some(facts) => index.apply_pod(facts),
            // The pod may have been ours before its owner changed.
            None => {
                if let Some(uid) = self.uid() {
                    index.delete_pod(&uid);
                }
            }
        }
    }

    fn delete(index: &mut Index, uid: &Uid) {
        index.delete_pod(uid);
    }
}

impl Watched for Sandbox {
    const KIND: Kind = Kind::Sandboxes;

    fn apply(&self, index: &mut Index) {
        if let Some(facts) = self.facts(index) {
            index.apply_sandbox(facts);
        }
    }

    fn delete(index: &mut Index, uid: &Uid) {
        index.delete_sandbox(uid);
    }
}

/// Watched for what pools have given to claims: the operator says so there before it brings Sandbox
/// and pod in line, which in a burst takes it seconds.
impl Watched for Pool {
    const KIND: Kind = Kind::Pools;

    fn apply(&self, index: &mut Index) {
        if let Some(facts) = self.facts(index) {
            index.apply_pool(facts);
        }
    }

    fn delete(index: &mut Index, uid: &Uid) {
        index.delete_pool(uid);
    }
}

fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.r#type == kind && condition.status == "True")
}

fn has_label(metadata: &ObjectMeta, label: &str) -> bool {
    metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(label))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::table::Trust;
    use super::*;

    fn pod(owner: &Value) -> Option<PodFacts> {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "box", "namespace": "ns", "uid": "p1",
                "labels": {labels::SANDBOX_NAME_HASH: "1234"},
                "ownerReferences": [owner],
            },
            "spec": {"containers": [{"name": "main", "image": "x"}]},
            "status": {
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap();
        pod.facts(&mut Index::new(Trust::Pods))
    }

    fn owner(api_version: &str, kind: &str, controller: Option<bool>) -> Value {
        json!({
            "apiVersion": api_version, "kind": kind, "name": "box", "uid": "s1",
            "controller": controller,
        })
    }

    #[test]
    fn only_a_sandbox_controller_makes_a_sandbox_pod() {
        for version in [
            "agents.x-k8s.io/v1beta1",
            "agents.x-k8s.io/v1alpha1",
            "agents.x-k8s.io",
        ] {
            let facts = pod(&owner(version, "Sandbox", Some(true))).unwrap();
            assert!(facts.ready && !facts.pooled, "{version}");
            assert!(facts.addresses.contains("2001:db8::1".parse().unwrap()));
        }
        for (version, kind, controller) in [
            ("apps/v1", "Deployment", Some(true)),
            ("other.io/v1", "Sandbox", Some(true)),
            ("agents.x-k8s.io.evil/v1", "Sandbox", Some(true)),
            ("agents.x-k8s.io/v1beta1", "Sandbox", Some(false)),
            ("agents.x-k8s.io/v1beta1", "Sandbox", None),
        ] {
            assert_eq!(
                pod(&owner(version, kind, controller)),
                None,
                "{version} {kind}"
            );
        }
    }

    #[test]
    fn a_sandbox_is_suspended_in_either_version_and_gone_when_expired() {
        let phase = |spec: Value, conditions: Value| {
            let sandbox: Sandbox = serde_json::from_value(json!({
                "metadata": {"name": "box", "namespace": "ns", "uid": "s1"},
                "spec": spec,
                "status": {"conditions": conditions},
            }))
            .unwrap();
            let facts = sandbox.facts(&mut Index::new(Trust::Sandboxes));
            facts.unwrap().phase
        };
        let none = || json!([]);
        let suspended = json!({"operatingMode": "Suspended"});
        assert_eq!(phase(suspended, none()), Phase::Suspended);
        assert_eq!(phase(json!({"replicas": 0}), none()), Phase::Suspended);
        let running = json!({"operatingMode": "Running", "replicas": 1});
        assert_eq!(phase(running, none()), Phase::Running);
        let expired = json!([{"type": "Ready", "status": "False", "reason": "SandboxExpired"}]);
        assert_eq!(phase(json!({}), expired), Phase::Gone);
        let finished = json!([{"type": "Finished", "status": "True", "reason": "PodSucceeded"}]);
        assert_eq!(phase(json!({}), finished), Phase::Finished);
    }
}
