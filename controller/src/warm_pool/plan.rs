//! How many members to create and which to delete, as a plain function of what was observed.
//!
//! Members are those the pool controls, by UID; a sandbox that merely carries the pool's label was
//! planted and is left alone. Terminating members count against the size, so a pool never holds more
//! than it should, except for a bounded surge while members of an older template are replaced: the
//! new ones are ready before the old ones go.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::staleness::has_drifted;
use crate::config::PoolSettings;
use crate::ident::{Key, Revision, Uid};
use crate::objects::{PodRow, PoolRow, SandboxRow, Scheduled, TemplateRow, Truth, UpdateStrategy};
use crate::sandbox::plan::Policy;

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The pool.
    pub pool: Arc<PoolRow>,
    /// Its template, if it exists.
    pub template: Option<Arc<TemplateRow>>,
    /// The template's network policy.
    pub policy: Policy,
    /// The sandboxes it controls.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// The sandbox.
    pub row: Arc<SandboxRow>,
    /// Its pod.
    pub pod: Option<Arc<PodRow>>,
    /// Whether it differs from what the template describes today.
    pub stale: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// How many members to create.
    pub create: usize,
    /// Which members to delete, in this order.
    pub delete: Vec<Doomed>,
    /// How many members the pool has, terminating ones and those about to be deleted included.
    pub total: usize,
    /// How many it should have.
    pub desired: usize,
    /// When to look again, should no event come.
    pub recheck: Option<Duration>,
}

/// A member to delete, provided it still is as it was seen: one that was claimed a moment ago is not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Doomed {
    /// Its name.
    pub key: Key,
    /// Its UID.
    pub uid: Uid,
    /// Its revision.
    pub revision: Revision,
    /// Why.
    pub why: Why,
}

/// Why a member is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// The pool has too many.
    Excess,
    /// It is of an older template.
    Stale,
    /// It was not ready for too long.
    Stuck,
    /// It ran to its end.
    Finished,
    /// Somebody suspended it or gave it a time to die.
    Drifted,
}

/// What a member is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Worth {
    Terminating,
    Doomed(Why),
    Active {
        ready: bool,
    },
    /// Not Ready because no node has room; replacing it would not help.
    Unschedulable,
}

/// The size a pool should have.
pub fn desired(pool: &PoolRow, settings: &PoolSettings) -> usize {
    usize::try_from(pool.replicas.min(settings.replica_cap)).unwrap_or(0)
}

/// How many members more than desired a pool may have while it replaces stale ones, and how many
/// unready ones it replaces at once.
fn surge(desired: usize) -> usize {
    desired.div_ceil(4).max(1)
}

/// Decides what to do.
pub fn plan(observed: &Observed, settings: &PoolSettings, now: Timestamp) -> Plan {
    let desired = desired(&observed.pool, settings);
    let mut recheck = Recheck::default();
    let judged: Vec<(&Member, Worth)> = observed
        .members
        .iter()
        .map(|member| (member, worth(member, settings, now, &mut recheck)))
        .collect();
    let total = judged.len();
    let mut delete: Vec<(Why, &Member)> = judged
        .iter()
        .filter_map(|(member, worth)| match worth {
            Worth::Doomed(why) => Some((*why, *member)),
            _ => None,
        })
        .collect();
    let active: Vec<(&Member, bool)> = judged
        .iter()
        .filter_map(|(member, worth)| match worth {
            Worth::Active { ready } => Some((*member, *ready)),
            Worth::Unschedulable => Some((*member, false)),
            _ => None,
        })
        .collect();
    if judged
        .iter()
        .any(|(_, worth)| *worth == Worth::Unschedulable)
    {
        recheck.within(settings.unschedulable_recheck);
    }

    let replaces =
        observed.pool.strategy == UpdateStrategy::Recreate && observed.template.is_some();
    let (stale, fresh): (Vec<_>, Vec<_>) = active
        .iter()
        .copied()
        .partition(|(member, _)| replaces && member.stale);
    let surge = if stale.is_empty() { 0 } else { surge(desired) };
    let ready = active.iter().filter(|(_, ready)| *ready).count();
    delete.extend(outdated(&stale, ready.saturating_sub(desired), surge));
    let doomed_now = |member: &Member| {
        delete
            .iter()
            .any(|(_, it)| it.row.head.uid == member.row.head.uid)
    };
    let rest: Vec<(&Member, bool)> = active
        .iter()
        .copied()
        .filter(|(member, _)| !doomed_now(member))
        .collect();
    let excess = excess(rest, desired + surge);
    delete.extend(excess);

    let create = if observed.template.is_none() {
        0
    } else {
        // Members about to be deleted still take up their places; those are filled when they are gone.
        let missing = desired.saturating_sub(fresh.len());
        let room = (desired + surge).saturating_sub(total);
        missing.min(room)
    };
    delete.truncate(settings.max_batch);
    Plan {
        create,
        delete: delete
            .into_iter()
            .map(|(why, member)| Doomed {
                key: member.row.head.key.clone(),
                uid: member.row.head.uid,
                revision: member.row.head.revision,
                why,
            })
            .collect(),
        total,
        desired,
        recheck: recheck.0,
    }
}

