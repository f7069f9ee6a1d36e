//! SandboxClaim -> its sandbox: a warm one taken over, or a cold one created.
//!
//! A pass repeats *observe -> plan -> act* until the plan is to settle, then publishes one status. On
//! the warm path that is two writes: the binding and the status. Everything else (the pod's labels,
//! the pool's refill, annotations, events) comes after and yields to claims that still wait.

pub mod act;
pub mod desired;
pub mod plan;
pub mod rules;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::claim::Warmth;
use agent_sandbox_crds::{annotations, labels, names};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, json};

use self::act::{Attempt, Published};
use self::plan::{Candidate, Found, Observed, PoolRef, Rules, Step, Verdict};
use crate::api::{POOLS, TEMPLATES};
use crate::confirm::exists;
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Text, Uid};
use crate::metrics;
use crate::objects::{ClaimRow, PoolRow, SandboxRow, Source, TemplateRow};
use crate::queue::Next;
use crate::store::{State, Work};
use crate::warm_pool::Staleness;

/// Steps a pass may take; each makes progress, so this is never reached without a defect.
const STEPS: usize = 24;
/// Bindings a pass may lose before it makes way for others.
const MOST_CONFLICTS: usize = 5;
/// How soon to look again when a status write found the claim changed, should no event come.
const STALE_RETRY: Duration = Duration::from_millis(200);

/// Reconciles claims.
#[derive(Debug)]
pub struct Claims {
    cx: Arc<Context>,
    staleness: Arc<Staleness>,
    /// When each claim that is not Ready yet was first seen.
    first_seen: Mutex<BTreeMap<Key, (Uid, Timestamp)>>,
}

