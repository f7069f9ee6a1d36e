//! Who is a member of which pool, and how each member is doing: what a pool's pass needs to know,
//! kept up to date with every row that changes, so that no pass walks the members.
//!
//! Members are those the pool controls, by UID; a sandbox that merely carries the pool's label was
//! planted and is left alone. A change costs time logarithmic in the pool's size, counts are kept as
//! counts, and members that need something are in sets ordered by when they need it. A plain data
//! structure: no lock, no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::ident::{Key, Revision, Text, Uid};
use crate::objects::{Make, Mode, NodeHealth, OwnerKind, PodRow, SandboxRow, Scheduled, Truth};

/// A pool by identity. The namespace is part of it: an owner reference is the word of whoever may write
/// the object, and one into another namespace means nothing.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PoolId {
    namespace: Text,
    uid: Uid,
}

impl PoolId {
    /// The pool of this name and UID.
    pub fn new(key: &Key, uid: Uid) -> Self {
        Self {
            namespace: key.namespace.clone(),
            uid,
        }
    }

    /// The pool that controls a sandbox.
    pub fn of_member(row: &SandboxRow) -> Option<Self> {
        let owner = row.head.owner.as_ref()?;
        (owner.kind == OwnerKind::Pool).then(|| Self::new(&row.head.key, owner.uid))
    }
}

/// How a member is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Its deletion has begun.
    Terminating,
    /// Its deletion is decided, and the pool's record says so.
    Retiring,
    /// Somebody changed its life after the pool made it: it would not outlive its claim, or would not
    /// run at all.
    Drifted,
    /// It ran to its end.
    Finished {
        /// When.
        since: Timestamp,
    },
    /// Its node is sick: whatever it says of itself, it may be out of reach.
    Stranded,
    /// It is Ready.
    Ready,
    /// Not Ready because no node has room; replacing it would not help.
    Unschedulable {
        /// Since when.
        since: Timestamp,
    },
    /// Not Ready, for whatever other reason.
    Starting {
        /// The last change for the worse or better. Time does not count from creation: a member that
        /// was Ready for days, got its node a moment ago, or whose node has just come back, has only
        /// begun to be unready.
        since: Timestamp,
        /// Whether it has a pod.
        has_pod: bool,
    },
}

impl Standing {
    /// The standing of a member in these circumstances.
    pub fn of(row: &SandboxRow, around: Around<'_>) -> Self {
        let pod = around.pod;
        if row.head.is_deleting() {
            return Self::Terminating;
        }
        if around.retiring {
            return Self::Retiring;
        }
        if has_drifted(row) {
            return Self::Drifted;
        }
        let conditions = &row.status.conditions;
        if let Some(finished) = conditions
            .get(agent_sandbox_crds::condition::FINISHED)
            .filter(|it| it.status == Truth::True)
        {
            return Self::Finished {
                since: finished.since,
            };
        }
        if around.health == NodeHealth::Sick {
            return Self::Stranded;
        }
        if row.is_ready() {
            return Self::Ready;
        }
        let scheduled = pod.and_then(|pod| pod.scheduled.as_ref());
        if let Some(scheduled) = scheduled
            && is_unschedulable(scheduled)
            && pod.is_some_and(|pod| !pod.head.is_deleting())
        {
            return Self::Unschedulable {
                since: scheduled.since,
            };
        }
        let ready_since = conditions
            .get(agent_sandbox_crds::condition::READY)
            .map(|it| it.since);
        let scheduled_since = scheduled
            .filter(|it| it.status == Truth::True)
            .map(|it| it.since);
        let since = [ready_since, scheduled_since, around.node_since]
            .into_iter()
            .flatten()
            .fold(row.head.created, Ord::max);
        Self::Starting {
            since,
            has_pod: pod.is_some(),
        }
    }
}

/// Whether somebody suspended a member or gave it a time to die.
fn has_drifted(row: &SandboxRow) -> bool {
    row.mode == Mode::Suspended || row.shutdown_time.is_some()
}

