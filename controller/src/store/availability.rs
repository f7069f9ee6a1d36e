//! Which members of which pool can be handed to a claim, best first.
//!
//! Derived from the sandbox rows and nothing else, so a member can be neither lost nor forgotten. Per
//! pool, members fall into classes (Ready on a healthy node, Ready elsewhere, not Ready but with
//! addresses); within a class the node holding the most members goes first, so that claims spread,
//! and on a node the oldest member. A pick reserves its member for one claim until the claim lets go
//! or the binding shows up in the rows. All operations are logarithmic in the pool's size.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::ident::{Key, Text, Uid};
use crate::objects::{Mode, OwnerKind, SandboxRow};

/// How good a member is to hand out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Ready, on a node that is fine.
    Ready,
    /// Ready, on a node that is cordoned, failing or about to go.
    ReadyElsewhere,
    /// Not Ready yet, with addresses: a fallback.
    Starting,
    /// Without addresses: worth waiting for, not worth handing out.
    Waiting,
}

const CLASSES: usize = 3;

impl Class {
    fn index(self) -> Option<usize> {
        match self {
            Self::Ready => Some(0),
            Self::ReadyElsewhere => Some(1),
            Self::Starting => Some(2),
            Self::Waiting => None,
        }
    }

    /// The class of a sandbox, `None` when it must never be handed out: not a pool's, being deleted,
    /// run to its end, suspended, or with a time to die that the claim knows nothing about.
    pub fn of(row: &SandboxRow, node_is_healthy: bool) -> Option<Self> {
        let owned_by_pool = row
            .head
            .owner
            .as_ref()
            .is_some_and(|owner| owner.kind == OwnerKind::Pool);
        if !owned_by_pool
            || row.head.is_deleting()
            || row.mode == Mode::Suspended
            || row.shutdown_time.is_some()
            || row.is_finished()
        {
            return None;
        }
        if row.status.pod_ips.is_empty() {
            return Some(Self::Waiting);
        }
        Some(match (row.is_ready(), node_is_healthy) {
            (true, true) => Self::Ready,
            (true, false) => Self::ReadyElsewhere,
            (false, _) => Self::Starting,
        })
    }
}

/// A place in the order of one node.
type Turn = (Timestamp, Key, Uid);

/// The members of one class of one pool.
#[derive(Debug, Default)]
struct Shelf {
    nodes: BTreeMap<Option<Text>, BTreeSet<Turn>>,
    /// Nodes with a name first, then by falling number of members, then by oldest member.
    order: BTreeSet<Rank>,
}

/// A node's place in the order of its shelf.
type Rank = (bool, Reverse<usize>, Turn, Option<Text>);

fn rank(node: Option<&Text>, turns: &BTreeSet<Turn>) -> Option<Rank> {
    let first = turns.first()?.clone();
    Some((node.is_none(), Reverse(turns.len()), first, node.cloned()))
}

