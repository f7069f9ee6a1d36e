//! `SandboxTemplate` as kept. There are few templates, so the whole spec is kept.
//! The status is the operator's own.

use std::sync::Arc;

use agent_sandbox_crds::{SandboxTemplateSpec, hash, labels};
use serde::Deserialize;

use super::condition::ConditionWire;
use super::{Conditions, DecodeError, Head, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;

/// `status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TemplateStatus {
    /// The generation this status was computed for.
    pub observed_generation: i64,
    /// Conditions.
    pub conditions: Conditions,
}

/// A template, with everything that is derived from its spec alone.
#[derive(Clone, Debug)]
pub struct TemplateRow {
    /// Identity.
    pub head: Head,
    /// The spec.
    pub spec: Arc<SandboxTemplateSpec>,
    /// The hash of the template's name.
    pub ref_hash: Text,
    /// Whether the object carries that hash as a label.
    pub labelled: bool,
    /// The hash of the blueprint.
    pub blueprint_hash: Text,
    /// The hash of the pod template.
    pub pod_template_hash: Text,
    /// `status`.
    pub status: TemplateStatus,
}

/// The members of a `SandboxTemplate` that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct TemplateWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SandboxTemplateSpec,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    observed_generation: i64,
    conditions: Vec<ConditionWire>,
}

impl Row for TemplateRow {
    type Wire = TemplateWire;
    const KIND: &'static str = "SandboxTemplate";

    fn from_wire(wire: TemplateWire, interner: &Interner) -> Result<Self, DecodeError> {
        let TemplateWire {
            metadata,
            spec,
            status,
        } = wire;
        let head = Head::read(Self::KIND, &metadata, interner)?;
        let ref_hash = interner.text(&hash::name_hash(&metadata.name));
        let labelled = metadata
            .labels
            .as_ref()
            .and_then(|map| map.get(labels::SANDBOX_TEMPLATE_REF_HASH))
            .is_some_and(|value| **value == *ref_hash);
        let blueprint = spec.blueprint();
        Ok(Self {
            labelled,
            blueprint_hash: interner.text(&hash::blueprint_hash(&blueprint)),
            pod_template_hash: interner.text(&hash::pod_template_hash(&blueprint.pod_template)),
            ref_hash,
            spec: Arc::new(spec),
            head,
            status: TemplateStatus {
                observed_generation: status.observed_generation,
                conditions: ConditionWire::read(status.conditions, interner),
            },
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn differs_in_own_status_only(&self, before: &Self) -> bool {
        let Self {
            head,
            spec,
            ref_hash: _,
            labelled,
            blueprint_hash: _,
            pod_template_hash: _,
            status: _,
        } = self;
        head.is_unchanged_since(&before.head)
            && *spec == before.spec
            && *labelled == before.labelled
    }
}