/// Whether the scheduler says that no node has room.
fn is_unschedulable(scheduled: &Scheduled) -> bool {
    scheduled.status == Truth::False && &*scheduled.reason == "Unschedulable"
}

/// What else a member's standing depends on.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Its pod.
    pub pod: Option<&'a PodRow>,
    /// The node it runs on.
    pub node: Option<&'a Text>,
    /// How well that node is.
    pub health: NodeHealth,
    /// Since when it is as Ready as it is.
    pub node_since: Option<Timestamp>,
    /// Whether the pool's record says that it is about to be deleted.
    pub retiring: bool,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub key: Key,
    /// Its revision.
    pub revision: Revision,
    /// What it was made from.
    pub make: Arc<Make>,
    /// How it is doing.
    pub standing: Standing,
    created: Timestamp,
    ready: bool,
    node: Option<Text>,
}

impl Member {
    /// Whether it counts towards the pool's Ready replicas.
    pub fn counts_as_ready(&self) -> bool {
        self.ready && !matches!(self.standing, Standing::Terminating | Standing::Retiring)
    }
}

/// Members in some order of time.
pub type Line = BTreeSet<(Timestamp, Uid)>;

/// Living members of one make, by age.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Those that are Ready.
    pub ready: Line,
    /// Those that are not.
    pub unready: Line,
}

/// The members of one pool.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    members: BTreeMap<Uid, Member>,
    groups: BTreeMap<Arc<Make>, Group>,
    drifted: Line,
    stranded: Line,
    finished: Line,
    unschedulable: Line,
    starting: Line,
    podless: Line,
    retiring: Line,
    terminating: usize,
    ready: usize,
}

impl Roll {
    /// How many members there are, terminating ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members stay.
    pub fn staying(&self) -> usize {
        self.members.len() - self.terminating - self.retiring.len()
    }

    /// How many of those say that they are Ready.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// A member.
    pub fn member(&self, uid: Uid) -> Option<&Member> {
        self.members.get(&uid)
    }

    /// Those that can serve or are on their way there, by make and age; none that drifted, is
    /// terminating, is about to be or is stranded.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<Make>, &Group)> {
        self.groups.iter()
    }

    /// Those that somebody changed, by age.
    pub fn drifted(&self) -> &Line {
        &self.drifted
    }

    /// Those on a sick node, by age.
    pub fn stranded(&self) -> &Line {
        &self.stranded
    }

    /// Those that ran to their end, by when.
    pub fn finished(&self) -> &Line {
        &self.finished
    }

    /// Those that no node has room for, by since when.
    pub fn unschedulable(&self) -> &Line {
        &self.unschedulable
    }

    /// Those that are not Ready for another reason, by since when.
    pub fn starting(&self) -> &Line {
        &self.starting
    }

    /// Those of them that have no pod, by age.
    pub fn podless(&self) -> &Line {
        &self.podless
    }

    /// Those that are about to be deleted, by age.
    pub fn retiring(&self) -> &Line {
        &self.retiring
    }

    fn insert(&mut self, uid: Uid, member: Member) {
        self.file(uid, &member, true);
        self.members.insert(uid, member);
    }

    fn remove(&mut self, uid: Uid) -> Option<Member> {
        let member = self.members.remove(&uid)?;
        self.file(uid, &member, false);
        Some(member)
    }

    /// Puts a member into the counts and sets it belongs to, or takes it out of them.
    fn file(&mut self, uid: Uid, member: &Member, comes: bool) {
        let born = (member.created, uid);
        let put = |line: &mut Line, entry| {
            if comes {
                line.insert(entry);
            } else {
                line.remove(&entry);
            }
        };
        let count = |number: &mut usize| {
            *number = if comes {
                *number + 1
            } else {
                number.saturating_sub(1)
            };
        };
        if member.counts_as_ready() {
            count(&mut self.ready);
        }
        let lives = match member.standing {
            Standing::Terminating => {
                count(&mut self.terminating);
                false
            }
            Standing::Retiring => {
                put(&mut self.retiring, born);
                false
            }
            Standing::Drifted => {
                put(&mut self.drifted, born);
                false
            }
            Standing::Stranded => {
                put(&mut self.stranded, born);
                false
            }
            Standing::Ready => true,
            Standing::Finished { since } => {
                put(&mut self.finished, (since, uid));
                true
            }
            Standing::Unschedulable { since } => {
                put(&mut self.unschedulable, (since, uid));
                true
            }
            Standing::Starting { since, has_pod } => {
                put(&mut self.starting, (since, uid));
                if !has_pod {
                    put(&mut self.podless, born);
                }
                true
            }
        };
        if !lives {
            return;
        }
        let group = self.groups.entry(member.make.clone()).or_default();
        match member.standing {
            Standing::Ready => put(&mut group.ready, born),
            _ => put(&mut group.unready, born),
        }
        if group.ready.is_empty() && group.unready.is_empty() {
            self.groups.remove(&member.make);
        }
    }
}

