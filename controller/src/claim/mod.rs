//! SandboxClaim -> its sandbox: a warm one taken over, or a cold one created.
//!
//! A pass repeats *observe -> plan -> act* until the plan is to settle, then publishes one status. On
//! the warm path that is two writes: the pool's allocation record, which a write of several claims at
//! once serves, and the status. Everything else (the owner reference of the sandbox, which
//! [`handover`] writes, the pod's labels, the pool's refill, annotations, events) comes after and yields
//! to claims that still wait.

pub mod act;
pub mod desired;
pub mod handover;
pub mod legacy;
pub mod memory;
mod observe;
pub mod plan;
mod report;
pub mod rules;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::{annotations, condition, labels};
use tokio::time::Instant;

use self::act::{Attempt, Published};
use self::memory::Memory;
use self::plan::{Candidate, Found, Observed, PoolRef, Rules, Step, Verdict};
use crate::allocation::record::Request;
use crate::allocation::{self, Answer};
use crate::api::{POOLS, TEMPLATES};
use crate::confirm::exists;
use crate::context::Context;
use crate::error::Fault;
use crate::ident::Key;
use crate::metrics;
use crate::objects::{Allocation, ClaimRow, PoolRow, SandboxRow, TemplateRow};
use crate::queue::Next;
use crate::store::Work;
use crate::trace::{About, Span};
use crate::warm_pool::Staleness;

/// Steps a pass may take; each makes progress, so this is never reached without a defect.
const STEPS: usize = 24;
/// Bindings a pass may lose before it makes way for others.
const MOST_CONFLICTS: usize = 5;
/// How soon to look again when a status write found the claim changed, should no event come.
const STALE_RETRY: Duration = Duration::from_millis(200);
/// How long a claim without a sandbox is failed before it says why.
const FAULT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a claim that has one is.
const SERVED_PATIENCE: Duration = Duration::from_secs(30);

/// Reconciles claims.
#[derive(Debug)]
pub struct Claims {
    cx: Arc<Context>,
    staleness: Arc<Staleness>,
    memory: Memory,
}

/// What was learned from the API server during a pass.
#[derive(Debug, Default)]
struct Learned {
    missing_pool: Option<Key>,
    missing_template: Option<Key>,
    candidate: Option<Candidate>,
    confirmed: bool,
    /// The sandbox that the claim's status names, once the API server was asked for it.
    asked_for: Option<Key>,
    fault: Option<Fault>,
    conflicts: usize,
    /// How the claim came by its sandbox in this pass.
    launched: Option<&'static str>,
}

impl Claims {
    /// A reconciler.
    pub fn new(cx: Arc<Context>, staleness: Arc<Staleness>) -> Self {
        Self {
            cx,
            staleness,
            memory: Memory::default(),
        }
    }

    /// What traces say of a claim. Its trace is its client's, or the one that began with its sandbox.
    pub fn traced_as(&self, key: &Key) -> Option<About> {
        self.cx.store.read(|state| {
            let claim = state.claim(key)?;
            let own = claim.annotations.trace_context.clone();
            let context = own.or_else(|| {
                let mut bound = state.sandboxes_for(&claim.head);
                bound.find_map(|row| row.annotations.get(annotations::TRACE_CONTEXT).cloned())
            });
            let creator = claim.created_by.as_deref().unwrap_or_default();
            Some(About {
                context,
                creator: Some(labels::normalised_creator(creator)),
            })
        })
    }