/// What was learned from the API server during a pass.
#[derive(Debug, Default)]
struct Learned {
    missing_pool: Option<Key>,
    missing_template: Option<Key>,
    candidate: Option<Candidate>,
    confirmed: bool,
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
            first_seen: Mutex::default(),
        }
    }

    /// Brings one claim to its desired state, as far as possible now.
    pub async fn reconcile(&self, key: &Key) -> Next {
        let cx = &*self.cx;
        let by = Work::Claim(key.clone());
        let mut learned = Learned::default();
        let mut lane = None;
        for _ in 0..STEPS {
            let Some(observed) = self.observe(key, &learned) else {
                self.first_seen.lock().remove(key);
                return Next::Done;
            };
            let claim = observed.claim.clone();
            if lane.is_none() && claim.bound.name.is_none() {
                self.note_first_sight(&claim);
                lane = Some(cx.lanes.claim());
            }
            let rules = Rules {
                label_domains: &cx.config.claims.label_domains,
                resolvers: &cx.config.policy.resolvers,
                most_conflicts: MOST_CONFLICTS,
            };
            let step = plan::plan(&observed, cx.clock.now(), rules);
            let outcome = match step {
                Step::Leave => {
                    cx.store.release(claim.head.uid);
                    self.first_seen.lock().remove(key);
                    return Next::Done;
                }
                Step::Delete { foreground } => {
                    self.announce_deletion(&claim);
                    let deleted = act::delete_claim(cx, &by, &claim, foreground).await;
                    return deleted.map_or_else(|fault| next_after(&fault), |()| Next::Done);
                }
                Step::Settle(verdict) => {
                    return self.settle(&by, &observed, verdict, &learned, lane).await;
                }
                Step::DeleteSandbox(sandbox, uid) => {
                    act::delete_sandbox(cx, &by, &sandbox, uid).await
                }
                Step::DeletePolicy(policy, uid) => act::delete_policy(cx, &by, &policy, uid).await,
                Step::ConfirmPool(pool) => {
                    exists::<PoolRow>(cx, &by, &POOLS, &pool)
                        .await
                        .map(|exists| {
                            if !exists {
                                learned.missing_pool = Some(pool);
                            }
                        })
                }
                Step::ConfirmTemplate(template) => {
                    exists::<TemplateRow>(cx, &by, &TEMPLATES, &template)
                        .await
                        .map(|exists| {
                            if !exists {
                                learned.missing_template = Some(template);
                            }
                        })
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
                    learned.candidate = Some(self.choose(&claim, &pools));
                    Ok(())
                }
                Step::Bind { member, patch } => {
                    self.bind(&by, &claim, &member, &patch, &mut learned).await
                }
                Step::Create(sandbox) => {
                    act::create(cx, &by, &claim, &sandbox).await.map(|attempt| {
                        if attempt == Attempt::Won {
                            learned.launched = Some(labels::LAUNCH_TYPE_COLD);
                        }
                    })
                }
                Step::Update { sandbox, patch } => act::update(cx, &by, &sandbox, &patch).await,
            };
            learned.fault = outcome.err();
        }
        tracing::error!(claim = %key, "a pass did not settle");
        Next::Retry
    }

    /// Reads everything a plan depends on, in one look.
    fn observe(&self, key: &Key, learned: &Learned) -> Option<Observed> {
        self.cx.store.read(|state| {
            let claim = state.claim(key)?;
            let bound: Vec<Arc<SandboxRow>> = state.sandboxes_of(claim.head.uid).cloned().collect();
            let namesake = state
                .sandbox(key)
                .filter(|row| !row.head.is_controlled_by(claim.head.uid));
            let legacy = key.sibling(names::legacy_claim_network_policy(&key.name));
            let legacy_policy = state.policy(&legacy).filter(|policy| {
                policy.head.is_controlled_by(claim.head.uid) && !policy.head.is_deleting()
            });
            let pool = match plan::named_pool(&claim) {
                Some(name) => find(
                    key,
                    name,
                    state.pool(&key.sibling(name.clone())),
                    learned.missing_pool.as_ref(),
                ),
                None => Found::NotNamed,
            };
            let template = match plan::primary(&claim, &bound) {
                // What a sandbox was made from is its own record, not the claim's current word.
                Some(sandbox) => match sandbox.template_name() {
                    Some(name) => find(key, name, state.template(&key.sibling(name.clone())), None),
                    None => Found::NotNamed,
                },
                None => match template_name(&claim, &pool) {
                    Some(name) => find(
                        key,
                        &name,
                        state.template(&key.sibling(name.clone())),
                        learned.missing_template.as_ref(),
                    ),
                    None => Found::NotNamed,
                },
            };
            let pools = eligible_pools(state, &claim, &pool);
            Some(Observed {
                claim,
                bound,
                namesake,
                legacy_policy,
                pool,
                pools,
                template,
                candidate: learned.candidate.clone().unwrap_or(Candidate::Unasked),
                confirmed: learned.confirmed,
                fault: learned.fault.clone(),
                conflicts: learned.conflicts,
            })
        })
    }

    /// Reserves the best member of the first pool that has one.
    fn choose(&self, claim: &ClaimRow, pools: &[PoolRef]) -> Candidate {
        let store = &self.cx.store;
        for pool in pools {
            let judge = self.staleness.judge(store, &pool.key);
            if let Some(row) = store.pick(pool.uid, claim.head.uid, |row| judge.may_hand_out(row)) {
                return Candidate::Chosen(row);
            }
        }
        let mut soon = false;
        for pool in pools {
            if store.read(|state| state.availability().has_waiting(pool.uid)) {
                store.wait_for_member(pool.uid, &claim.head.key);
                soon = true;
            }
        }
        Candidate::None { soon }
    }

    async fn bind(
        &self,
        by: &Work,
        claim: &ClaimRow,
        member: &Key,
        patch: &serde_json::Value,
        learned: &mut Learned,
    ) -> Result<(), Fault> {
        match act::bind(&self.cx, by, claim, member, patch).await? {
            Attempt::Won => {
                learned.launched = Some(labels::LAUNCH_TYPE_WARM);
            }
            Attempt::Lost => {
                self.cx.metrics.bind_conflicts.inc();
                self.cx.store.release(claim.head.uid);
                learned.candidate = None;
                learned.conflicts += 1;
            }
        }
        Ok(())
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
        let sandbox = plan::primary(claim, &observed.bound).map(|row| &**row);
        let new = status::status(claim, sandbox, &verdict, now);
        let published = match new.as_ref().and_then(|new| status::patch(claim, new)) {
            Some(patch) => act::publish(cx, by, &claim.head.key, &patch)
                .await
                .map(Some),
            None => Ok(None),
        };
        // The client has its answer; whoever yielded may go on.
        drop(lane);
        if let Some(sandbox) = sandbox {
            self.count_launch(claim, sandbox, learned);
        }
        match published {
            Err(fault) => return next_after(&fault),
            Ok(Some(Published::Stale)) => return Next::After(STALE_RETRY),
            Ok(Some(Published::Gone)) => return Next::Done,
            Ok(Some(Published::Written)) => {
                if matches!(verdict, Verdict::Expired { .. }) {
                    self.announce(
                        claim,
                        "ClaimExpired",
                        "Claim Expired",
                        "Claim expired".to_owned(),
                    );
                }
                let is_ready = new.as_ref().is_some_and(|new| {
                    new.conditions.is_true(agent_sandbox_crds::condition::READY)
                });
                if let (true, false, Some(sandbox)) = (is_ready, claim.is_ready(), sandbox) {
                    self.note_first_ready(by, claim, sandbox, now).await;
                }
            }
            Ok(None) => {}
        }
        match &verdict {
            Verdict::Failed(fault) if fault.is_retried() => next_after(fault),
            Verdict::Contended => Next::Retry,
            _ => verdict.recheck().map_or(Next::Done, Next::After),
        }
    }

    fn count_launch(&self, claim: &ClaimRow, sandbox: &SandboxRow, learned: &Learned) {
        let Some(launch) = learned.launched else {
            return;
        };
        let cx = &*self.cx;
        let pool = match &claim.source {
            Source::Pool(pool)
            | Source::Template {
                warmth: Warmth::Pool(pool),
                ..
            } => &**pool,
            Source::Template { .. } => "",
        };
        let creator = claim.created_by.as_deref().unwrap_or_default();
        cx.metrics.claim_created(sandbox, creator, launch, pool);
        let name = &*sandbox.head.key.name;
        if launch == labels::LAUNCH_TYPE_COLD {
            let note = format!("Created Sandbox {name:?}");
            self.announce(claim, "SandboxProvisioned", "Provisioning", note);
        } else if cx.config.claims.adoption_events {
            let note = format!("Adopted warm pool Sandbox {name:?}");
            self.announce(claim, "SandboxAdopted", "Adoption", note);
        }
    }

    fn note_first_sight(&self, claim: &ClaimRow) {
        let mut seen = self.first_seen.lock();
        let entry = seen
            .entry(claim.head.key.clone())
            .or_insert_with(|| (claim.head.uid, self.cx.clock.now()));
        if entry.0 != claim.head.uid {
            *entry = (claim.head.uid, self.cx.clock.now());
        }
    }

    /// Records latencies once, and, where wanted, what observers look for on the claim: one write,
    /// after Ready, in the background.
    async fn note_first_ready(
        &self,
        by: &Work,
        claim: &ClaimRow,
        sandbox: &SandboxRow,
        now: Timestamp,
    ) {
        let cx = &*self.cx;
        let seen = self.first_seen.lock().remove(&claim.head.key);
        let first_seen = seen
            .filter(|(uid, _)| *uid == claim.head.uid)
            .map(|(_, at)| at);
        if claim.annotations.first_ready.is_some() {
            return;
        }
        cx.metrics.claim_ready(claim, sandbox, first_seen, now);
        if !cx.config.claims.annotations {
            return;
        }
        let mut marks = Map::new();
        marks.insert(
            annotations::CLAIM_FIRST_READY_AT.to_owned(),
            json!(now.to_string()),
        );
        if let (Some(at), None) = (first_seen, &claim.annotations.controller_observed) {
            marks.insert(
                annotations::CONTROLLER_FIRST_OBSERVED_AT.to_owned(),
                json!(at.to_string()),
            );
        }
        let warm = metrics::launch_type(sandbox) == labels::LAUNCH_TYPE_WARM;
        if warm && claim.annotations.sandbox_name.as_ref() != Some(&sandbox.head.key.name) {
            marks.insert(
                annotations::SANDBOX_NAME.to_owned(),
                json!(&*sandbox.head.key.name),
            );
        }
        let patch = json!({"metadata": {
            "uid": claim.head.uid.to_string(),
            "annotations": marks,
        }});
        let _lane = cx.lanes.background().await;
        if let Err(fault) = act::annotate(cx, by, &claim.head.key, &patch).await {
            tracing::debug!(claim = %claim.head.key, %fault, "annotations not written");
        }
    }

    fn announce_deletion(&self, claim: &ClaimRow) {
        let policy = match claim.expiry {
            crate::objects::Expiry::Delete => "Delete",
            crate::objects::Expiry::DeleteForeground => "DeleteForeground",
            crate::objects::Expiry::Retain => "Retain",
        };
        let note = format!("Deleting Claim (ShutdownPolicy={policy})");
        self.announce(claim, "ClaimExpired", "Deleting", note);
    }

    fn announce(&self, claim: &ClaimRow, why: &'static str, action: &'static str, note: String) {
        if self.cx.config.claims.events {
            self.cx.events.record(Event {
                regarding: Regarding::claim(&claim.head),
                importance: Importance::Normal,
                reason: why,
                action,
                note,
            });
        }
    }
}

