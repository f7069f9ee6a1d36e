//! What must hold at every moment, checked at every change by whoever makes it; and, in [`rest`], what must
//! hold once everything has come to rest.
//!
//! Operators act on what they know, which is always a little old. Where a rule depends on something a
//! user may have changed a moment ago, it counts as it was during the last [`VIEW`].

mod record;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::hash;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use self::record::{hands_over_what_suits, is_unfit};
pub(crate) use self::rest::unsettled;
use crate::faults::LONGEST_STALL;
use crate::kube_model::{Entry, Request, State, is_deleting};
use crate::objects::{
    bound, claim_of, condition, controller, is_managed, is_past, is_stopped, name, policy_of,
    policy_template, requires_policy, sandbox, size, template_of, uid,
};
use crate::trace::Actor;
use crate::world::{Violation, id};

/// How old the view of an operator may be, and how late what it decided may take effect: a watch that
/// is silent, then a call that is on its way.
const VIEW: Duration = LONGEST_STALL.saturating_mul(4);

/// How often a kind may be watched anew while everything rests: by two replicas, which the server lets go
/// every few minutes.
const MOST_WATCHES: usize = 8;
/// How often a claim may look for its missing pool or template meanwhile.
const MOST_LOOKS: usize = 12;

/// A change, and who made it.
pub(crate) struct Commit<'a> {
    pub(crate) actor: Actor,
    pub(crate) request: Option<&'a Request>,
    pub(crate) entry: &'a Entry,
    /// After the change.
    pub(crate) state: &'a State,
}

/// What the rules need to remember.
#[derive(Default)]
pub(crate) struct Checker {
    /// The claims that a sandbox ever belonged to, by the sandbox's UID.
    claims_of: BTreeMap<String, BTreeSet<String>>,
    /// The claims that a sandbox of this name ever belonged to.
    claims_of_name: BTreeMap<String, BTreeSet<String>>,
    /// Which members were given to a claim, by UID, and by which run of an operator.
    bindings: BTreeMap<String, Vec<(String, Actor)>>,
    /// Since when a sandbox is not fit to be handed out.
    unfit: BTreeMap<String, Instant>,
    /// When a claim or sandbox was last seen to be expired, or a sandbox to be suspended.
    stopped: BTreeMap<String, Instant>,
    /// The sizes a pool had, and until when.
    sizes: BTreeMap<String, Vec<(i64, Instant)>>,
    /// How many operators act at a time.
    pub(crate) active: usize,
    /// When a member came to exist, or may have, that no operator heard of.
    unsure: Vec<Instant>,
    /// When the pods of a template were last covered, or needed no cover.
    covered: BTreeMap<String, Instant>,
    /// Nothing is left to be done: whatever an operator writes now is too much.
    pub(crate) at_rest: bool,
    /// How often something was asked for at rest, by verb and kind.
    asked_at_rest: BTreeMap<(&'static str, String), usize>,
}

type Verdict = Result<(), Violation>;

fn broken(invariant: &'static str, detail: String) -> Verdict {
    Err(Violation { invariant, detail })
}

impl Checker {
    /// A member may exist, or come to exist, that no operator knows of: its creation took effect when its
    /// maker had given up or was dead, or asking for it was in vain.
    pub(crate) fn count_unsure(&mut self) {
        self.unsure.push(Instant::now());
    }

    /// A call of an operator, whatever becomes of it. At rest nothing is asked either, but for watches that the
    /// server has ended, and what claims wait for, which they look for once a minute.
    pub(crate) fn asks(&mut self, request: &Request, state: &State) -> Verdict {
        if !self.at_rest || request.resource == "leases" {
            return Ok(());
        }
        let what = format!("{} {} {}", request.verb, request.resource, request.name);
        let kind = (request.verb, request.resource.clone());
        let asked = self.asked_at_rest.entry(kind).or_default();
        *asked += 1;
        let most = match (request.verb, request.resource.as_str()) {
            ("watch", _) => MOST_WATCHES,
            ("get", "sandboxwarmpools" | "sandboxtemplates") => {
                let waits = |claim: &Arc<Value>| {
                    let reason = condition(claim, "Ready").and_then(|it| it["reason"].as_str());
                    matches!(reason, Some("WarmPoolNotFound" | "TemplateNotFound"))
                };
                let waiting = state.list("sandboxclaims").filter(|it| waits(it));
                MOST_LOOKS * self.active * waiting.count()
            }
            _ => 0,
        };
        if *asked > most {
            return broken("nothing is asked at rest", format!("{what}, {asked} times"));
        }
        Ok(())
    }