impl Shelf {
    fn edit(&mut self, node: Option<&Text>, edit: impl FnOnce(&mut BTreeSet<Turn>)) {
        let node = node.cloned();
        let turns = self.nodes.entry(node.clone()).or_default();
        if let Some(rank) = rank(node.as_ref(), turns) {
            self.order.remove(&rank);
        }
        edit(turns);
        match rank(node.as_ref(), turns) {
            Some(rank) => {
                self.order.insert(rank);
            }
            None => {
                self.nodes.remove(&node);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Turn> {
        self.order
            .iter()
            .filter_map(|(_, _, _, node)| self.nodes.get(node))
            .flatten()
    }
}

/// Where a member currently is.
#[derive(Clone, Debug)]
struct Place {
    key: Key,
    pool: Uid,
    class: Class,
    node: Option<Text>,
    created: Timestamp,
    reserved_for: Option<Uid>,
}

#[derive(Debug, Default)]
struct Pool {
    shelves: [Shelf; CLASSES],
    waiting: BTreeSet<Key>,
}

/// The index over all pools.
#[derive(Debug, Default)]
pub struct Availability {
    pools: BTreeMap<Uid, Pool>,
    members: BTreeMap<Uid, Place>,
    reservations: BTreeMap<Uid, Uid>,
}

/// A member reserved for a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pick {
    /// The sandbox.
    pub key: Key,
    /// Its UID.
    pub uid: Uid,
}

impl Availability {
    /// Takes note of a row as it is now; `true` when the sandbox can newly be handed out.
    pub fn update(&mut self, row: &SandboxRow, node_is_healthy: bool) -> bool {
        let class = Class::of(row, node_is_healthy);
        let pool = row.head.owner.as_ref().map(|owner| owner.uid);
        let (Some(class), Some(pool)) = (class, pool) else {
            self.remove(row.head.uid);
            return false;
        };
        let place = Place {
            key: row.head.key.clone(),
            pool,
            class,
            node: row.status.node_name.clone(),
            created: row.head.created,
            reserved_for: self
                .members
                .get(&row.head.uid)
                .and_then(|old| old.reserved_for),
        };
        let was_available = self
            .members
            .get(&row.head.uid)
            .is_some_and(|old| old.class.index().is_some());
        self.unshelve(row.head.uid);
        let available = place.class.index().is_some() && place.reserved_for.is_none();
        self.members.insert(row.head.uid, place);
        self.shelve(row.head.uid);
        available && !was_available
    }

    /// Forgets a sandbox, and the reservation on it.
    pub fn remove(&mut self, sandbox: Uid) {
        self.unshelve(sandbox);
        if let Some(place) = self.members.remove(&sandbox)
            && let Some(claim) = place.reserved_for
        {
            self.reservations.remove(&claim);
        }
    }

    /// The member already reserved for `claim`.
    pub fn reserved_for(&self, claim: Uid) -> Option<Pick> {
        let sandbox = *self.reservations.get(&claim)?;
        let place = self.members.get(&sandbox)?;
        Some(Pick {
            key: place.key.clone(),
            uid: sandbox,
        })
    }

    /// Reserves the best member of `pool` that satisfies `eligible` for `claim`.
    pub fn pick(
        &mut self,
        pool: Uid,
        claim: Uid,
        mut eligible: impl FnMut(&Key) -> bool,
    ) -> Option<Pick> {
        let (_, key, uid) = self
            .pools
            .get(&pool)?
            .shelves
            .iter()
            .flat_map(Shelf::iter)
            .find(|(_, key, _)| eligible(key))?
            .clone();
        self.reserve(uid, claim);
        Some(Pick { key, uid })
    }

    /// Ends the reservation of `claim`; its member becomes available again.
    pub fn release(&mut self, claim: Uid) {
        if let Some(sandbox) = self.reservations.remove(&claim) {
            if let Some(place) = self.members.get_mut(&sandbox) {
                place.reserved_for = None;
            }
            self.shelve(sandbox);
        }
    }

    /// Whether `pool` has members that may soon be handed out: without addresses yet, or reserved.
    pub fn has_waiting(&self, pool: Uid) -> bool {
        self.pools
            .get(&pool)
            .is_some_and(|pool| !pool.waiting.is_empty())
    }

    /// How many members of `pool` could be handed out right now.
    pub fn available(&self, pool: Uid) -> usize {
        self.pools.get(&pool).map_or(0, |pool| {
            pool.shelves
                .iter()
                .flat_map(|shelf| shelf.nodes.values())
                .map(BTreeSet::len)
                .sum()
        })
    }

    /// The members that run on a node.
    pub fn on_node(&self, node: &str) -> Vec<Key> {
        self.members
            .values()
            .filter(|place| place.node.as_deref() == Some(node))
            .map(|place| place.key.clone())
            .collect()
    }

    fn reserve(&mut self, sandbox: Uid, claim: Uid) {
        self.release(claim);
        self.unshelve(sandbox);
        if let Some(place) = self.members.get_mut(&sandbox) {
            place.reserved_for = Some(claim);
            self.reservations.insert(claim, sandbox);
        }
    }

    /// Takes a member off its shelf.
    fn unshelve(&mut self, sandbox: Uid) {
        let Some(place) = self.members.get(&sandbox) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&place.pool) else {
            return;
        };
        let turn = (place.created, place.key.clone(), sandbox);
        match place
            .class
            .index()
            .and_then(|index| pool.shelves.get_mut(index))
        {
            Some(row) => row.edit(place.node.as_ref(), |turns| {
                turns.remove(&turn);
            }),
            None => {
                pool.waiting.remove(&place.key);
            }
        }
        if pool.waiting.is_empty() && pool.shelves.iter().all(|shelf| shelf.nodes.is_empty()) {
            self.pools.remove(&place.pool);
        }
    }

    /// Puts a member on its shelf unless it is reserved.
    fn shelve(&mut self, sandbox: Uid) {
        let Some(place) = self.members.get(&sandbox) else {
            return;
        };
        if place.reserved_for.is_some() {
            return;
        }
        let pool = self.pools.entry(place.pool).or_default();
        let turn = (place.created, place.key.clone(), sandbox);
        match place
            .class
            .index()
            .and_then(|index| pool.shelves.get_mut(index))
        {
            Some(row) => row.edit(place.node.as_ref(), |turns| {
                turns.insert(turn);
            }),
            None => {
                pool.waiting.insert(place.key.clone());
            }
        }
    }
}
