//! `SandboxWarmPool` as kept.

use std::sync::Arc;

use serde::Deserialize;

use super::allocation::RecordWire;
use super::claim::NameWire;
use super::condition::ConditionWire;
use super::{AllocationRecord, Conditions, DecodeError, Head, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;

/// How a template change reaches members nobody has claimed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdateStrategy {
    /// Members are replaced, a few at a time.
    Recreate,
    /// Members stay until they are claimed or deleted.
    OnReplenish,
}

/// `status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PoolStatus {
    /// Active members.
    pub replicas: i32,
    /// Active members that are Ready.
    pub ready_replicas: i32,
    /// Label selector of the members' pods.
    pub selector: Option<Text>,
    /// The generation this status was computed for.
    pub observed_generation: i64,
    /// Conditions.
    pub conditions: Conditions,
}

/// A warm pool.
#[derive(Clone, Debug)]
pub struct PoolRow {
    /// Identity.
    pub head: Head,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.sandboxTemplateRef.name`.
    pub template: Text,
    /// `spec.updateStrategy.type`.
    pub strategy: UpdateStrategy,
    /// `status`, as far as it is told to people.
    pub status: PoolStatus,
    /// What `status` says of members that are given to claims or about to be deleted.
    pub record: Arc<AllocationRecord>,
}

/// The members of a `SandboxWarmPool` that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct PoolWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecWire {
    replicas: Option<i32>,
    sandbox_template_ref: NameWire,
    update_strategy: StrategyWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StrategyWire {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    replicas: i32,
    ready_replicas: i32,
    selector: Option<String>,
    observed_generation: i64,
    conditions: Vec<ConditionWire>,
    #[serde(flatten)]
    record: RecordWire,
}

impl Row for PoolRow {
    type Wire = PoolWire;
    const KIND: &'static str = "SandboxWarmPool";

    fn from_wire(wire: PoolWire, interner: &Interner) -> Result<Self, DecodeError> {
        let PoolWire {
            metadata,
            spec,
            status,
        } = wire;
        let head = Head::read(Self::KIND, &metadata, interner)?;
        let record = status.record.read(&head.key, interner)?;
        Ok(Self {
            head,
            replicas: spec.replicas.unwrap_or(1).max(0),
            template: interner.text(&spec.sandbox_template_ref.name),
            strategy: if spec.update_strategy.kind.as_deref() == Some("Recreate") {
                UpdateStrategy::Recreate
            } else {
                UpdateStrategy::OnReplenish
            },
            status: PoolStatus {
                replicas: status.replicas,
                ready_replicas: status.ready_replicas,
                selector: interner.optional(status.selector.as_deref()),
                observed_generation: status.observed_generation,
                conditions: ConditionWire::read(status.conditions, interner),
            },
            record: Arc::new(record),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn differs_in_own_status_only(&self, before: &Self) -> bool {
        let Self {
            head,
            replicas,
            template,
            strategy,
            status: _,
            record: _,
        } = self;
        head.is_unchanged_since(&before.head)
            && *replicas == before.replicas
            && *template == before.template
            && *strategy == before.strategy
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replicas_default_to_one_and_unknown_strategies_to_on_replenish() {
        let row = |spec: serde_json::Value| {
            let wire = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "resourceVersion": "1"},
                "spec": spec,
            }))
            .unwrap();
            PoolRow::from_wire(wire, &Interner::default()).unwrap()
        };
        let plain = row(json!({"sandboxTemplateRef": {"name": "t"}}));
        assert_eq!((plain.replicas, &*plain.template), (1, "t"));
        assert_eq!(plain.strategy, UpdateStrategy::OnReplenish);
        let odd = row(json!({"replicas": 0, "updateStrategy": {"type": "Sideways"}}));
        assert_eq!(
            (odd.replicas, odd.strategy),
            (0, UpdateStrategy::OnReplenish)
        );
        let recreate = row(json!({"updateStrategy": {"type": "Recreate"}}));
        assert_eq!(recreate.strategy, UpdateStrategy::Recreate);
    }
}
