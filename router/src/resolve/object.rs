//! The few fields the router reads of a Pod, a Sandbox and a pool of them.
//!
//! Watches decode into these types and drop the rest as it streams by: a whole Pod costs tens of
//! kilobytes, of which routing needs some two hundred bytes.

use std::borrow::Cow;
use std::net::IpAddr;

use agent_sandbox_crds::allocation::Allocation;
use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::sandbox::OperatingMode;
use agent_sandbox_crds::{CORE_GROUP, EXTENSIONS_GROUP, STORED_VERSION, annotations, labels};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::table::{Addresses, Index, Phase, PodFacts, PoolFacts, SandboxFacts, Uid};

const SANDBOX_KIND: &str = "Sandbox";

/// A pod.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
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
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sandbox {
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
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pool {
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
    pub(super) fn facts(&self, index: &mut Index) -> Option<PodFacts> {
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

    pub(super) fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref().and_then(Uid::parse)
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
    pub(super) fn facts(&self, index: &mut Index) -> Option<SandboxFacts> {
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

    pub(super) fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref().and_then(Uid::parse)
    }
}

impl Pool {
    /// What the table keeps.
    pub(super) fn facts(&self, index: &mut Index) -> Option<PoolFacts> {
        let given = self.status.allocations.iter();
        let given = given.filter_map(|text| Allocation::parse(text));
        Some(PoolFacts {
            uid: self.uid()?,
            namespace: index.intern(self.metadata.namespace.as_deref()?),
            given: given.filter_map(|it| Uid::parse(it.sandbox.uid)).collect(),
        })
    }

    pub(super) fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref().and_then(Uid::parse)
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

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for Sandbox {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        SANDBOX_KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        CORE_GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        STORED_VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "sandboxes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for Pool {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "SandboxWarmPool".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        EXTENSIONS_GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        STORED_VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "sandboxwarmpools".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
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
