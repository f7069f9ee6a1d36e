//! SandboxTemplate -> its label and its NetworkPolicy. Sandboxes ask [`policy_of`] before they start
//! a pod, so no pod of a managed template runs without its policy.

pub mod act;
pub mod desired;
pub mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_sandbox_crds::{hash, names};
use parking_lot::Mutex;

use self::plan::{Observed, PolicyStep};
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Text, Uid};
use crate::objects::TemplateRow;
use crate::queue::Next;
use crate::sandbox::plan::Policy;
use crate::store::{State, Work};

/// Reconciles templates.
#[derive(Debug)]
pub struct Templates {
    cx: Arc<Context>,
    /// Templates whose policy name was found taken, so that it is said once.
    clashes: Mutex<BTreeSet<Uid>>,
}

/// Whether pods of the template may start.
pub fn policy_of(state: &State, template: &TemplateRow) -> Policy {
    if !plan::is_managed(template) {
        return Policy::InPlace;
    }
    let name = names::network_policy(&template.head.key.name);
    let in_place = state
        .policy(&template.head.key.sibling(name.as_str()))
        .is_some_and(|policy| plan::is_ours(&policy, template) && !policy.head.is_deleting());
    if in_place {
        Policy::InPlace
    } else {
        Policy::Missing {
            name,
            template: template.head.key.name.clone(),
        }
    }
}

impl Templates {
    /// A reconciler.
    pub fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            clashes: Mutex::default(),
        }
    }

    /// Brings one template's policy to its desired state.
    pub async fn reconcile(&self, key: &Key) -> Next {
        let cx = &*self.cx;
        let observed = self.observe(key);
        let by = Work::Template(key.clone());
        let plan = plan::plan(&observed, &cx.config.policy);
        let mut faults = Vec::new();
        // The policy first: pods wait for it.
        let done = match plan.policy {
            PolicyStep::None => Ok(()),
            PolicyStep::Create(policy) => {
                act::create_policy(cx, &by, &key.namespace, &policy).await
            }
            PolicyStep::Patch(name, patch) => act::patch_policy(cx, &by, &name, &patch).await,
            PolicyStep::Delete(name, uid, revision) => {
                act::delete_policy(cx, &by, &name, uid, revision).await
            }
            PolicyStep::Clash(name) => {
                self.report_clash(&observed, &name);
                Err(Fault::Refused(format!(
                    "NetworkPolicy {:?} exists and is not this template's",
                    &*name.name
                )))
            }
        };
        if done.is_ok()
            && let Some(template) = &observed.template
        {
            self.clashes.lock().remove(&template.head.uid);
        }
        faults.extend(done.err());
        if let Some(patch) = plan.label {
            faults.extend(act::label(cx, &by, key, &patch).await.err());
        }
        match faults.first() {
            None => Next::Done,
            Some(fault) => {
                tracing::warn!(template = %key, %fault, "template not reconciled");
                if faults.iter().any(Fault::is_retried) {
                    Next::Retry
                } else {
                    Next::Done
                }
            }
        }
    }

    fn observe(&self, key: &Key) -> Observed {
        let policy_key = key.sibling(names::network_policy(&key.name));
        let ref_hash: Text = hash::name_hash(&key.name).into();
        self.cx.store.read(|state| Observed {
            key: key.clone(),
            template: state.template(key),
            policy: state.policy(&policy_key),
            used: state.template_is_used(&key.namespace, &ref_hash),
        })
    }

    fn report_clash(&self, observed: &Observed, policy: &Key) {
        let Some(template) = &observed.template else {
            return;
        };
        if !self.clashes.lock().insert(template.head.uid) {
            return;
        }
        self.cx.events.record(Event {
            regarding: Regarding::template(&template.head),
            importance: Importance::Warning,
            reason: "NetworkPolicyConflict",
            action: "Reconciling",
            note: format!(
                "NetworkPolicy {:?} exists and is not managed for this template; no pod of the template starts until it is renamed or removed",
                &*policy.name
            ),
        });
    }
}

#[cfg(test)]
mod tests;