    /// Brings one claim to its desired state, as far as possible now.
    pub async fn reconcile(&self, key: &Key, span: &Span) -> Next {
        let cx = &*self.cx;
        let by = Work::Claim(key.clone());
        let mut learned = Learned::default();
        let mut lane = None;
        for _ in 0..STEPS {
            let Some(mut observed) = cx
                .store
                .read(|state| observe::observe(state, key, &learned))
            else {
                self.memory.forget(key);
                return Next::Done;
            };
            begin_trace(&mut observed, span);
            let claim = observed.claim.clone();
            if lane.is_none() && claim.bound.name.is_none() {
                self.memory.see(&claim, cx.clock.now());
                lane = Some(cx.lanes.claim());
            }
            let step = plan::plan(&observed, cx.clock.now(), self.rules());
            let outcome = match step {
                Step::Leave => {
                    cx.store.release(claim.head.uid);
                    self.memory.forget(key);
                    return Next::Done;
                }
                Step::Delete { foreground } => {
                    return match act::delete_claim(cx, &by, &claim, foreground).await {
                        Ok(()) => {
                            self.announce_deletion(&claim);
                            Next::Done
                        }
                        Err(fault) => next_after(&fault),
                    };
                }
                Step::Settle(verdict) => {
                    let next = self.settle(&by, &observed, verdict, &learned, lane).await;
                    return self.write_note(&by, &claim, next).await;
                }
                Step::DeleteSandbox(sandbox, uid) => {
                    act::delete_sandbox(cx, &by, &sandbox, uid).await
                }
                Step::DeletePolicy(policy, uid) => act::delete_policy(cx, &policy, uid).await,
                Step::ConfirmPool(pool) => self.confirm_pool(&by, pool, &mut learned).await,
                Step::ConfirmTemplate(template) => {
                    self.confirm_template(&by, template, &mut learned).await
                }
                Step::ConfirmClaim => match act::confirm_claim(cx, &by, &claim).await {
                    Ok(Some(_)) => {
                        learned.confirmed = true;
                        Ok(())
                    }
                    // Gone or replaced: its own event follows.
                    Ok(None) => return Next::Done,
                    Err(fault) => Err(fault),
                },
                Step::Choose(pools) => {
                    learned.candidate = Some(self.choose(&observed, &pools));
                    Ok(())
                }
                Step::Allocate { pool, allocation } => {
                    self.allocate(&claim, &pool, allocation, &mut learned).await
                }
                Step::ConfirmSandbox(sandbox, uid) => {
                    allocation::act::read_member(cx, &sandbox, uid).await
                }
                Step::ConfirmBound(sandbox) => {
                    let read = act::confirm_bound(cx, &by, &claim, &sandbox).await;
                    if read.is_ok() {
                        learned.asked_for = Some(sandbox);
                    }
                    read
                }
                Step::Create(sandbox) => {
                    act::create(cx, &by, &claim, &sandbox).await.map(|attempt| {
                        if attempt == Attempt::Won {
                            learned.launched = Some(labels::LAUNCH_TYPE_COLD);
                        }
                    })
                }
                Step::Update(sandbox, uid, patch) => {
                    act::update(cx, &by, &sandbox, uid, &patch).await
                }
            };
            learned.fault = outcome.err();
        }
        tracing::error!(claim = %key, "a pass did not settle");
        Next::Retry
    }

    async fn confirm_pool(&self, by: &Work, pool: Key, learned: &mut Learned) -> Result<(), Fault> {
        if !exists::<PoolRow>(&self.cx, by, &POOLS, &pool).await? {
            learned.missing_pool = Some(pool);
        }
        Ok(())
    }

    async fn confirm_template(
        &self,
        by: &Work,
        template: Key,
        learned: &mut Learned,
    ) -> Result<(), Fault> {
        if !exists::<TemplateRow>(&self.cx, by, &TEMPLATES, &template).await? {
            learned.missing_template = Some(template);
        } else if let Some(Candidate::None { .. }) = learned.candidate {
            // Members could not be judged without it; now they can.
            learned.candidate = None;
        }
        Ok(())
    }

