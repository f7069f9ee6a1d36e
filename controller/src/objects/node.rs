//! `Node` as kept: only whether it is a good place for a sandbox that is about to be handed out.

use serde::Deserialize;

use super::{DecodeError, Head, Metadata, Row};
use crate::intern::Interner;

/// A node.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// Identity; the namespace is empty.
    pub head: Head,
    /// Ready, schedulable and not being drained.
    pub healthy: bool,
}

/// The members of a Node that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SpecWire {
    unschedulable: bool,
    taints: Vec<TaintWire>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TaintWire {
    key: String,
    effect: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StatusWire {
    conditions: Vec<ConditionWire>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ConditionWire {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// Taints that autoscalers put on a node they are about to remove.
const REMOVAL_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

impl Row for NodeRow {
    type Wire = NodeWire;
    const KIND: &'static str = "Node";

    fn from_wire(wire: NodeWire, interner: &Interner) -> Result<Self, DecodeError> {
        let ready = wire
            .status
            .conditions
            .iter()
            .find(|condition| condition.kind == "Ready")
            .is_none_or(|condition| condition.status == "True");
        let leaving = wire.spec.taints.iter().any(|taint| {
            REMOVAL_TAINTS.contains(&taint.key.as_str())
                || (taint.effect == "NoExecute" && taint.key.starts_with("node.kubernetes.io/"))
        });
        Ok(Self {
            head: Head::read(Self::KIND, &wire.metadata, interner)?,
            healthy: ready && !leaving && !wire.spec.unschedulable,
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
    fn cordoned_unready_and_leaving_nodes_are_unhealthy() {
        for (spec, status, healthy) in [
            (json!({}), json!({}), true),
            (
                json!({}),
                json!({"conditions": [{"type": "Ready", "status": "True"}]}),
                true,
            ),
            (
                json!({}),
                json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}),
                false,
            ),
            (json!({"unschedulable": true}), json!({}), false),
            (
                json!({"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}),
                json!({}),
                true,
            ),
            (
                json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}),
                json!({}),
                false,
            ),
            (
                json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}),
                json!({}),
                false,
            ),
        ] {
            let wire = serde_json::from_value(json!({
                "metadata": {"name": "n", "resourceVersion": "1"}, "spec": spec, "status": status,
            }))
            .unwrap();
            let row = NodeRow::from_wire(wire, &Interner::default()).unwrap();
            assert_eq!(row.healthy, healthy, "{spec} {status}");
        }
    }
}
