//! Which members of which pool can be handed to a claim, best first.
//!
//! Derived from the rows of sandboxes, pods and nodes and nothing else, so a member can be neither
//! lost nor forgotten. Per pool, members are kept apart by what they were made from, because that is
//! what decides whether a claim may have them, and then fall into classes (Ready on a healthy node,
//! Ready elsewhere, not Ready but with addresses); within a class the node holding the most members
//! goes first, so that claims spread, and on a node the oldest member. A pick reserves its member for
//! one claim until the claim lets go or the binding shows up in the rows. All operations are
//! logarithmic in the pool's size, however many of its members may not be handed out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::ident::{Key, Text, Uid};
use crate::objects::{Make, Mode, NodeHealth, SandboxRow};
use crate::store::roll::PoolId;

/// How good a member is to hand out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Ready, on a node that is fine.
    Ready,
    /// Ready, on a node that is cordoned or about to go.
    ReadyElsewhere,
    /// Not Ready yet, with addresses: a fallback.
    Starting,
    /// Without a living pod or without addresses: worth waiting for, not worth handing out.
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
    /// run to its end, suspended, with a time to die that the claim knows nothing about, or on a node
    /// that may have lost it.
    ///
    /// `pod_lives` says that it has a pod that neither ended nor is going: the sandbox's own status
    /// may not have heard of that yet.
    pub fn of(row: &SandboxRow, pod_lives: bool, node: NodeHealth) -> Option<Self> {
        if PoolId::of_member(row).is_none()
            || row.head.is_deleting()
            || row.mode == Mode::Suspended
            || row.shutdown_time.is_some()
            || row.is_finished()
            || node == NodeHealth::Sick
        {
            return None;
        }
        if !pod_lives || row.status.pod_ips.is_empty() {
            return Some(Self::Waiting);
        }
        Some(match (row.is_ready(), node) {
            (true, NodeHealth::Fine) => Self::Ready,
            (true, _) => Self::ReadyElsewhere,
            (false, _) => Self::Starting,
        })
    }
}

/// A place in the order of one node.
type Turn = (Timestamp, Key, Uid);

/// The members of one class and make of one pool.
#[derive(Debug, Default)]
struct Shelf {
    nodes: BTreeMap<Option<Text>, BTreeSet<Turn>>,
    /// Nodes with a name first, then by falling number of members, then by oldest member.
    order: BTreeSet<Rank>,
    members: usize,
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
        self.members -= turns.len();
        edit(turns);
        self.members += turns.len();
        match rank(node.as_ref(), turns) {
            Some(rank) => {
                self.order.insert(rank);
            }
            None => {
                self.nodes.remove(&node);
            }
        }
    }
}

/// The members of one make, by class.
type Shelves = [Shelf; CLASSES];

/// Where a member currently is.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    key: Key,
    pool: Arc<PoolId>,
    make: Arc<Make>,
    class: Class,
    node: Option<Text>,
    created: Timestamp,
    reserved_for: Option<Uid>,
}

#[derive(Debug, Default)]
struct Pool {
    makes: BTreeMap<Arc<Make>, Shelves>,
    waiting: BTreeSet<Key>,
}

