//! What to do for a claim, as a plain function of what was observed. A pass is a short sequence of
//! steps: each is taken, the world is observed again, and the next is planned, until the plan is to
//! settle. The binding of a claim is the set of sandboxes that it controls or that the record of their
//! pool gives it, by UID; no name that a tenant can write is ever trusted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::condition::{self, reason};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::desired;
use super::rules::{Rejection, metadata};
use crate::error::Fault;
use crate::ident::{Key, Text, Uid};
use crate::objects::{
    Allocation, ClaimRow, Expiry, Head, Named, PolicyRow, PoolRow, SandboxRow, Source, TemplateRow,
};
use crate::store::PoolId;

/// How long a young claim waits for a member whose pod has no address yet, rather than starting a pod
/// of its own.
pub const WARM_GRACE: SignedDuration = SignedDuration::from_secs(2);
/// How often it looks again meanwhile, should no event come.
const WARM_RETRY: Duration = Duration::from_millis(500);
/// How often a claim whose pool or template is missing looks again, should no event come.
const MISSING_RETRY: Duration = Duration::from_secs(60);
/// How soon a claim whose name is held by a vanishing sandbox looks again, should no event come.
const NAME_RETRY: Duration = Duration::from_secs(1);

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The claim.
    pub claim: Arc<ClaimRow>,
    /// The sandboxes it controls, and those that the record of their pool gives it.
    pub bound: Vec<Arc<SandboxRow>>,
    /// A sandbox that a record gives it and that is not known here.
    pub unseen: Option<(Key, Uid)>,
    /// The sandbox that its status names, when it is not known to be the claim's and the API server was
    /// not asked.
    pub unconfirmed: Option<Key>,
    /// Whether the API server was asked, in this pass, for the sandbox that its status names.
    pub asked_for: bool,
    /// A sandbox of the claim's name that it does not control.
    pub namesake: Option<Arc<SandboxRow>>,
    /// A network policy that an older controller made for this claim.
    pub legacy_policy: Option<Arc<PolicyRow>>,
    /// The pool it names.
    pub pool: Found<PoolRow>,
    /// The pools that may serve it, best first.
    pub pools: Vec<PoolRef>,
    /// The template: the bound or chosen sandbox's own, else the one the claim leads to.
    pub template: Found<TemplateRow>,
    /// The member chosen for it.
    pub candidate: Candidate,
    /// Whether the API server confirmed, in this pass, that the claim is as we know it.
    pub confirmed: bool,
    /// What went wrong earlier in this pass.
    pub fault: Option<Fault>,
    /// Bindings lost to others in this pass.
    pub conflicts: usize,
}

/// A pool, by name and identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolRef {
    /// Its name.
    pub key: Key,
    /// Its UID.
    pub uid: Uid,
}

/// Whether something a claim refers to exists.
#[derive(Clone, Debug)]
pub enum Found<R> {
    /// It does.
    Here(Arc<R>),
    /// Not as far as we know; the API server was not asked.
    Unseen(Key),
    /// It does not: the API server said so.
    Missing(Key),
    /// The claim refers to none.
    NotNamed,
}

impl PoolRef {
    /// The pool's identity in the store.
    pub fn id(&self) -> PoolId {
        PoolId::new(&self.key, self.uid)
    }
}

impl<R> Found<R> {
    /// The row, if there is one.
    pub fn row(&self) -> Option<&Arc<R>> {
        match self {
            Self::Here(row) => Some(row),
            _ => None,
        }
    }
}

