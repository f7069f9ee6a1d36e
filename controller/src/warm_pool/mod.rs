//! SandboxWarmPool -> sandboxes that wait for claims. Because the store shows our own writes at once,
//! a pass simply counts what is there: no expectations, no pass twice for the same gap. Passes of one
//! pool are spaced, writes yield to claims, and counts are published when they have settled.

pub mod act;
pub mod desired;
pub mod plan;
pub mod refill;
mod staleness;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use self::act::Published;
use self::plan::Observed;
use self::refill::Refill;
use crate::allocation::{self, record};
use crate::api::{CLAIMS, TEMPLATES};
use crate::confirm;
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Revision, Uid};
use crate::objects::{ClaimRow, Make, PoolRow, PoolStatus, TemplateRow};
use crate::queue::Next;
use crate::sandbox::policy::Policy;
use crate::store::{Hold, PoolId, Purpose, Roll, State, Work};
use crate::template::policy_of;

pub use staleness::{Fit, Staleness};

/// The least time between two passes of one pool: events of many members share a pass.
const PASS_INTERVAL: Duration = Duration::from_millis(50);
/// How soon to look again while claims have right of way.
const YIELD: Duration = Duration::from_millis(20);

/// How long entries that have served may stay in the record while there is nothing else to write.
const TIDY_AFTER: Duration = Duration::from_secs(10);

/// Reconciles pools.
#[derive(Debug)]
pub struct Pools {
    cx: Arc<Context>,
    staleness: Arc<Staleness>,
    memory: Mutex<BTreeMap<Key, Memory>>,
}

/// What is remembered of a pool between passes.
#[derive(Debug)]
struct Memory {
    uid: Uid,
    refill: Refill,
    last_pass: Option<Instant>,
    /// Since when refilling yields to claims.
    yields: Option<Instant>,
    /// Since when a status write waits.
    status_waits: Option<Instant>,
    /// When the status was written last.
    status_written: Option<Instant>,
    /// Since when the record has had entries.
    untidy: Option<Instant>,
}

/// A status to publish.
struct Draft {
    pool: Arc<PoolRow>,
    status: PoolStatus,
    patch: Value,
    /// What the record will say of the sandboxes that leave it, if that is all there is to be seen.
    tidied: Option<(PoolId, Revision)>,
}

impl Memory {
    fn new(uid: Uid) -> Self {
        Self {
            uid,
            refill: Refill::default(),
            last_pass: None,
            yields: None,
            status_waits: None,
            status_written: None,
            untidy: None,
        }
    }
}

impl Pools {
    /// A reconciler.
    pub fn new(cx: Arc<Context>, staleness: Arc<Staleness>) -> Self {
        Self {
            cx,
            staleness,
            memory: Mutex::default(),
        }
    }

    /// Brings one pool to its size, as far as possible now.
    pub async fn reconcile(&self, key: &Key) -> Next {
        let cx = &*self.cx;
        let Some(pool) = cx.store.read(|state| state.pool(key)) else {
            if let Some(memory) = self.memory.lock().remove(key) {
                cx.desks.forget(&PoolId::new(key, memory.uid));
            }
            return Next::Done;
        };
        if pool.head.is_deleting() {
            return Next::Done;
        }
        if let Some(delay) = self.spacing(&pool) {
            return Next::After(delay);
        }
        let settings = &cx.config.pools;
        let by = Work::Pool(key.clone());
        let mut faults = Vec::new();
        // That a template is missing is said once it is certain.
        if !status::says_template_is_missing(&pool.status)
            && cx
                .store
                .read(|state| state.template(&template_of(&pool)))
                .is_none()
            && let Err(fault) =
                confirm::exists::<TemplateRow>(cx, &by, &TEMPLATES, &template_of(&pool)).await
        {
            faults.push(fault);
        }
        if let Err(fault) = self.resolve_holds(&by, &pool).await {
            faults.push(fault);
        }
        let now = cx.clock.now();
        let Some(plan) = self.look(key, |observed| plan::plan(observed, settings, now)) else {
            return Next::Done;
        };
        tracing::trace!(pool = %key, looked_at = plan.looked_at, "planned");
        let mut wait = Soonest(plan.recheck);

        if !plan.delete.is_empty() {
            let tally = act::delete_members(cx, &by, &pool, &plan.delete).await;
            faults.extend(tally.faults);
            // Our own deletions do not queue us; the places they free are filled by the next pass.
            wait.or(Some(PASS_INTERVAL));
        }
        let grant = self.remember(&pool, |memory| {
            memory.refill.ask(
                plan.create,
                plan.total,
                plan.desired,
                settings,
                Instant::now(),
            )
        });
        if plan.create > 0 {
            wait.or(grant.again);
        }
        let template = cx.store.read(|state| state.template(&template_of(&pool)));
        if let (true, Some(template)) = (grant.members > 0, template) {
            let tally = act::create_members(cx, &by, &pool, &template, grant.members).await;
            self.remember(&pool, |memory| memory.refill.give_back(tally.untried));
            faults.extend(tally.faults);
        }

        self.settle(&pool, &by, &mut faults, &mut wait).await;
        if let Some(fault) = faults.first() {
            tracing::warn!(pool = %key, %fault, "pool not at its size");
            return match faults.iter().filter_map(Fault::retry_after).max() {
                Some(delay) => Next::RetryAfter(delay),
                None => Next::Retry,
            };
        }
        wait.0.map_or(Next::Done, Next::After)
    }