fn next_after(fault: &Fault) -> Next {
    fault.retry_after().map_or(Next::Retry, Next::RetryAfter)
}

/// What is known about something a claim names.
fn find<R>(claim: &Key, name: &Text, row: Option<Arc<R>>, missing: Option<&Key>) -> Found<R> {
    let key = claim.sibling(name.clone());
    match row {
        Some(row) => Found::Here(row),
        None if missing == Some(&key) => Found::Missing(key),
        None => Found::Unseen(key),
    }
}

/// The template a claim without a sandbox leads to.
fn template_name(claim: &ClaimRow, pool: &Found<PoolRow>) -> Option<Text> {
    match &claim.source {
        Source::Template { name, .. } => Some(name.clone()),
        Source::Pool(_) => pool.row().map(|pool| pool.template.clone()),
    }
}

/// The pools that may serve a claim, best first.
fn eligible_pools(state: &State, claim: &ClaimRow, named: &Found<PoolRow>) -> Vec<PoolRef> {
    let live = |pool: &Arc<PoolRow>| !pool.head.is_deleting();
    let refer = |pool: &Arc<PoolRow>| PoolRef {
        key: pool.head.key.clone(),
        uid: pool.head.uid,
    };
    match &claim.source {
        Source::Pool(_) => named
            .row()
            .filter(|pool| live(pool))
            .map(refer)
            .into_iter()
            .collect(),
        Source::Template {
            warmth: Warmth::Cold,
            ..
        } => Vec::new(),
        Source::Template { name, warmth } => {
            let template = claim.head.key.sibling(name.clone());
            let mut pools = state.pools_of_template(&template);
            pools.retain(live);
            if let Warmth::Pool(only) = warmth {
                pools.retain(|pool| pool.head.key.name == *only);
            }
            pools.sort_by_key(|pool| {
                (
                    std::cmp::Reverse(state.availability().available(pool.head.uid)),
                    pool.head.key.clone(),
                )
            });
            pools.iter().map(refer).collect()
        }
    }
}

#[cfg(test)]
mod tests;