/// The stale members that can go now: unready ones a few at a time, ready ones as far as enough ready
/// members remain.
fn outdated<'a>(
    stale: &[(&'a Member, bool)],
    spare_ready: usize,
    surge: usize,
) -> Vec<(Why, &'a Member)> {
    let (mut ready, unready): (Vec<_>, Vec<_>) =
        stale.iter().copied().partition(|(_, ready)| *ready);
    ready.sort_by_key(|(member, _)| age_order(member));
    unready
        .into_iter()
        .take(surge)
        .chain(ready.into_iter().take(spare_ready))
        .map(|(member, _)| (Why::Stale, member))
        .collect()
}

/// The members beyond `limit`: stale ones first, then unready ones, then the newest.
fn excess(mut active: Vec<(&Member, bool)>, limit: usize) -> Vec<(Why, &Member)> {
    let over = active.len().saturating_sub(limit);
    active.sort_by_key(|(member, ready)| {
        (!member.stale, *ready, std::cmp::Reverse(age_order(member)))
    });
    active
        .into_iter()
        .take(over)
        .map(|(member, _)| (Why::Excess, member))
        .collect()
}

fn age_order(member: &Member) -> (Timestamp, Key) {
    (member.row.head.created, member.row.head.key.clone())
}

fn worth(member: &Member, settings: &PoolSettings, now: Timestamp, recheck: &mut Recheck) -> Worth {
    let row = &*member.row;
    if row.head.is_deleting() {
        return Worth::Terminating;
    }
    if has_drifted(row) {
        return Worth::Doomed(Why::Drifted);
    }
    let conditions = &row.status.conditions;
    if let Some(finished) = conditions
        .get(agent_sandbox_crds::condition::FINISHED)
        .filter(|it| it.status == Truth::True)
    {
        return if recheck.is_over(finished.since, settings.finished_grace, now) {
            Worth::Doomed(Why::Finished)
        } else {
            Worth::Active { ready: false }
        };
    }
    if row.is_ready() {
        return Worth::Active { ready: true };
    }
    let scheduled = member.pod.as_ref().and_then(|pod| pod.scheduled.as_ref());
    if member
        .pod
        .as_ref()
        .is_some_and(|pod| !pod.head.is_deleting())
        && scheduled.is_some_and(is_unschedulable)
    {
        return Worth::Unschedulable;
    }
    // Time counts from the last change for the worse or better, not from creation: a member that was
    // ready for days, or got its node a moment ago, has just begun to be unready.
    let ready_since = conditions
        .get(agent_sandbox_crds::condition::READY)
        .map(|it| it.since);
    let scheduled_since = scheduled
        .filter(|it| it.status == Truth::True)
        .map(|it| it.since);
    let since = [Some(row.head.created), ready_since, scheduled_since]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(row.head.created);
    if recheck.is_over(since, settings.readiness_grace, now) {
        Worth::Doomed(Why::Stuck)
    } else {
        Worth::Active { ready: false }
    }
}

/// Whether the scheduler says that no node has room.
pub fn is_unschedulable(scheduled: &Scheduled) -> bool {
    scheduled.status == Truth::False && &*scheduled.reason == "Unschedulable"
}

/// The earliest time at which something changes by itself.
#[derive(Debug, Default)]
struct Recheck(Option<Duration>);

impl Recheck {
    fn within(&mut self, delay: Duration) {
        self.0 = Some(self.0.map_or(delay, |known| known.min(delay)));
    }

    /// Whether `grace` has passed since `since`; if not, remembers when it will have.
    fn is_over(&mut self, since: Timestamp, grace: Duration, now: Timestamp) -> bool {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let left = grace.saturating_sub(now.duration_since(since));
        if left.is_positive() {
            // Times of conditions are whole seconds; the extra one keeps the next look from being
            // a moment early.
            self.within(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1));
            return false;
        }
        true
    }
}
