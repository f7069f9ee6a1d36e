//! SandboxTemplate -> its label, its NetworkPolicy and its status. Sandboxes ask [`policy_of`] before they
//! start a pod, so no pod of a managed template runs without its policy, and none of a template whose
//! name has the hash of another's, because policies select by that hash.

pub mod act;
pub mod desired;
pub mod plan;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::names;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use self::act::Created;
use self::plan::{Asked, Observed, PolicyStep};
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Text};
use crate::names as own;
use crate::objects::{PodRow, PolicyRow, SandboxRow, TemplateRow, TemplateStatus};
use crate::queue::Next;
use crate::sandbox::policy::Policy;
use crate::store::{State, Work};

/// Reconciles templates.
#[derive(Debug)]
pub struct Templates {
    cx: Arc<Context>,
    /// The trouble that was last told in an event, by template. The status says the same, and outlives a
    /// restart, but not every definition that may be installed has one.
    told: Mutex<BTreeMap<Key, Text>>,
    /// Since when the policies of templates that are gone have been of no use.
    idle: Mutex<BTreeMap<Key, Timestamp>>,
}

/// What was learned from the API server during a pass.
#[derive(Debug, Default)]
struct Learned {
    asked: bool,
    /// Who has the policy's name.
    policy: Option<Arc<PolicyRow>>,
    /// The pods with the template's hash that are not watched.
    unwatched: Option<Vec<Arc<PodRow>>>,
}

/// Whether there is a reason to plan again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Done {
    Settled,
    Revealed,
}

/// Rounds of a pass; each but the last learned something.
const ROUNDS: usize = 5;
/// How soon to look again for pods that kept a policy and are not watched: nobody tells when they go.
const RECHECK: Duration = Duration::from_secs(30);

/// Whether pods of the template may start.
pub fn policy_of(state: &State, template: &TemplateRow) -> Policy {
    let key = &template.head.key;
    if let Some(rival) = state.rival(template) {
        return Policy::Refused {
            template: key.name.clone(),
            rival: rival.template,
        };
    }
    if !plan::is_managed(template) {
        return Policy::NotNeeded;
    }
    let name = names::network_policy(&key.name);
    let in_place = state
        .policy(&key.sibling(name.as_str()))
        .is_some_and(|policy| plan::protects(&policy, template));
    if in_place {
        Policy::InPlace { name }
    } else {
        Policy::Missing {
            name,
            template: key.name.clone(),
        }
    }
}

/// Whether pods of a sandbox may start whose template is gone: not while the policy is being made again,
/// and not without one where the sandbox was to have one. What rules it would have to have, only a template
/// could tell. A policy that is kept for earlier pods covers no new one until its end.
pub fn policy_of_gone(state: &State, row: &SandboxRow, template: &Key) -> Policy {
    let name = names::network_policy(&template.name);
    let key = template.sibling(name.as_str());
    let fallen = state.fallen_policy(&key);
    if fallen.is_some_and(|policy| policy.kept_for.is_none()) {
        return Policy::Missing {
            name,
            template: template.name.clone(),
        };
    }
    if !row.requires_policy() {
        return Policy::NotNeeded;
    }
    let policy = state.policy(&key).filter(|policy| {
        plan::is_named_after(policy, &template.name)
            && policy.kept_for.is_none()
            && !policy.head.is_deleting()
    });
    match policy {
        Some(policy) if !policy.stands_in => Policy::InPlace { name },
        policy => Policy::Lost {
            name,
            template: template.name.clone(),
            stands_in: policy.is_some(),
        },
    }
}

