//! How many members to create and which to delete, as a plain function of what was observed.
//!
//! Terminating members count against the size, so a pool never holds more than it should, except for
//! a bounded surge while members of an older template, or on sick nodes, are replaced: the new ones
//! are Ready before the old ones go.
//!
//! The plan looks at counts, and one by one only at members that need something. While claims flow
//! through a pool that is otherwise well, it looks at none, however large the pool is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::PoolSettings;
use crate::ident::{Key, Revision, Uid};
use crate::objects::{Make, PoolRow, TemplateRow, UpdateStrategy};
use crate::sandbox::policy::Policy;
use crate::store::{Line, Roll};

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The pool.
    pub pool: &'a PoolRow,
    /// Its template, if it exists.
    pub template: Option<&'a TemplateRow>,
    /// The template's network policy.
    pub policy: &'a Policy,
    /// The sandboxes it controls.
    pub roll: &'a Roll,
    /// The makes that differ from what the template describes today.
    pub stale: &'a BTreeSet<Arc<Make>>,
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
    /// How many members were looked at one by one, which is what a pass costs.
    pub looked_at: usize,
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
    /// It is on a sick node, and another one is Ready in its place.
    Stranded,
    /// It was not ready for too long.
    Stuck,
    /// It ran to its end.
    Finished,
    /// Somebody suspended it or gave it a time to die.
    Drifted,
    /// An earlier pass decided so, or another replica did.
    Retiring,
}

/// The size a pool should have.
pub fn desired(pool: &PoolRow, settings: &PoolSettings) -> usize {
    usize::try_from(pool.replicas.min(settings.replica_cap)).unwrap_or(0)
}

/// How many members more than desired a pool may have while it replaces some, and how many unready
/// ones it replaces at once. A pool that should be empty replaces nothing.
fn surge(desired: usize) -> usize {
    desired.div_ceil(4)
}

/// Decides what to do.
///
/// Members on sick nodes are treated with care, because a node that is cut off may come back with all
/// that runs on it, and because a fault of the network makes many nodes look sick at once. They are
/// never handed out and no longer count towards the size, so replacements are made, but only within
/// the surge; and one of them is deleted only when a replacement is Ready in its place. One lost node
/// is thereby replaced as fast as its replacements start. A whole cluster that drops out for a while
/// costs a pool at most a quarter more members, which start nowhere and go again when it is back, and
/// none of those it had: how long it lasts makes no difference, so no time is set for it.
pub fn plan(observed: &Observed<'_>, settings: &PoolSettings, now: Timestamp) -> Plan {
    let roll = observed.roll;
    let desired = desired(observed.pool, settings);
    let mut recheck = Recheck::default();
    let mut doomed = Doom::default();
    doomed.add(Why::Retiring, roll.retiring().iter());
    doomed.add(Why::Drifted, roll.drifted().iter());
    let ended = recheck.over(roll.finished(), settings.finished_grace, now);
    doomed.add(Why::Finished, ended.iter());
    let stuck = recheck.over(roll.starting(), settings.readiness_grace, now);
    doomed.add(Why::Stuck, stuck.iter());
    if !roll.unschedulable().is_empty() {
        recheck.within(settings.unschedulable_recheck);
    }

    let replaces =
        observed.pool.strategy == UpdateStrategy::Recreate && observed.template.is_some();
    let is_stale = |make: &Make| observed.stale.contains(make);
    let census = Census::take(roll, &doomed, |make| replaces && is_stale(make));
    let stranded = roll.stranded().len();
    let surge = if census.stale > 0 || stranded > 0 {
        surge(desired)
    } else {
        0
    };
    // Every one that goes leaves at least the desired number, counting those that may come back.
    let spared = (census.ready + stranded).saturating_sub(desired);
    doomed.add(
        Why::Stranded,
        roll.stranded().iter().take(spared.min(settings.max_batch)),
    );
    if census.stale > 0 {
        let makes = |unready: bool| {
            let stale = roll.groups().filter(|(make, _)| is_stale(make));
            stale.map(move |(_, group)| {
                if unready {
                    &group.unready
                } else {
                    &group.ready
                }
            })
        };
        let spare = census.ready.saturating_sub(desired).min(settings.max_batch);
        doomed.add_oldest(Why::Stale, makes(true), surge.min(settings.max_batch));
        doomed.add_oldest(Why::Stale, makes(false), spare);
    }
    let over = roll
        .staying()
        .saturating_sub(doomed.staying(roll) + desired + surge)
        .min(settings.max_batch);
    doomed.add_excess(roll, over, is_stale);

    let create = if observed.template.is_none() {
        0
    } else {
        // Members about to be deleted still take up their places; those are filled when they are gone.
        let missing = desired.saturating_sub(census.fresh);
        let room = (desired + surge).saturating_sub(roll.len());
        missing.min(room)
    };
    let looked_at = doomed.looked_at + recheck.looked_at;
    Plan {
        create,
        delete: doomed.list(roll, settings.max_batch),
        total: roll.len(),
        desired,
        recheck: recheck.soonest,
        looked_at,
    }
}