    /// Finds out what became of members that the record names and nobody asks for: those that are not
    /// known here, and those of claims that are gone.
    async fn resolve_holds(&self, by: &Work, pool: &PoolRow) -> Result<(), Fault> {
        let cx = &*self.cx;
        let id = PoolId::new(&pool.head.key, pool.head.uid);
        let holds: Vec<Hold> = cx.store.read(|state| {
            let waits = |hold: &&Hold| match &hold.purpose {
                _ if state.held(hold).is_none() => true,
                Purpose::Claim(claim, uid) => {
                    let goes = state.held(hold).is_some_and(|row| row.head.is_deleting());
                    !goes && state.claim(claim).is_none_or(|row| row.head.uid != *uid)
                }
                Purpose::Retirement => false,
            };
            let holds = state.allocations().of_pool(&id);
            holds.filter(waits).cloned().collect()
        });
        for hold in holds {
            if cx.store.read(|state| state.held(&hold).is_none()) {
                allocation::act::read_member(cx, &hold.sandbox, hold.uid).await?;
            }
            let Purpose::Claim(claim, uid) = &hold.purpose else {
                continue;
            };
            let is_open = |state: &State| state.allocations().hold_on(hold.uid).is_some();
            if !cx.store.read(is_open) {
                continue;
            }
            // Claims are watched apart: one that is not known yet may have its sandbox already.
            confirm::exists::<ClaimRow>(cx, by, &CLAIMS, claim).await?;
            let lives = cx
                .store
                .read(|state| state.claim(claim).is_some_and(|row| row.head.uid == *uid));
            if !lives {
                act::delete_forsaken(cx, by, &hold.sandbox, hold.uid).await?;
            }
        }
        Ok(())
    }

    /// How long to wait before the next pass: passes are spaced, and let claims go first.
    fn spacing(&self, pool: &PoolRow) -> Option<Duration> {
        let lanes = &self.cx.lanes;
        self.remember(pool, |memory| {
            if lanes.is_busy() {
                let since = *memory.yields.get_or_insert_with(Instant::now);
                if since.elapsed() < lanes.patience() {
                    return Some(YIELD);
                }
            }
            if let Some(last) = memory.last_pass {
                let left = PASS_INTERVAL.saturating_sub(last.elapsed());
                if !left.is_zero() {
                    return Some(left);
                }
            }
            memory.yields = None;
            memory.last_pass = Some(Instant::now());
            None
        })
    }

