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
use crate::api::TEMPLATES;
use crate::confirm;
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Uid};
use crate::objects::{Make, PoolRow, PoolStatus, TemplateRow};
use crate::queue::Next;
use crate::sandbox::plan::Policy;
use crate::store::{PoolId, Roll, Work};
use crate::template::policy_of;

pub use staleness::{Fit, Staleness};

/// The least time between two passes of one pool: events of many members share a pass.
const PASS_INTERVAL: Duration = Duration::from_millis(50);
/// How soon to look again while claims have right of way.
const YIELD: Duration = Duration::from_millis(20);

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
            self.memory.lock().remove(key);
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
        let now = cx.clock.now();
        let Some(plan) = self.look(key, |observed| plan::plan(observed, settings, now)) else {
            return Next::Done;
        };
        tracing::trace!(pool = %key, looked_at = plan.looked_at, "planned");
        let mut wait = Soonest(plan.recheck);

        if !plan.delete.is_empty() {
            let tally = act::delete_members(cx, &by, &plan.delete).await;
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

    /// The status as it should be now, with the pool it is of, unless it is that already.
    fn draft(&self, key: &Key, faults: &[Fault]) -> Option<(Arc<PoolRow>, PoolStatus, Value)> {
        let pool = self.cx.store.read(|state| state.pool(key))?;
        let now = self.cx.clock.now();
        let new = self.look(key, |observed| {
            status::status(observed, faults, &self.cx.config.pools, now)
        })?;
        let patch = status::patch(&pool, &new)?;
        Some((pool, new, patch))
    }

    /// Publishes the status: at once where somebody waits for it, else when the counts have settled,
    /// and never twice within the interval, whatever changes in the meantime.
    async fn settle(&self, pool: &PoolRow, by: &Work, faults: &mut Vec<Fault>, wait: &mut Soonest) {
        let cx = &*self.cx;
        let key = &pool.head.key;
        let Some((pool, new, _)) = self.draft(key, faults) else {
            self.remember(pool, |memory| memory.status_waits = None);
            return;
        };
        let interval = cx.config.pools.status_interval;
        let urgent = status::is_urgent(&pool, &new);
        let left = self.remember(&pool, |memory| {
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
        let Some((pool, new, patch)) = self.draft(key, faults) else {
            self.remember(&pool, |memory| memory.status_waits = None);
            return;
        };
        self.remember(&pool, |memory| {
            memory.status_waits = None;
            memory.status_written = Some(Instant::now());
        });
        match act::publish(cx, by, key, &patch).await {
            Ok(Published::Done) => self.announce(&pool, &new),
            Ok(Published::Stale) => wait.or(Some(PASS_INTERVAL)),
            Ok(Published::Gone) => {}
            Err(fault) => faults.push(fault),
        }
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
