//! Observing a sandbox: everything a plan depends on, in one look.
//!
//! What a call revealed during the pass stands in for what the watch does not select; what the
//! watch shows always wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_sandbox_crds::{labels, names};

use super::plan::{Holder, Observed, Rejected};
use super::policy::Policy;
use super::{Sandboxes, desired, plan};
use crate::ident::Key;
use crate::objects::{PodRow, SandboxRow, ServiceRow, VolumeClaimRow};
use crate::store::State;

/// What was learned from the API server during a pass.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) pod_name: Option<Holder<PodRow>>,
    pub(super) service: Option<Holder<ServiceRow>>,
    pub(super) volume_claims: BTreeMap<String, Holder<VolumeClaimRow>>,
}

impl Sandboxes {
    /// Reads everything a plan depends on, in one look.
    pub(super) fn observe(&self, key: &Key, learned: &Learned) -> Option<Observed> {
        let mut observed = self.cx.store.read(|state| {
            let sandbox = state.sandbox(key)?;
            let pods: Vec<Arc<PodRow>> = state.pods_of(sandbox.head.uid).cloned().collect();
            let pod_name = match state.pod(&plan::tracked_pod(&sandbox)) {
                Some(pod) => Holder::Held(pod),
                None => Holder::Unseen,
            };
            let service = match state.service(key) {
                Some(service) => Holder::Held(service),
                None => Holder::Unseen,
            };
            let templates = desired::volume_claim_templates(&sandbox).unwrap_or_default();
            let volume_claims = templates
                .iter()
                .map(|template| {
                    let name = names::volume_claim(template.name(), &key.name);
                    let holder = state
                        .volume_claim(&key.sibling(name.as_str()))
                        .map_or(Holder::Unseen, Holder::Held);
                    (name, holder)
                })
                .collect();
            let policy = if self.cx.config.extensions {
                policy(state, &sandbox)
            } else {
                Policy::NotNeeded
            };
            Some(Observed {
                sandbox,
                pods,
                pod_name,
                service,
                volume_claims,
                policy,
                rejected: Rejected::default(),
            })
        })?;
        if let (Holder::Unseen, Some(known)) = (&observed.pod_name, &learned.pod_name) {
            observed.pod_name = known.clone();
        }
        if let (Holder::Unseen, Some(known)) = (&observed.service, &learned.service) {
            observed.service = known.clone();
        }
        for (name, holder) in &mut observed.volume_claims {
            if let (Holder::Unseen, Some(known)) = (&*holder, learned.volume_claims.get(name)) {
                *holder = known.clone();
            }
        }
        if let Some(memory) = self.memory.lock().get(key) {
            observed.rejected = memory.rejected(&observed.sandbox);
        }
        Some(observed)
    }
}

/// Whether the policy that protects the pods of the sandbox's template is in place. Sandboxes nobody
/// made from a template need none.
fn policy(state: &State, row: &SandboxRow) -> Policy {
    let from_template = row
        .head
        .owner
        .as_ref()
        .is_some_and(|owner| owner.kind.is_extension())
        && row.labels.contains(labels::SANDBOX_TEMPLATE_REF_HASH);
    let (true, Some(name)) = (from_template, row.template_name()) else {
        return Policy::NotNeeded;
    };
    let key = row.head.key.sibling(name.clone());
    match state.template(&key) {
        Some(template) => crate::template::policy_of(state, &template),
        None => crate::template::policy_of_gone(state, row, &key),
    }
}