/// How many members there are of what kind, terminating, drifted and stranded ones aside.
#[derive(Debug, Default)]
struct Census {
    /// Of the current template, doomed ones aside.
    fresh: usize,
    /// Of an older one.
    stale: usize,
    /// Ready, of whichever.
    ready: usize,
}

impl Census {
    fn take(roll: &Roll, doomed: &Doom, is_replaced: impl Fn(&Make) -> bool) -> Self {
        let mut census = Self::default();
        for (make, group) in roll.groups() {
            let members = group.ready.len() + group.unready.len();
            census.ready += group.ready.len();
            if is_replaced(make) {
                census.stale += members;
            } else {
                census.fresh += members;
            }
        }
        // Those that are stuck or ran to their end are still in their groups, as unready ones.
        for (why, uid) in &doomed.order {
            let Some(member) = roll.member(*uid) else {
                continue;
            };
            if matches!(why, Why::Finished | Why::Stuck) {
                let members = if is_replaced(&member.make) {
                    &mut census.stale
                } else {
                    &mut census.fresh
                };
                *members = members.saturating_sub(1);
            }
        }
        census
    }
}

/// The members to delete, each once, in the order in which they were found.
#[derive(Debug, Default)]
struct Doom {
    order: Vec<(Why, Uid)>,
    uids: BTreeSet<Uid>,
    looked_at: usize,
}

impl Doom {
    fn add<'a>(&mut self, why: Why, members: impl Iterator<Item = &'a (Timestamp, Uid)>) {
        for (_, uid) in members {
            self.looked_at += 1;
            if self.uids.insert(*uid) {
                self.order.push((why, *uid));
            }
        }
    }

    /// The `count` oldest of several lines that are not among them yet.
    fn add_oldest<'a>(&mut self, why: Why, lines: impl Iterator<Item = &'a Line>, count: usize) {
        let mut found: Vec<(Timestamp, Uid)> = Vec::new();
        for line in lines {
            let others = line.iter().filter(|(_, uid)| !self.uids.contains(uid));
            found.extend(others.take(count));
        }
        self.looked_at += found.len();
        found.sort_unstable();
        found.truncate(count);
        self.add(why, found.iter());
    }

    /// `count` members more than there should be: those on sick nodes first, then stale ones, of these
    /// and of the fresh ones first those that are not Ready, and of those the newest.
    fn add_excess(&mut self, roll: &Roll, count: usize, is_stale: impl Fn(&Make) -> bool) {
        let mut left = count;
        let newest = |lines: &mut dyn Iterator<Item = &Line>, doom: &mut Self, left: usize| {
            let mut found: Vec<(Timestamp, Uid)> = Vec::new();
            for line in lines {
                let others = line
                    .iter()
                    .rev()
                    .filter(|(_, uid)| !doom.uids.contains(uid));
                found.extend(others.take(left));
            }
            doom.looked_at += found.len();
            found.sort_unstable_by(|one, other| other.cmp(one));
            found.truncate(left);
            doom.add(Why::Excess, found.iter());
            left - found.len()
        };
        if left > 0 {
            left = newest(&mut std::iter::once(roll.stranded()), self, left);
        }
        for (stale, ready) in [(true, false), (true, true), (false, false), (false, true)] {
            if left == 0 {
                return;
            }
            let mut lines = roll
                .groups()
                .filter(|(make, _)| is_stale(make) == stale)
                .map(|(_, group)| if ready { &group.ready } else { &group.unready });
            left = newest(&mut lines, self, left);
        }
    }

    /// How many of them still count as staying.
    fn staying(&self, roll: &Roll) -> usize {
        self.uids.len() - roll.retiring().len()
    }

    fn list(self, roll: &Roll, most: usize) -> Vec<Doomed> {
        let members = self.order.into_iter().take(most);
        members
            .filter_map(|(why, uid)| {
                let member = roll.member(uid)?;
                Some(Doomed {
                    key: member.key.clone(),
                    uid,
                    revision: member.revision,
                    why,
                })
            })
            .collect()
    }
}

/// The earliest time at which something changes by itself.
#[derive(Debug, Default)]
struct Recheck {
    soonest: Option<Duration>,
    looked_at: usize,
}

impl Recheck {
    fn within(&mut self, delay: Duration) {
        self.soonest = Some(self.soonest.map_or(delay, |known| known.min(delay)));
    }

    /// Those of a line, ordered by since when, for whom `grace` has passed; for the next one it is
    /// remembered when it will have.
    fn over(&mut self, line: &Line, grace: Duration, now: Timestamp) -> Vec<(Timestamp, Uid)> {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let mut over = Vec::new();
        for (since, uid) in line {
            self.looked_at += 1;
            let left = grace.saturating_sub(now.duration_since(*since));
            if left.is_positive() {
                // Times of conditions are whole seconds; the extra one keeps the next look from being
                // a moment early.
                self.within(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1));
                break;
            }
            over.push((*since, *uid));
        }
        over
    }
}
