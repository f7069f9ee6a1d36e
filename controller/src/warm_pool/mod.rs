//! SandboxWarmPool -> sandboxes that wait for claims. Because the store shows our own writes at once,
//! a pass simply counts what is there: no expectations, no pass twice for the same gap. Passes of one
//! pool are spaced, writes yield to claims, and counts are published when they have settled.

pub mod act;
pub mod desired;
pub mod plan;
pub mod refill;
mod staleness;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::plan::{Member, Observed};
use self::refill::Refill;
use crate::api::TEMPLATES;
use crate::confirm;
use crate::context::Context;
use crate::error::Fault;
use crate::events::{Event, Importance, Regarding};
use crate::ident::{Key, Uid};
use crate::objects::{PoolRow, PoolStatus, TemplateRow};
use crate::queue::Next;
use crate::sandbox::plan::Policy;
use crate::store::Work;
use crate::template::policy_of;

pub use staleness::{Judge, Staleness};

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
}

impl Memory {
    fn new(uid: Uid) -> Self {
        Self {
            uid,
            refill: Refill::default(),
            last_pass: None,
            yields: None,
            status_waits: None,
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
        let Some(observed) = self.observe(key) else {
            return Next::Done;
        };
        let plan = plan::plan(&observed, settings, cx.clock.now());
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
        if let (true, Some(template)) = (grant.members > 0, &observed.template) {
            let tally = act::create_members(cx, &by, &pool, template, grant.members).await;
            self.remember(&pool, |memory| memory.refill.give_back(tally.untried));
            faults.extend(tally.faults);
        }

        self.settle(key, &by, &mut faults, &mut wait).await;
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

    /// Reads everything a plan depends on, in one look.
    fn observe(&self, key: &Key) -> Option<Observed> {
        let (pool, template, policy, rows) = self.cx.store.read(|state| {
            let pool = state.pool(key)?;
            let template = state.template(&template_of(&pool));
            let policy = match &template {
                Some(template) => policy_of(state, template),
                None => Policy::InPlace,
            };
            let rows: Vec<_> = state
                .sandboxes_of(pool.head.uid)
                .filter(|row| row.head.key.namespace == key.namespace)
                .map(|row| {
                    // A ready member's pod says nothing new.
                    let pod = if row.is_ready() {
                        None
                    } else {
                        state.pods_of(row.head.uid).next().cloned()
                    };
                    (row.clone(), pod)
                })
                .collect();
            Some((pool, template, policy, rows))
        })?;
        let members = rows
            .into_iter()
            .map(|(row, pod)| {
                let stale = template
                    .as_ref()
                    .is_some_and(|template| self.staleness.is_stale(template, &row));
                Member { row, pod, stale }
            })
            .collect();
        Some(Observed {
            pool,
            template,
            policy,
            members,
        })
    }

    /// Publishes the status: at once where somebody waits for it, else when the counts have settled.
    async fn settle(&self, key: &Key, by: &Work, faults: &mut Vec<Fault>, wait: &mut Soonest) {
        let cx = &*self.cx;
        let Some(after) = self.observe(key) else {
            return;
        };
        let pool = &*after.pool;
        let new = status::status(&after, faults, &cx.config.pools, cx.clock.now());
        let Some(patch) = status::patch(pool, &new) else {
            self.remember(pool, |memory| memory.status_waits = None);
            return;
        };
        if !status::is_urgent(pool, &new) {
            let left = self.remember(pool, |memory| {
                let since = *memory.status_waits.get_or_insert_with(Instant::now);
                cx.config
                    .pools
                    .status_interval
                    .saturating_sub(since.elapsed())
            });
            if !left.is_zero() {
                wait.or(Some(left));
                return;
            }
        }
        self.remember(pool, |memory| memory.status_waits = None);
        match act::publish(cx, by, key, &patch).await {
            Ok(()) => self.announce(pool, &new),
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