    pub(crate) fn check(&mut self, commit: &Commit<'_>) -> Verdict {
        let by_operator = matches!(commit.actor, Actor::Operator(..));
        let resource = commit.entry.id.resource.as_str();
        if self.at_rest && by_operator && resource != "leases" {
            let what = format!("{resource} {}", commit.entry.id.name);
            return broken("nothing is written at rest", what);
        }
        self.remember(commit);
        match resource {
            "pods" => one_pod_per_sandbox(commit)?,
            "sandboxes" => one_claim_per_sandbox(commit)?,
            "sandboxclaims" => self.claim_is_told_the_truth(commit)?,
            "sandboxwarmpools" => self.record_is_kept(commit)?,
            _ => {}
        }
        if !by_operator {
            return Ok(());
        }
        spares_what_is_not_its_own(commit)?;
        match resource {
            "pods" => {
                self.pods_are_deleted_for_a_reason(commit)?;
                self.policy_precedes_pods(commit)
            }
            "sandboxes" => {
                hands_over_what_suits(commit)?;
                self.nothing_claimed_is_deleted(commit)?;
                self.pool_keeps_its_size(commit)
            }
            "sandboxclaims" => claims_are_deleted_when_expired(commit),
            // Of two operators that know nothing of each other one may start a pod under a policy that the other,
            // which has not heard of the pod, deletes. That is what the lease is for.
            "networkpolicies" if self.active == 1 => policy_stays_as_long_as_pods(commit),
            _ => Ok(()),
        }
    }

    fn remember(&mut self, commit: &Commit<'_>) {
        let Entry { id, old, new, .. } = commit.entry;
        let now = Instant::now();
        if let Some(old) = old
            && matches!(id.resource.as_str(), "sandboxes" | "sandboxclaims")
            && is_stopped(old, commit.state.now)
        {
            self.stopped.insert(uid(old).to_owned(), now);
        }
        match id.resource.as_str() {
            "sandboxes" => {
                if let Some(new) = new
                    && let Some(claim) = controller(new, "SandboxClaim")
                {
                    let claims = self.claims_of.entry(uid(new).to_owned()).or_default();
                    claims.insert(claim.to_owned());
                    let claims = self.claims_of_name.entry(id.name.clone()).or_default();
                    claims.insert(claim.to_owned());
                }
                if let Some(new) = new {
                    if is_unfit(new, commit.state.now) {
                        self.unfit.entry(uid(new).to_owned()).or_insert(now);
                    } else {
                        self.unfit.remove(uid(new));
                    }
                }
            }
            "sandboxwarmpools" => {
                if let Some(old) = old {
                    let sizes = self.sizes.entry(uid(old).to_owned()).or_default();
                    sizes.push((size(old), now));
                }
            }
            "sandboxtemplates" => {
                // Before this change, the template called for no policy, or had it.
                let before = old.as_deref().is_some_and(is_managed);
                if old.is_some() && (!before || policy_of(commit.state, &id.name).is_some()) {
                    self.covered.insert(id.name.clone(), now);
                }
            }
            "networkpolicies" => {
                if let Some(template) = old.as_deref().and_then(policy_template) {
                    self.covered.insert(template.to_owned(), now);
                }
            }
            _ => {}
        }
    }

    fn was_stopped_recently(&self, object: &Value, now: Timestamp) -> bool {
        is_stopped(object, now)
            || self
                .stopped
                .get(uid(object))
                .is_some_and(|at| at.elapsed() <= VIEW)
    }

    /// A claim's status names a sandbox that it controls, and goes on naming it.
    fn claim_is_told_the_truth(&self, commit: &Commit<'_>) -> Verdict {
        const RULE: &str = "a claim's status names its one sandbox";
        let Entry { id, old, new, .. } = commit.entry;
        let (Some(new), old) = (new, old.as_deref()) else {
            return Ok(());
        };
        let (before, after) = (old.and_then(bound), bound(new));
        if before == after {
            return Ok(());
        }
        if let Some(name) = after {
            let claims = self.claims_of_name.get(name);
            if !claims.is_some_and(|claims| claims.contains(uid(new))) {
                let detail = format!("{} is told of {name}, which it never controlled", id.name);
                return broken(RULE, detail);
            }
        }
        let lives = |name: &str| {
            let sandbox = commit.state.get(&sandbox(name));
            sandbox
                .is_some_and(|it| !is_deleting(it) && claim_of(commit.state, it) == Some(uid(new)))
        };
        if let Some(name) = before.filter(|name| lives(name)) {
            let detail = format!(
                "{} had {name}, which lives, and is told of {after:?}",
                id.name
            );
            return broken(RULE, detail);
        }
        Ok(())
    }