    /// Has something decided by what is known of a pool, in one look at the store; `None` when there
    /// is no such pool.
    ///
    /// What members were made from is judged beforehand, one make after the other, because comparing
    /// blueprints takes long the first time. One that turns up in between is taken for fresh, and its
    /// own event brings the next pass.
    fn look<T>(&self, key: &Key, decide: impl FnOnce(&Observed<'_>) -> T) -> Option<T> {
        let store = &self.cx.store;
        let (template, makes) = store.read(|state| {
            let pool = state.pool(key)?;
            let makes: Vec<Arc<Make>> = state
                .roll(&PoolId::new(key, pool.head.uid))
                .into_iter()
                .flat_map(|roll| roll.groups().map(|(make, _)| make.clone()))
                .collect();
            Some((state.template(&template_of(&pool)), makes))
        })?;
        let is_stale = |make: &Arc<Make>| {
            template
                .as_ref()
                .is_some_and(|template| self.staleness.is_stale(template, make))
        };
        let stale: BTreeSet<Arc<Make>> = makes.into_iter().filter(is_stale).collect();
        let nobody = Roll::default();
        store.read(|state| {
            let pool = state.pool(key)?;
            let template = state.template(&template_of(&pool));
            let policy = match &template {
                Some(template) => policy_of(state, template),
                None => Policy::NotNeeded,
            };
            Some(decide(&Observed {
                pool: &pool,
                template: template.as_deref(),
                policy: &policy,
                roll: state
                    .roll(&PoolId::new(key, pool.head.uid))
                    .unwrap_or(&nobody),
                stale: &stale,
            }))
        })
    }

    /// The status as it should be now, unless it is that already. What has served leaves the record with
    /// whatever else there is to write, and by a write of its own only when that is `overdue`.
    fn draft(&self, key: &Key, faults: &[Fault], overdue: bool) -> Option<Draft> {
        let store = &self.cx.store;
        let pool = store.read(|state| state.pool(key))?;
        let now = self.cx.clock.now();
        let status = self.look(key, |observed| {
            status::status(observed, faults, &self.cx.config.pools, now)
        })?;
        let id = PoolId::new(key, pool.head.uid);
        let (record, verified) = store.read(|state| {
            (
                record::tidy(&pool.record, |uid| state.allocations().end_of(uid)),
                state.is_record_verified(&id, pool.record.settled),
            )
        });
        let patch = status::patch(&pool, &status);
        let tidied = (record != *pool.record && (patch.is_some() || overdue)).then_some(record);
        if patch.is_none() && tidied.is_none() {
            return None;
        }
        Some(Draft {
            patch: status::with_record(&pool, patch, tidied.as_ref()),
            tidied: tidied
                .filter(|_| verified)
                .map(|record| (id, record.settled)),
            pool,
            status,
        })
    }

    /// Publishes the status: at once where somebody waits for it, else when the counts have settled,
    /// and never twice within the interval, whatever changes in the meantime.
    async fn settle(&self, pool: &PoolRow, by: &Work, faults: &mut Vec<Fault>, wait: &mut Soonest) {
        let cx = &*self.cx;
        let key = &pool.head.key;
        let overdue = self.is_tidying_overdue(pool, wait);
        let Some(draft) = self.draft(key, faults, overdue) else {
            self.remember(pool, |memory| memory.status_waits = None);
            return;
        };
        let interval = cx.config.pools.status_interval;
        let urgent = status::is_urgent(&draft.pool, &draft.status);
        let left = self.remember(&draft.pool, |memory| {
            let rest = |since: Instant| interval.saturating_sub(since.elapsed());
            let since = *memory.status_waits.get_or_insert_with(Instant::now);
            let settles = if urgent { Duration::ZERO } else { rest(since) };
            settles.max(memory.status_written.map_or(Duration::ZERO, rest))
        });
        if !left.is_zero() {
            wait.or(Some(left));
            return;
        }
        // Claims go first, and what is published is what is true when its turn has come.
        let _lane = cx.lanes.background().await;
        let id = PoolId::new(key, draft.pool.head.uid);
        let _turn = cx.desks.turn(&id).await;
        let Some(draft) = self.draft(key, faults, overdue) else {
            self.remember(pool, |memory| memory.status_waits = None);
            return;
        };
        self.remember(&draft.pool, |memory| {
            memory.status_waits = None;
            memory.status_written = Some(Instant::now());
        });
        match act::publish(cx, by, key, &draft.patch).await {
            Ok(Published::Done) => {
                if let Some((id, settled)) = &draft.tidied {
                    cx.store.verify_record(id, *settled);
                }
                self.announce(&draft.pool, &draft.status);
            }
            Ok(Published::Stale) => wait.or(Some(PASS_INTERVAL)),
            Ok(Published::Gone) => {}
            Err(fault) => faults.push(fault),
        }
    }

    /// Whether the record has kept entries for so long that they are worth a write of their own.
    fn is_tidying_overdue(&self, pool: &PoolRow, wait: &mut Soonest) -> bool {
        let key = &pool.head.key;
        let record = self
            .cx
            .store
            .read(|state| state.pool(key).map(|pool| pool.record.clone()));
        let has_entries =
            record.is_some_and(|it| !it.allocations.is_empty() || !it.retiring.is_empty());
        let since = self.remember(pool, |memory| {
            if !has_entries {
                memory.untidy = None;
                return None;
            }
            Some(*memory.untidy.get_or_insert_with(Instant::now))
        });
        let Some(since) = since else {
            return false;
        };
        let left = TIDY_AFTER.saturating_sub(since.elapsed());
        wait.or(Some(if left.is_zero() { TIDY_AFTER } else { left }));
        left.is_zero()
    }

    /// Says once that a pool got stuck, and once that it goes on.
    fn announce(&self, pool: &PoolRow, new: &PoolStatus) {
        let (was, is) = (status::is_stuck(&pool.status), status::is_stuck(new));
        let (importance, reason) = match (was, is) {
            (false, true) => (Importance::Warning, status::WARM_POOL_NOT_PROGRESSING),
            (true, false) => (Importance::Normal, status::WARM_POOL_PROGRESSING),
            _ => return,
        };
        self.cx.events.record(Event {
            regarding: Regarding::pool(&pool.head),
            importance,
            reason,
            action: "Reconciling",
            note: status::progress_message(new),
        });
    }

    fn remember<T>(&self, pool: &PoolRow, edit: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock();
        let entry = memory
            .entry(pool.head.key.clone())
            .or_insert_with(|| Memory::new(pool.head.uid));
        if entry.uid != pool.head.uid {
            *entry = Memory::new(pool.head.uid);
        }
        edit(entry)
    }
}

/// The template a pool names.
fn template_of(pool: &PoolRow) -> Key {
    pool.head.key.sibling(pool.template.clone())
}

/// The soonest of several delays.
struct Soonest(Option<Duration>);

impl Soonest {
    fn or(&mut self, delay: Option<Duration>) {
        self.0 = match (self.0, delay) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

#[cfg(test)]
mod tests;