/// The rolls of all pools.
#[derive(Debug, Default)]
pub struct Rolls {
    pools: BTreeMap<Arc<PoolId>, Roll>,
    pool_of: BTreeMap<Uid, Arc<PoolId>>,
    on_node: BTreeMap<Text, BTreeSet<Key>>,
}

impl Rolls {
    /// The roll of a pool.
    pub fn of(&self, pool: &PoolId) -> Option<&Roll> {
        self.pools.get(pool)
    }

    /// Takes note of a sandbox as it is now; `true` when that matters to a pool.
    pub fn update(&mut self, row: &SandboxRow, around: Around<'_>) -> bool {
        let uid = row.head.uid;
        let Some(pool) = PoolId::of_member(row) else {
            return self.remove(uid);
        };
        let standing = Standing::of(row, around);
        let ready = row.is_ready();
        if self.pool_of.get(&uid).is_some_and(|known| **known == pool)
            && let Some(known) = self
                .pools
                .get_mut(&pool)
                .and_then(|roll| roll.members.get_mut(&uid))
            && known.standing == standing
            && known.ready == ready
            && known.node.as_ref() == around.node
            && *known.make == Make::of(row)
        {
            known.revision = row.head.revision;
            return false;
        }
        self.remove(uid);
        let pool = match self.pools.get_key_value(&pool) {
            Some((known, _)) => known.clone(),
            None => Arc::new(pool),
        };
        let roll = self.pools.entry(pool.clone()).or_default();
        let make = Make::of(row);
        let make = roll
            .groups
            .get_key_value(&make)
            .map_or_else(|| Arc::new(make), |(known, _)| known.clone());
        roll.insert(
            uid,
            Member {
                key: row.head.key.clone(),
                revision: row.head.revision,
                make,
                standing,
                created: row.head.created,
                ready,
                node: around.node.cloned(),
            },
        );
        self.pool_of.insert(uid, pool);
        if let Some(node) = around.node {
            let keys = self.on_node.entry(node.clone()).or_default();
            keys.insert(row.head.key.clone());
        }
        true
    }

    /// Forgets a sandbox; `true` when it was a member.
    pub fn remove(&mut self, sandbox: Uid) -> bool {
        let Some(pool) = self.pool_of.remove(&sandbox) else {
            return false;
        };
        let Some(roll) = self.pools.get_mut(&pool) else {
            return false;
        };
        let gone = roll.remove(sandbox);
        if roll.is_empty() {
            self.pools.remove(&pool);
        }
        let Some(member) = gone else {
            return false;
        };
        if let Some(node) = member.node
            && let Some(keys) = self.on_node.get_mut(&node)
        {
            keys.remove(&member.key);
            if keys.is_empty() {
                self.on_node.remove(&node);
            }
        }
        true
    }

    /// The members that run on a node.
    pub fn on_node(&self, node: &str) -> Vec<Key> {
        let keys = self.on_node.get(node);
        keys.into_iter().flatten().cloned().collect()
    }
}