/// The member chosen for a claim.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// Nobody looked yet.
    Unasked,
    /// This one, reserved.
    Chosen(Arc<SandboxRow>),
    /// There is none.
    None {
        /// But some may be about to become available.
        soon: bool,
    },
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing at all.
    Leave,
    /// Delete the claim, which has said that it expired.
    Delete {
        /// Keep it until everything it owns is gone.
        foreground: bool,
    },
    /// Delete a sandbox the claim controls.
    DeleteSandbox(Key, Uid),
    /// Delete a network policy that an older controller made for the claim.
    DeletePolicy(Key, Uid),
    /// Ask the API server whether the pool exists.
    ConfirmPool(Key),
    /// Ask the API server whether the template exists.
    ConfirmTemplate(Key),
    /// Ask the API server for the claim itself.
    ConfirmClaim,
    /// Choose a member of one of these pools.
    Choose(Vec<PoolRef>),
    /// Ask the API server for a sandbox that a record gives the claim.
    ConfirmSandbox(Key, Uid),
    /// Ask the API server for the sandbox that the claim's status names.
    ConfirmBound(Key),
    /// Have the chosen member given to the claim.
    Allocate {
        /// The pool that it is a member of.
        pool: PoolRef,
        /// Which member, and to whom.
        allocation: Allocation,
    },
    /// Create a sandbox.
    Create(Box<Value>),
    /// Bring the bound sandbox's metadata in line.
    Update(Key, Uid, Box<Value>),
    /// Publish what there is to say, and rest.
    Settle(Verdict),
}

/// What there is to say about a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has this sandbox.
    Bound(Key),
    /// Its time is over.
    Expired {
        /// The policy is to keep the claim, and nothing is left to do.
        done: bool,
        /// A sandbox that was spared, and why.
        spared: Option<String>,
    },
    /// The user asks for something that cannot be had.
    Rejected(Rejection),
    /// Something it refers to does not exist.
    Missing {
        /// The reason.
        reason: &'static str,
        /// The message.
        message: String,
    },
    /// Others were faster, every time.
    Contended,
    /// A sandbox of its name is on its way out; its own comes after.
    NamePending,
    /// A member is about to become available; nothing is published.
    Waiting(Duration),
    /// A machine's fault; retried.
    Failed(Fault),
}

impl Verdict {
    /// How soon to look again, should no event come. `None` rests until one does.
    pub fn recheck(&self) -> Option<Duration> {
        match self {
            Self::Missing { .. } => Some(MISSING_RETRY),
            Self::NamePending => Some(NAME_RETRY),
            Self::Waiting(delay) => Some(*delay),
            Self::Expired { done: false, .. } => Some(Duration::ZERO),
            _ => None,
        }
    }
}

/// What a plan needs to know beside the objects.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Label domains claims may use.
    pub label_domains: &'a [String],
    /// Resolvers for sandboxes under the default policy.
    pub resolvers: &'a [IpAddr],
    /// How many lost bindings end a pass.
    pub most_conflicts: usize,
}

/// Whether the claim's time is over.
pub fn is_expired(claim: &ClaimRow, now: Timestamp) -> bool {
    claim.expires_at().is_some_and(|at| now >= at)
}

/// Whether the status already says so.
pub fn is_marked_expired(claim: &ClaimRow) -> bool {
    claim.conditions.reason(condition::READY) == Some(reason::CLAIM_EXPIRED)
}

/// The sandbox that counts when a claim controls several: the one its status names, else one that is
/// not on its way out, else the oldest.
pub fn primary<'a>(claim: &ClaimRow, bound: &'a [Arc<SandboxRow>]) -> Option<&'a Arc<SandboxRow>> {
    bound.iter().min_by_key(|row| {
        (
            row.head.is_deleting(),
            claim.bound.name.as_ref() != Some(&row.head.key.name),
            row.head.created,
            row.head.key.clone(),
        )
    })
}