    fn rules(&self) -> Rules<'_> {
        let config = &self.cx.config;
        Rules {
            label_domains: &config.claims.label_domains,
            resolvers: &config.policy.resolvers,
            most_conflicts: MOST_CONFLICTS,
        }
    }

    /// Reserves the best member of the first pool that has one. The pool of a member that is reserved already
    /// goes first, however the others have grown: a binding of it may be on its way.
    ///
    /// Where there is none, the claim is told of the next one if that is what it waits for.
    fn choose(&self, observed: &Observed, pools: &[PoolRef]) -> Candidate {
        let (store, claim) = (&self.cx.store, &*observed.claim);
        let may_go_cold = matches!(observed.template, Found::Here(_));
        let held = store.read(|state| state.availability().pool_held(claim.head.uid).cloned());
        let is_held = |pool: &&PoolRef| held.as_ref() == Some(&pool.id());
        let rest = pools.iter().filter(|pool| !is_held(pool));
        for pool in pools.iter().filter(is_held).chain(rest) {
            let fit = self.staleness.fit(store, &pool.key);
            if let Some(row) = store.pick(&pool.id(), claim.head.uid, |make| fit.includes(make)) {
                return Candidate::Chosen(row);
            }
        }
        let mut soon = false;
        for pool in pools {
            let starts = store.read(|state| state.availability().has_waiting(&pool.id()));
            if starts || !may_go_cold {
                store.wait_for_member(pool.id(), claim);
            }
            soon |= starts;
        }
        Candidate::None { soon }
    }

    /// Has a member given to the claim.
    async fn allocate(
        &self,
        claim: &ClaimRow,
        pool: &PoolRef,
        allocation: Allocation,
        learned: &mut Learned,
    ) -> Result<(), Fault> {
        let cx = &*self.cx;
        let request = Request::Allocate(allocation);
        let began = Instant::now();
        let answers = allocation::act::commit(cx, &pool.key, &pool.id(), vec![request]).await;
        cx.metrics.steps.took(metrics::Step::Bind, began.elapsed());
        match answers.into_iter().next() {
            Some(Answer::Granted) => {
                learned.launched = Some(labels::LAUNCH_TYPE_WARM);
                Ok(())
            }
            // A fault may leave a write in flight, and then the reservation stands, so that the next pass
            // asks for this very member again.
            Some(Answer::Failed(fault)) => Err(fault),
            Some(Answer::Refused) | None => {
                cx.metrics.bind_conflicts.inc();
                cx.store.release(claim.head.uid);
                learned.candidate = None;
                learned.conflicts += 1;
                Ok(())
            }
        }
    }

    /// Publishes what there is to say, reports it, and says when to look again.
    async fn settle(
        &self,
        by: &Work,
        observed: &Observed,
        verdict: Verdict,
        learned: &Learned,
        lane: Option<crate::lanes::ClaimLane>,
    ) -> Next {
        let cx = &*self.cx;
        let claim = &*observed.claim;
        let now = cx.clock.now();
        if !matches!(verdict, Verdict::Failed(_) | Verdict::Contended) {
            // A fault may leave a patch in flight, and then the reservation must stand.
            cx.store.release(claim.head.uid);
        }
        // While it is open whether the claim has the sandbox that it was told of, it is told of no other.
        let is_open = matches!(verdict, Verdict::Failed(_)) && observed.unconfirmed.is_some();
        let sandbox = plan::primary(claim, &observed.bound)
            .filter(|_| !is_open)
            .map(|row| &**row);
        let shown = self.shown(claim, sandbox, &verdict);
        let new = shown.and_then(|shown| status::status(claim, sandbox, &shown, now));
        let published = match new.as_ref().and_then(|new| status::patch(claim, new)) {
            Some(patch) => {
                let began = Instant::now();
                let published = act::publish(cx, by, &claim.head.key, &patch).await;
                let steps = &cx.metrics.steps;
                steps.took(metrics::Step::Publish, began.elapsed());
                published.map(Some)
            }
            None => Ok(None),
        };
        // The client has its answer; whoever yielded may go on.
        drop(lane);
        if let Some(sandbox) = sandbox {
            self.count_launch(claim, sandbox, learned);
        }
        if let (Verdict::Bound(_), Ok(Some(Published::Written) | None), Some(sandbox)) =
            (&verdict, &published, sandbox)
            && !sandbox.head.is_controlled_by(claim.head.uid)
        {
            cx.store.hand_over(&claim.head.key);
        }
        match published {
            Err(fault) => return next_after(&fault),
            Ok(Some(Published::Stale)) => return Next::After(STALE_RETRY),
            Ok(Some(Published::Gone)) => return Next::Done,
            Ok(Some(Published::Written) | None) => {}
        }
        if let Verdict::Expired { .. } = verdict
            && !plan::is_marked_expired(claim)
        {
            let note = "Claim expired".to_owned();
            self.announce(claim, "ClaimExpired", "Claim Expired", note);
        }
        let was_ready = claim.is_ready();
        let is_ready = new.is_some_and(|new| new.conditions.is_true(condition::READY));
        if let (true, Some(sandbox)) = (is_ready || was_ready, sandbox) {
            self.note_ready(claim, sandbox, was_ready, now);
        }
        match &verdict {
            Verdict::Failed(fault) if fault.is_retried() => {
                tracing::warn!(claim = %claim.head.key, %fault, "claim not as it should be");
                next_after(fault)
            }
            Verdict::Contended => Next::Retry,
            _ => verdict.recheck().map_or(Next::Done, Next::After),
        }
    }

    /// The verdict to publish; `None` publishes nothing.
    ///
    /// A fault that may pass is told only when it lasts. On a busy server, telling of it at once would
    /// cost two writes more, and a claim that is being served would seem to be down because a label
    /// could not be tidied.
    fn shown(
        &self,
        claim: &ClaimRow,
        sandbox: Option<&SandboxRow>,
        verdict: &Verdict,
    ) -> Option<Verdict> {
        let Verdict::Failed(fault) = verdict else {
            self.memory.recover(claim);
            return Some(verdict.clone());
        };
        let lasts = self.memory.fail(claim);
        match sandbox {
            _ if !fault.is_retried() => Some(verdict.clone()),
            Some(sandbox) if lasts < SERVED_PATIENCE => {
                Some(Verdict::Bound(sandbox.head.key.clone()))
            }
            None if lasts < FAULT_PATIENCE => None,
            _ => Some(verdict.clone()),
        }
    }
}

/// Where the client began no trace, it begins here, and the sandbox carries it on.
fn begin_trace(observed: &mut Observed, span: &Span) {
    if let (None, Some(context)) = (&observed.claim.annotations.trace_context, span.carrier()) {
        let claim = Arc::make_mut(&mut observed.claim);
        claim.annotations.trace_context = Some(context.into());
    }
}

fn next_after(fault: &Fault) -> Next {
    fault.retry_after().map_or(Next::Retry, Next::RetryAfter)
}

#[cfg(test)]
mod tests;