impl Templates {
    /// A reconciler.
    pub fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            told: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Brings one template's policy to its desired state, and says how that went.
    pub async fn reconcile(&self, key: &Key) -> Next {
        let cx = &*self.cx;
        let by = Work::Template(key.clone());
        let mut learned = Learned::default();
        let mut rounds = ROUNDS;
        let (plan, done) = loop {
            let observed = self.observe(key, &learned);
            if observed.template.is_none() {
                self.told.lock().remove(key);
            }
            let plan = plan::plan(&observed, &cx.config.policy, cx.clock.now());
            rounds -= 1;
            // The policy first: pods wait for it.
            let step = self.policy_step(&by, &observed, &plan.policy, &mut learned);
            match step.await {
                Ok(Done::Settled) => break (plan, Ok(())),
                Ok(Done::Revealed) if rounds == 0 => {
                    let name = &observed.policy_name;
                    let message = format!("NetworkPolicy {name:?} comes and goes");
                    let fault = Fault::Transient {
                        message,
                        retry_after: None,
                    };
                    break (plan, Err(fault));
                }
                Ok(Done::Revealed) => {}
                Err(fault) => break (plan, Err(fault)),
            }
        };
        let next = match plan.policy {
            PolicyStep::DeleteLater(rest) => Next::After(rest),
            _ if learned.unwatched.as_ref().is_some_and(|it| !it.is_empty()) => {
                Next::After(RECHECK)
            }
            _ => Next::Done,
        };
        let mut faults = Vec::new();
        faults.extend(done.err());
        let after = self.observe(key, &learned);
        if let Some(new) = status::status(&after, faults.first(), cx.clock.now()) {
            faults.extend(self.publish(&by, &after, &new).await.err());
        }
        if let Some(patch) = plan.label {
            faults.extend(act::label(cx, &by, key, &patch).await.err());
        }
        match faults.first() {
            None => next,
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

    /// Takes a step; what it reveals is learned.
    async fn policy_step(
        &self,
        by: &Work,
        observed: &Observed,
        step: &PolicyStep,
        learned: &mut Learned,
    ) -> Result<Done, Fault> {
        let cx = &*self.cx;
        let key = observed.key.sibling(observed.policy_name.as_str());
        match step {
            PolicyStep::None | PolicyStep::DeleteLater(_) => {}
            PolicyStep::LookUp => {
                learned.policy = act::look_up(cx, by, &key).await?;
                learned.asked = true;
                return Ok(Done::Revealed);
            }
            PolicyStep::Create(policy) => {
                if let Created::Taken(policy) = act::create_policy(cx, by, &key, policy).await? {
                    learned.policy = policy;
                    learned.asked = true;
                    return Ok(Done::Revealed);
                }
            }
            PolicyStep::Patch(name, patch) => act::patch_policy(cx, by, name, patch).await?,
            PolicyStep::Mark(name, patch) => {
                act::patch_policy(cx, by, name, patch).await?;
                return Ok(Done::Revealed);
            }
            PolicyStep::Search => {
                learned.unwatched = Some(act::unwatched_pods(cx, &observed.key).await?);
                return Ok(Done::Revealed);
            }
            PolicyStep::Delete(name, uid, revision) => {
                act::delete_policy(cx, by, name, *uid, *revision).await?;
            }
            PolicyStep::Clash => {
                return Err(Fault::Refused(status::conflict(&observed.policy_name)));
            }
        }
        Ok(Done::Settled)
    }

    fn observe(&self, key: &Key, learned: &Learned) -> Observed {
        let policy_name = names::network_policy(&key.name);
        let policy_key = key.sibling(policy_name.as_str());
        let mut observed = self.cx.store.read(|state| {
            let template = state.template(key);
            let unwatched = learned.unwatched.as_deref().unwrap_or_default();
            let under = || state.pods_under(key).chain(unwatched);
            let promised = under().any(|pod| {
                pod.annotations.has(own::REQUIRED_POLICY, &policy_name) && !pod.phase.is_terminal()
            });
            let pods = under()
                .map(|pod| pod.head.created)
                .fold(None, |range, at| match range {
                    None => Some((at, at)),
                    Some((oldest, newest)) => Some((at.min(oldest), at.max(newest))),
                });
            Observed {
                key: key.clone(),
                rival: template.as_ref().and_then(|row| state.rival(row)),
                template,
                policy: state.policy(&policy_key).or_else(|| learned.policy.clone()),
                asked: Asked {
                    name: learned.asked,
                    pods: learned.unwatched.is_some(),
                },
                fallen: state.fallen_policy(&policy_key),
                policy_name,
                used: state.template_is_used(key) || !unwatched.is_empty(),
                idle: SignedDuration::ZERO,
                pods,
                promised,
            }
        });
        let mut idle = self.idle.lock();
        let needed = observed.used || observed.promised;
        if needed || observed.template.is_some() || observed.policy.is_none() {
            idle.remove(key);
        } else {
            let now = self.cx.clock.now();
            observed.idle = now.duration_since(*idle.entry(key.clone()).or_insert(now));
        }
        observed
    }

    /// Writes the status where it differs, and tells trouble in an event when it is news.
    async fn publish(
        &self,
        by: &Work,
        observed: &Observed,
        new: &TemplateStatus,
    ) -> Result<(), Fault> {
        let Some(template) = observed.template.as_deref() else {
            return Ok(());
        };
        self.announce(template, new);
        match status::patch(template, new) {
            Some(patch) => act::publish(&self.cx, by, &template.head.key, &patch).await,
            None => Ok(()),
        }
    }

    fn announce(&self, template: &TemplateRow, new: &TemplateStatus) {
        let key = &template.head.key;
        let Some(condition) = new.conditions.get(condition::NETWORK_POLICY_READY) else {
            return;
        };
        let event = match &*condition.reason {
            reason::CONFLICT => "NetworkPolicyConflict",
            reason::HASH_COLLISION => "TemplateHashCollision",
            reason::FAILED => "NetworkPolicyFailed",
            _ => {
                self.told.lock().remove(key);
                return;
            }
        };
        let already = template
            .status
            .conditions
            .reason(condition::NETWORK_POLICY_READY)
            == Some(&*condition.reason);
        let before = self
            .told
            .lock()
            .insert(key.clone(), condition.reason.clone());
        if already || before.as_ref() == Some(&condition.reason) {
            return;
        }
        self.cx.events.record(Event {
            regarding: Regarding::template(&template.head),
            importance: Importance::Warning,
            reason: event,
            action: "Reconciling",
            note: condition.message.to_string(),
        });
    }
}

#[cfg(test)]
mod tests;