/// Decides the next step.
pub fn plan(observed: &Observed, now: Timestamp, rules: Rules<'_>) -> Step {
    let claim = &*observed.claim;
    if claim.head.is_deleting() {
        return Step::Leave;
    }
    if let Some(fault) = &observed.fault {
        return Step::Settle(Verdict::Failed(fault.clone()));
    }
    if let Some(named) = &observed.unconfirmed {
        // Whoever told the claim of it may have been right, and then it is the one that counts, whatever else is
        // to be said of the claim.
        return Step::ConfirmBound(named.clone());
    }
    if is_expired(claim, now) {
        return expired(observed);
    }
    if let Err(rejection) = metadata::check(claim, rules.label_domains) {
        return Step::Settle(Verdict::Rejected(rejection));
    }
    if let Some(sandbox) = primary(claim, &observed.bound) {
        return keep(observed, sandbox);
    }
    if let Some((sandbox, uid)) = &observed.unseen {
        return Step::ConfirmSandbox(sandbox.clone(), *uid);
    }
    acquire(observed, now, rules)
}

/// A claim whose time is over says so first, then takes down what it has, then itself.
fn expired(observed: &Observed) -> Step {
    let claim = &*observed.claim;
    if !is_marked_expired(claim) {
        return Step::Settle(Verdict::Expired {
            done: false,
            spared: None,
        });
    }
    match claim.expiry {
        Expiry::Delete => Step::Delete { foreground: false },
        Expiry::DeleteForeground => Step::Delete { foreground: true },
        Expiry::Retain => {
            if let Some(row) = observed.bound.iter().find(|row| !row.head.is_deleting()) {
                return Step::DeleteSandbox(row.head.key.clone(), row.head.uid);
            }
            // A sandbox of the claim's name that it never controlled is not its to delete.
            let spared = observed
                .namesake
                .as_ref()
                .filter(|row| claim.bound.name.as_ref() == Some(&row.head.key.name))
                .map(|row| {
                    format!(
                        "Sandbox {:?} is not controlled by this claim",
                        &*row.head.key.name
                    )
                });
            Step::Settle(Verdict::Expired { done: true, spared })
        }
    }
}

/// A claim that has its sandbox keeps it, and keeps its metadata in line.
fn keep(observed: &Observed, sandbox: &Arc<SandboxRow>) -> Step {
    let claim = &*observed.claim;
    let settle = Step::Settle(Verdict::Bound(sandbox.head.key.clone()));
    if sandbox.head.is_deleting() {
        return settle;
    }
    if let Some(policy) = &observed.legacy_policy {
        // The template's policy covers the pod; a second one of unknown content would widen it.
        return Step::DeletePolicy(policy.head.key.clone(), policy.head.uid);
    }
    // Whatever else the claim controls is left over from a crash between two writes. The status
    // comes first, so that the one that counts is recorded.
    if claim.bound.name.as_ref() == Some(&sandbox.head.key.name)
        && let Some(surplus) = observed
            .bound
            .iter()
            .find(|row| row.head.uid != sandbox.head.uid && !row.head.is_deleting())
    {
        if !observed.confirmed {
            // It may have been told of another one since.
            return Step::ConfirmClaim;
        }
        if !observed.asked_for {
            // It may be gone since, and then the surplus one is what the claim has left.
            return Step::ConfirmBound(sandbox.head.key.clone());
        }
        return Step::DeleteSandbox(surplus.head.key.clone(), surplus.head.uid);
    }
    let template = observed.template.row().map(|row| &**row);
    if !sandbox.head.is_controlled_by(claim.head.uid) {
        // The status comes first; the handing over brings everything else in line.
        return match desired::binding(claim, sandbox, template) {
            Ok(_) => settle,
            Err(rejection) => Step::Settle(Verdict::Rejected(rejection)),
        };
    }
    match desired::metadata_update(claim, sandbox, template) {
        Ok(Some(patch)) => {
            Step::Update(sandbox.head.key.clone(), sandbox.head.uid, Box::new(patch))
        }
        Ok(None) => settle,
        Err(rejection) => Step::Settle(Verdict::Rejected(rejection)),
    }
}