/// The index over all pools.
#[derive(Debug, Default)]
pub struct Availability {
    pools: BTreeMap<Arc<PoolId>, Pool>,
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
    pub fn update(&mut self, row: &SandboxRow, pod_lives: bool, node: NodeHealth) -> bool {
        let uid = row.head.uid;
        let class = Class::of(row, pod_lives, node);
        let pool = PoolId::of_member(row);
        let (Some(class), Some(pool)) = (class, pool) else {
            self.remove(uid);
            return false;
        };
        let known = self.members.get(&uid);
        let was_available = known.is_some_and(|old| old.class.index().is_some());
        let current = Make::of(row);
        let shelved = self.pools.get_key_value(&pool);
        let make = match known {
            Some(old) if *old.make == current => old.make.clone(),
            _ => shelved
                .and_then(|(_, pool)| pool.makes.get_key_value(&current))
                .map_or_else(|| Arc::new(current), |(make, _)| make.clone()),
        };
        let pool = shelved.map_or_else(|| Arc::new(pool), |(pool, _)| pool.clone());
        let place = Place {
            key: row.head.key.clone(),
            pool,
            make,
            class,
            node: row.status.node_name.clone(),
            created: row.head.created,
            reserved_for: known.and_then(|old| old.reserved_for),
        };
        if known == Some(&place) {
            return false;
        }
        self.unshelve(uid);
        let available = place.class.index().is_some() && place.reserved_for.is_none();
        self.members.insert(uid, place);
        self.shelve(uid);
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

    /// The pool of the member reserved for `claim`.
    pub fn pool_held(&self, claim: Uid) -> Option<&PoolId> {
        let place = self.members.get(self.reservations.get(&claim)?)?;
        Some(&place.pool)
    }

    /// Reserves the best member of `pool` whose make satisfies `eligible` for `claim`: the one it has
    /// reserved already, if that still can be handed out.
    pub fn pick(
        &mut self,
        pool: &PoolId,
        claim: Uid,
        mut eligible: impl FnMut(&Make) -> bool,
    ) -> Option<Pick> {
        if let Some(held) = self.reserved_for(claim) {
            let fits = self.members.get(&held.uid).is_some_and(|place| {
                *place.pool == *pool && place.class.index().is_some() && eligible(&place.make)
            });
            if fits {
                return Some(held);
            }
            self.release(claim);
        }
        let pool = self.pools.get(pool)?;
        let shelves: Vec<&Shelves> = pool
            .makes
            .iter()
            .filter(|(make, _)| eligible(make))
            .map(|(_, shelves)| shelves)
            .collect();
        let (_, _, (_, key, uid), _) = (0..CLASSES).find_map(|class| {
            let firsts = shelves
                .iter()
                .filter_map(|shelves| shelves.get(class)?.order.first());
            firsts.min().cloned()
        })?;
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

    /// Whether `pool` has members that may soon be handed out. A reserved one is not among them: it is
    /// as good as gone, and waiting for a claim to lose its race would be waiting for next to nothing.
    pub fn has_waiting(&self, pool: &PoolId) -> bool {
        self.pools
            .get(pool)
            .is_some_and(|pool| !pool.waiting.is_empty())
    }

    /// How many members of `pool` could be handed out right now.
    pub fn available(&self, pool: &PoolId) -> usize {
        self.pools.get(pool).map_or(0, |pool| {
            let shelves = pool.makes.values().flatten();
            shelves.map(|shelf| shelf.members).sum()
        })
    }

    fn reserve(&mut self, sandbox: Uid, claim: Uid) {
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
        match place.class.index() {
            Some(class) => {
                let shelves = pool.makes.get_mut(&place.make);
                if let Some(shelf) = shelves.and_then(|shelves| shelves.get_mut(class)) {
                    shelf.edit(place.node.as_ref(), |turns| {
                        turns.remove(&turn);
                    });
                }
                let is_empty = |shelves: &Shelves| shelves.iter().all(|shelf| shelf.members == 0);
                if pool.makes.get(&place.make).is_some_and(is_empty) {
                    pool.makes.remove(&place.make);
                }
            }
            None => {
                pool.waiting.remove(&place.key);
            }
        }
        if pool.waiting.is_empty() && pool.makes.is_empty() {
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
        let pool = self.pools.entry(place.pool.clone()).or_default();
        let turn = (place.created, place.key.clone(), sandbox);
        match place.class.index() {
            Some(class) => {
                let shelves = pool.makes.entry(place.make.clone()).or_default();
                if let Some(shelf) = shelves.get_mut(class) {
                    shelf.edit(place.node.as_ref(), |turns| {
                        turns.insert(turn);
                    });
                }
            }
            None => {
                pool.waiting.insert(place.key.clone());
            }
        }
    }
}
