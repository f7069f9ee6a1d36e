//! `Pod` as kept: labels, the annotations the operator itself maintains, and a few status fields.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::{DecodeError, Head, Labels, Metadata, Row, Truth};
use crate::ident::Text;
use crate::intern::Interner;
use agent_sandbox_crds::annotations;

/// `status.phase`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PodPhase {
    /// Accepted, not running yet.
    Pending,
    /// At least one container runs.
    Running,
    /// Every container ended well.
    Succeeded,
    /// A container ended badly and will not be restarted.
    Failed,
    /// Anything else the server says.
    Other(Text),
}

impl PodPhase {
    /// The form on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Other(text) => text,
        }
    }

    /// Whether the pod will never run again.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The pod's `PodScheduled` condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheduled {
    /// Status.
    pub status: Truth,
    /// Reason, possibly empty.
    pub reason: Text,
    /// Message.
    pub message: Text,
    /// When the status last changed.
    pub since: Timestamp,
}

/// A pod.
#[derive(Clone, Debug)]
pub struct PodRow {
    /// Identity.
    pub head: Head,
    /// Labels.
    pub labels: Arc<Labels>,
    /// The annotations that were propagated or are bookkeeping; foreign ones are not kept.
    pub annotations: Arc<Labels>,
    /// Phase.
    pub phase: PodPhase,
    /// Whether `Ready` is True.
    pub ready: bool,
    /// `PodScheduled`, once reported.
    pub scheduled: Option<Scheduled>,
    /// Addresses, in pod order.
    pub ips: Box<[Text]>,
    /// The node, once scheduled.
    pub node: Option<Text>,
}

/// The members of a Pod that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct PodWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecWire {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    phase: String,
    conditions: Vec<PodConditionWire>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIpWire>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIpWire {
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodConditionWire {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<Timestamp>,
}

impl Row for PodRow {
    type Wire = PodWire;
    const KIND: &'static str = "Pod";

    fn from_wire(wire: PodWire, interner: &Interner) -> Result<Self, DecodeError> {
        let PodWire {
            metadata,
            spec,
            status,
        } = wire;
        let find = |kind: &str| status.conditions.iter().find(|entry| entry.kind == kind);
        let propagated = metadata
            .annotations
            .as_ref()
            .and_then(|map| map.get(annotations::PROPAGATED_ANNOTATIONS))
            .cloned()
            .unwrap_or_default();
        let mut ips: Vec<Text> = status
            .pod_ips
            .iter()
            .filter(|entry| !entry.ip.is_empty())
            .map(|entry| interner.text(&entry.ip))
            .collect();
        if ips.is_empty() {
            ips.extend(interner.optional(status.pod_ip.as_deref()));
        }
        Ok(Self {
            head: Head::read(Self::KIND, &metadata, interner)?,
            labels: Labels::read(metadata.labels.as_ref(), interner),
            annotations: Labels::read_where(metadata.annotations.as_ref(), interner, |key| {
                annotations::is_reserved(key)
                    || key == annotations::SAFE_TO_EVICT
                    || propagated.split(',').any(|listed| listed == key)
            }),
            phase: match status.phase.as_str() {
                "Pending" | "" => PodPhase::Pending,
                "Running" => PodPhase::Running,
                "Succeeded" => PodPhase::Succeeded,
                "Failed" => PodPhase::Failed,
                other => PodPhase::Other(interner.text(other)),
            },
            ready: find("Ready").is_some_and(|entry| entry.status == "True"),
            scheduled: find("PodScheduled").map(|entry| Scheduled {
                status: Truth::parse(&entry.status),
                reason: interner.text(&entry.reason),
                message: interner.text(&entry.message),
                since: entry.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH),
            }),
            ips: ips.into(),
            node: interner.optional(spec.node_name.as_deref()),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn foreign_annotations_are_not_kept_and_addresses_fall_back_to_the_single_one() {
        let wire = serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "n", "resourceVersion": "1",
                "annotations": {
                    "cni.example/ip": "10.0.0.1",
                    "note": "mine",
                    "agents.x-k8s.io/propagated-annotations": "note",
                },
            },
            "spec": {"nodeName": "node-1", "containers": []},
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            },
        }))
        .unwrap();
        let row = PodRow::from_wire(wire, &Interner::default()).unwrap();
        assert!(!row.annotations.contains("cni.example/ip"));
        assert!(row.annotations.has("note", "mine"));
        assert_eq!(&*row.ips, &[Text::from("10.0.0.1")]);
        assert!(row.ready);
        assert_eq!(row.phase, PodPhase::Running);
        assert_eq!(row.node.as_deref(), Some("node-1"));
    }
}
