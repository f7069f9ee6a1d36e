//! What a sandbox was made from, as far as it decides whether it is out of date. Members of one pool
//! made from one state of its template share it, so whatever is found out about one of them holds for
//! all: a pool of thousands is judged by looking at a handful of these.

use agent_sandbox_crds::labels;

use super::SandboxRow;
use crate::ident::Text;

/// The make of a sandbox. All texts are interned.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Make {
    /// The label with the hash of the template's name.
    pub ref_hash: Option<Text>,
    /// The label with the hash of the template's blueprint.
    pub blueprint_hash: Option<Text>,
    /// `spec.podTemplate.spec` as JSON text.
    pub pod_spec: Text,
    /// `spec.volumeClaimTemplates` as JSON text.
    pub volume_claim_templates: Option<Text>,
    /// `spec.service`.
    pub service: Option<bool>,
}

impl Make {
    /// The make of a sandbox.
    pub fn of(row: &SandboxRow) -> Self {
        Self {
            ref_hash: row.labels.get(labels::SANDBOX_TEMPLATE_REF_HASH).cloned(),
            blueprint_hash: row.labels.get(labels::SANDBOX_TEMPLATE_HASH).cloned(),
            pod_spec: row.pod.spec.clone(),
            volume_claim_templates: row.volume_claim_templates.clone(),
            service: row.service,
        }
    }
}