fn acquire(observed: &Observed, now: Timestamp, rules: Rules<'_>) -> Step {
    let claim = &*observed.claim;
    match &observed.pool {
        Found::Unseen(key) => return Step::ConfirmPool(key.clone()),
        Found::Missing(key) => {
            return Step::Settle(Verdict::Missing {
                reason: reason::WARM_POOL_NOT_FOUND,
                message: format!("SandboxWarmPool {:?} not found", &*key.name),
            });
        }
        Found::Here(_) | Found::NotNamed => {}
    }
    let goes_warm = !claim.needs_fresh_sandbox() && !observed.pools.is_empty();
    if goes_warm {
        match &observed.candidate {
            Candidate::Unasked => return Step::Choose(observed.pools.clone()),
            Candidate::Chosen(_) if observed.conflicts >= rules.most_conflicts => {
                return Step::Settle(Verdict::Contended);
            }
            Candidate::Chosen(member) => return allocate(observed, member),
            Candidate::None { soon: true } => {
                let age = now.duration_since(claim.head.created);
                if age < WARM_GRACE {
                    let rest = Duration::try_from(WARM_GRACE - age).unwrap_or(WARM_RETRY);
                    return Step::Settle(Verdict::Waiting(rest.min(WARM_RETRY)));
                }
            }
            Candidate::None { soon: false } => {}
        }
    }
    match &observed.template {
        Found::Here(template) => create(observed, template, rules),
        Found::Unseen(key) => Step::ConfirmTemplate(key.clone()),
        Found::Missing(key) => Step::Settle(Verdict::Missing {
            reason: reason::TEMPLATE_NOT_FOUND,
            message: format!("SandboxTemplate {:?} not found", &*key.name),
        }),
        Found::NotNamed => Step::Settle(Verdict::Missing {
            reason: reason::TEMPLATE_NOT_FOUND,
            message: "the claim names neither a pool nor a template".to_owned(),
        }),
    }
}

fn allocate(observed: &Observed, member: &Arc<SandboxRow>) -> Step {
    let template = observed.template.row().map(|row| &**row);
    // Whether it can be the claim's is found out before it is given away.
    let claim = &*observed.claim;
    let Some(pool) = &member.head.owner else {
        return Step::Settle(Verdict::Contended);
    };
    let named = |head: &Head| Named {
        name: head.key.name.clone(),
        uid: head.uid,
    };
    match desired::binding(claim, member, template) {
        Ok(_) => Step::Allocate {
            pool: PoolRef {
                key: member.head.key.sibling(pool.name.clone()),
                uid: pool.uid,
            },
            allocation: Allocation {
                claim: named(&claim.head),
                sandbox: named(&member.head),
            },
        },
        Err(rejection) => Step::Settle(Verdict::Rejected(rejection)),
    }
}

fn create(observed: &Observed, template: &TemplateRow, rules: Rules<'_>) -> Step {
    let claim = &*observed.claim;
    let sandbox = match desired::cold_sandbox(claim, template, rules.resolvers) {
        Ok(sandbox) => sandbox,
        Err(rejection) => return Step::Settle(Verdict::Rejected(rejection)),
    };
    if let Some(namesake) = &observed.namesake {
        return Step::Settle(if namesake.head.is_deleting() {
            Verdict::NamePending
        } else {
            Verdict::Rejected(Rejection {
                reason: reason::INVALID_CONFIGURATION,
                message: format!(
                    "Sandbox {:?} exists and is not controlled by this claim; a claim's own sandbox has the claim's name, so choose another name for the claim",
                    &*namesake.head.key.name
                ),
            })
        });
    }
    if !observed.confirmed {
        return Step::ConfirmClaim;
    }
    Step::Create(Box::new(sandbox))
}

/// The pool a claim names, if it names one.
pub fn named_pool(claim: &ClaimRow) -> Option<&Text> {
    match &claim.source {
        Source::Pool(pool) => Some(pool),
        Source::Template { .. } => None,
    }
}