    /// Pods end because their sandbox is suspended, expired or gone.
    fn pods_are_deleted_for_a_reason(&self, commit: &Commit<'_>) -> Verdict {
        let Some((pod, request)) = deleted(commit) else {
            return Ok(());
        };
        let owner = controller(pod, "Sandbox");
        let sandbox = commit
            .state
            .list("sandboxes")
            .find(|it| Some(uid(it)) == owner);
        match sandbox {
            Some(it) if !self.was_stopped_recently(it, commit.state.now) => broken(
                "pods are deleted for a reason",
                format!("pod {} of a running sandbox", request.name),
            ),
            _ => Ok(()),
        }
    }

    /// What a claim has goes only with the claim's time, as a surplus, or at its own time.
    fn nothing_claimed_is_deleted(&self, commit: &Commit<'_>) -> Verdict {
        let Some((gone, request)) = deleted(commit) else {
            return Ok(());
        };
        let now = commit.state.now;
        let Some(owner) = claim_of(commit.state, gone) else {
            return Ok(());
        };
        let claim = commit
            .state
            .list("sandboxclaims")
            .find(|it| uid(it) == owner);
        let Some(claim) = claim.filter(|claim| !is_deleting(claim)) else {
            return Ok(());
        };
        let own_time = is_past(gone["spec"].get("shutdownTime"), now);
        let surplus = bound(claim).is_some_and(|name| name != request.name);
        if own_time || surplus || self.was_stopped_recently(claim, now) {
            return Ok(());
        }
        broken(
            "nothing claimed is deleted",
            format!("sandbox {} of claim {}", request.name, name(claim)),
        )
    }

    /// A pool has no more members than it should, a bounded surge aside.
    fn pool_keeps_its_size(&self, commit: &Commit<'_>) -> Verdict {
        let Entry { old, new, .. } = commit.entry;
        let (None, Some(new)) = (old, new) else {
            return Ok(());
        };
        let Some(owner) = controller(new, "SandboxWarmPool") else {
            return Ok(());
        };
        let Some(pool) = commit
            .state
            .list("sandboxwarmpools")
            .find(|it| uid(it) == owner)
        else {
            return Ok(());
        };
        let recent = self.sizes.get(owner).into_iter().flatten();
        let recent = recent.filter(|(_, until)| until.elapsed() <= VIEW);
        let size = recent
            .map(|(size, _)| *size)
            .chain([size(pool)])
            .max()
            .unwrap_or(0);
        let size = usize::try_from(size).unwrap_or(0);
        let surge = if pool["spec"]["updateStrategy"]["type"].is_string() {
            size.div_ceil(4).max(1)
        } else {
            0
        };
        let members = commit
            .state
            .list("sandboxes")
            .filter(|it| controller(it, "SandboxWarmPool") == Some(owner))
            .filter(|it| claim_of(commit.state, it).is_none())
            .count();
        let recent = self.unsure.iter().filter(|at| at.elapsed() <= VIEW);
        let unknown = recent.count();
        // Operators that know nothing of each other each make as many as are missing.
        if members > (size + surge) * self.active + unknown {
            let detail = format!(
                "pool {} of {size} (and {surge} more, and {unknown} unknown) has {members}",
                name(pool),
            );
            return broken("a pool keeps its size", detail);
        }
        Ok(())
    }

