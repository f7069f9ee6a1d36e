//! `Node` as kept: only whether it is a good place for a sandbox that waits to be handed out.

use jiff::Timestamp;
use serde::Deserialize;

use super::{DecodeError, Head, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;

/// What a node means for the members of a pool that run on it. Better ones are smaller.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NodeHealth {
    /// It is fine, or nothing is known of it.
    Fine,
    /// It is cordoned or about to be removed. Pods still work, and are the last choice.
    Leaving,
    /// It is not Ready, or drives pods off. They may be gone, or cut off, at any moment.
    Sick,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// Identity; the namespace is empty.
    pub head: Head,
    /// Its health for a pod without tolerations of its own.
    health: NodeHealth,
    /// Since when it is as Ready as it is.
    pub since: Option<Timestamp>,
    /// Taints that drive off every pod that does not tolerate them.
    evicts: Box<[(Text, Text)]>,
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
    value: String,
    effect: String,
}

impl TaintWire {
    fn evicts(&self) -> bool {
        self.effect == NO_EXECUTE
    }

    /// Whether Kubernetes itself puts the taint on a node that has lost its kubelet, its network or
    /// its power. Pods tolerate these for a time, but only in the hope that it passes.
    fn is_of_the_nodes_life(&self) -> bool {
        self.evicts() && self.key.starts_with("node.kubernetes.io/")
    }
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
    #[serde(rename = "lastTransitionTime")]
    since: Option<Timestamp>,
}

/// A pod's spec, as far as it says which taints the pod bears.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodSpecWire {
    tolerations: Vec<TolerationWire>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TolerationWire {
    key: String,
    operator: String,
    value: String,
    effect: String,
    toleration_seconds: Option<i64>,
}

impl TolerationWire {
    /// Whether a pod bears the taint for good. One that bears it for a time is about to go.
    fn bears(&self, key: &str, value: &str) -> bool {
        let effect = self.effect.is_empty() || self.effect == NO_EXECUTE;
        let taint = match self.operator.as_str() {
            "Exists" => self.key.is_empty() || self.key == key,
            "" | "Equal" => self.key == key && self.value == value,
            _ => false,
        };
        effect && taint && self.toleration_seconds.is_none()
    }
}

/// The effect of a taint that drives pods off.
const NO_EXECUTE: &str = "NoExecute";
/// Taints that autoscalers put on a node they are about to remove.
const REMOVAL_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

impl NodeRow {
    /// The node's health for a pod of this spec, given as JSON text.
    ///
    /// A taint that drives pods off is an illness only for those it drives off: a pool may well live on
    /// dedicated nodes that nobody else bears.
    pub fn health_for(&self, pod_spec: &str) -> NodeHealth {
        if self.health == NodeHealth::Sick || self.evicts.is_empty() {
            return self.health;
        }
        let spec: PodSpecWire = serde_json::from_str(pod_spec).unwrap_or_default();
        let borne = self.evicts.iter().all(|(key, value)| {
            let mut tolerations = spec.tolerations.iter();
            tolerations.any(|toleration| toleration.bears(key, value))
        });
        if borne { self.health } else { NodeHealth::Sick }
    }

    /// Whether pods are as well off here as before.
    pub fn is_as_healthy_as(&self, before: &Self) -> bool {
        let Self {
            head: _,
            health,
            since,
            evicts,
        } = self;
        *health == before.health && *since == before.since && *evicts == before.evicts
    }
}

impl Row for NodeRow {
    type Wire = NodeWire;
    const KIND: &'static str = "Node";

    fn from_wire(wire: NodeWire, interner: &Interner) -> Result<Self, DecodeError> {
        let said = wire
            .status
            .conditions
            .iter()
            .find(|condition| condition.kind == "Ready");
        let ready = said.is_none_or(|condition| condition.status == "True");
        let taints = &wire.spec.taints;
        let leaving = wire.spec.unschedulable
            || taints
                .iter()
                .any(|taint| REMOVAL_TAINTS.contains(&taint.key.as_str()));
        let health = if !ready || taints.iter().any(TaintWire::is_of_the_nodes_life) {
            NodeHealth::Sick
        } else if leaving {
            NodeHealth::Leaving
        } else {
            NodeHealth::Fine
        };
        Ok(Self {
            head: Head::read(Self::KIND, &wire.metadata, interner)?,
            health,
            since: said.and_then(|condition| condition.since),
            evicts: taints
                .iter()
                .filter(|taint| taint.evicts())
                .map(|taint| (interner.text(&taint.key), interner.text(&taint.value)))
                .collect(),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(spec: &Value, status: &Value) -> NodeRow {
        let wire = serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": "1"}, "spec": spec, "status": status,
        }))
        .unwrap();
        NodeRow::from_wire(wire, &Interner::default()).unwrap()
    }

    #[test]
    fn cordoned_and_leaving_nodes_are_told_from_sick_ones() {
        use NodeHealth::{Fine, Leaving, Sick};
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
        let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
        for (spec, status, health) in [
            (json!({}), json!({}), Fine),
            (json!({}), ready("True"), Fine),
            (json!({}), ready("False"), Sick),
            (json!({}), ready("Unknown"), Sick),
            (json!({"unschedulable": true}), ready("True"), Leaving),
            (json!({"unschedulable": true}), ready("Unknown"), Sick),
            (taint("dedicated", "NoSchedule"), json!({}), Fine),
            (taint("dedicated", "NoExecute"), json!({}), Sick),
            (
                taint("node.kubernetes.io/unreachable", "NoExecute"),
                json!({}),
                Sick,
            ),
            (
                taint("node.kubernetes.io/unschedulable", "NoSchedule"),
                json!({}),
                Fine,
            ),
            (
                taint("ToBeDeletedByClusterAutoscaler", "NoSchedule"),
                json!({}),
                Leaving,
            ),
            (
                taint("karpenter.sh/disrupted", "NoSchedule"),
                json!({}),
                Leaving,
            ),
        ] {
            assert_eq!(
                node(&spec, &status).health_for("{}"),
                health,
                "{spec} {status}"
            );
        }
    }

    #[test]
    fn a_taint_that_a_pod_bears_for_good_is_no_illness_for_it() {
        let taints =
            json!({"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoExecute"}]});
        let dedicated = node(&taints, &json!({}));
        for (toleration, health) in [
            (json!({"operator": "Exists"}), NodeHealth::Fine),
            (
                json!({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}),
                NodeHealth::Fine,
            ),
            (
                json!({"key": "dedicated", "value": "gpu"}),
                NodeHealth::Fine,
            ),
            (
                json!({"key": "dedicated", "value": "cpu"}),
                NodeHealth::Sick,
            ),
            (
                json!({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
                NodeHealth::Sick,
            ),
            (
                json!({"key": "dedicated", "operator": "Exists", "tolerationSeconds": 300}),
                NodeHealth::Sick,
            ),
        ] {
            let spec = json!({"containers": [], "tolerations": [toleration]}).to_string();
            assert_eq!(dedicated.health_for(&spec), health, "{spec}");
        }
        // What Kubernetes adds to every pod does not make an unreachable node a good one.
        let lost = json!({"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        ]});
        let spec = json!({"tolerations": [{"operator": "Exists"}]}).to_string();
        assert_eq!(node(&lost, &json!({})).health_for(&spec), NodeHealth::Sick);
    }
}