    /// No pod of a managed template starts before the template's policy, nor after both are gone.
    fn policy_precedes_pods(&self, commit: &Commit<'_>) -> Verdict {
        let Entry { id, old, new, .. } = commit.entry;
        let (None, Some(pod)) = (old, new) else {
            return Ok(());
        };
        let sandbox = commit
            .state
            .list("sandboxes")
            .find(|it| Some(uid(it)) == controller(pod, "Sandbox"));
        let Some((sandbox, template)) = sandbox.and_then(|it| Some((it, template_of(it)?))) else {
            return Ok(());
        };
        let managed = match commit.state.get(&self::id("sandboxtemplates", template)) {
            Some(template) => is_managed(template),
            None => requires_policy(sandbox),
        };
        let recently = || {
            let at = self.covered.get(template);
            at.is_some_and(|at| at.elapsed() <= VIEW)
        };
        if !managed || policy_of(commit.state, template).is_some() || recently() {
            return Ok(());
        }
        broken(
            "policies precede pods",
            format!("pod {} of template {template} has none", id.name),
        )
    }
}

/// Claims end at their time and not before.
fn claims_are_deleted_when_expired(commit: &Commit<'_>) -> Verdict {
    match deleted(commit) {
        Some((claim, request)) if !is_stopped(claim, commit.state.now) => broken(
            "claims are deleted when they have expired",
            format!("claim {}", request.name),
        ),
        _ => Ok(()),
    }
}

/// A policy stays until the last pod of its template is gone, unless its template wants none.
fn policy_stays_as_long_as_pods(commit: &Commit<'_>) -> Verdict {
    let Some((policy, request)) = deleted(commit) else {
        return Ok(());
    };
    let Some(template) = policy_template(policy) else {
        return Ok(());
    };
    let found = commit.state.get(&id("sandboxtemplates", template));
    if found.is_some_and(|it| !is_managed(it)) {
        return Ok(());
    }
    let ref_hash = hash::name_hash(template);
    let covers = |pod: &Value| {
        let label =
            &pod["metadata"]["labels"][agent_sandbox_crds::labels::SANDBOX_TEMPLATE_REF_HASH];
        *label == *ref_hash && !is_deleting(pod) && is_promised(policy, pod)
    };
    let left = commit.state.list("pods").find(|pod| covers(pod));
    match left {
        Some(pod) => broken(
            "policies outlive pods",
            format!("{} goes before pod {}", request.name, name(pod)),
        ),
        None => Ok(()),
    }
}

/// Whether a policy was in force for a pod when it was created. One whose template became Unmanaged notes
/// the moment; pods that start later do without.
fn is_promised(policy: &Value, pod: &Value) -> bool {
    let time = |text: Option<&str>| text.and_then(|it| it.parse::<Timestamp>().ok());
    let until =
        policy["metadata"]["annotations"]["agents.x-k8s.io/policy-kept-for-pods-until"].as_str();
    time(until).is_none_or(|until| {
        time(pod["metadata"]["creationTimestamp"].as_str()).is_none_or(|at| at <= until)
    })
}

/// At most one pod per sandbox, by UID.
fn one_pod_per_sandbox(commit: &Commit<'_>) -> Verdict {
    let Entry { old, new, .. } = commit.entry;
    let Some(new) = new else {
        return Ok(());
    };
    let owner = controller(new, "Sandbox");
    if owner.is_none() || owner == old.as_deref().and_then(|old| controller(old, "Sandbox")) {
        return Ok(());
    }
    let pods: Vec<&str> = commit
        .state
        .list("pods")
        .filter(|pod| controller(pod, "Sandbox") == owner)
        .map(|pod| name(pod))
        .collect();
    if pods.len() > 1 {
        return broken("one pod per sandbox", format!("{owner:?} has {pods:?}"));
    }
    Ok(())
}

/// A sandbox never goes from one claim to another, nor back to a pool.
fn one_claim_per_sandbox(commit: &Commit<'_>) -> Verdict {
    let Entry { id, old, new, .. } = commit.entry;
    let (Some(old), Some(new)) = (old, new) else {
        return Ok(());
    };
    match (
        controller(old, "SandboxClaim"),
        controller(new, "SandboxClaim"),
    ) {
        (Some(old), new) if new != Some(old) => broken(
            "one claim per sandbox",
            format!("{} goes from {old} to {new:?}", id.name),
        ),
        _ => Ok(()),
    }
}

/// Operators leave alone what belongs to nobody, or to others.
fn spares_what_is_not_its_own(commit: &Commit<'_>) -> Verdict {
    let Entry { id, old, .. } = commit.entry;
    let Some(old) = old else {
        return Ok(());
    };
    let labels = &old["metadata"]["labels"];
    let authorised = !labels[agent_sandbox_crds::labels::ADOPTABLE].is_null()
        || !labels[agent_sandbox_crds::labels::SANDBOX_NAME_HASH].is_null();
    let own = match id.resource.as_str() {
        "pods" | "services" | "persistentvolumeclaims" => {
            controller(old, "Sandbox").is_some() || authorised
        }
        "networkpolicies" => policy_template(old).is_some(),
        "nodes" => false,
        _ => true,
    };
    if own {
        return Ok(());
    }
    broken(
        "operators leave alone what is not theirs",
        format!("{} {}", id.resource, id.name),
    )
}

/// What an operator deletes with this change: as it was, and the call.
fn deleted<'a>(commit: &Commit<'a>) -> Option<(&'a Value, &'a Request)> {
    let request = commit.request.filter(|it| it.verb == "delete")?;
    let old = commit.entry.old.as_deref()?;
    (!is_deleting(old)).then_some((old, request))
}
