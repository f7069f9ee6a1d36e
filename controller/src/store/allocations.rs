//! Which members of pools are spoken for: given to a claim, or about to be deleted.
//!
//! Derived from the pools' records and the sandboxes' rows alone. A member that a record names is
//! *held* until its own row tells how that ended: the claim is its owner now, or it is gone or somebody
//! else's. Records and sandboxes are watched apart, so a record may name a sandbox that is not known
//! here yet, and may have dropped one whose end has not arrived yet; neither is taken for free. A plain
//! data structure: no lock, no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::ident::{Key, Revision, Uid};
use crate::objects::{Allocation, AllocationRecord, Named, SandboxRow};
use crate::store::PoolId;

/// What a member is held for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// It belongs to this claim.
    Claim(Key, Uid),
    /// It is about to be deleted.
    Retirement,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It has not.
    Open,
    /// The claim owns the sandbox, which said so at this revision.
    Settled(Revision),
    /// The sandbox is gone, or somebody else's.
    Void,
}

/// A member that a record names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// The pool.
    pub pool: Key,
    /// The pool's identity.
    pub pool_id: PoolId,
    /// The member.
    pub sandbox: Key,
    /// The member's UID.
    pub uid: Uid,
    /// What for.
    pub purpose: Purpose,
    /// How it ended.
    pub end: End,
    /// Whether the record still names it.
    listed: bool,
}

/// All holds.
#[derive(Debug, Default)]
pub struct Allocations {
    holds: BTreeMap<Uid, Hold>,
    by_claim: BTreeMap<Uid, BTreeSet<Uid>>,
    by_pool: BTreeMap<PoolId, BTreeSet<Uid>>,
    /// Up to which of a record's `settled` the sandboxes are known, from writes of our own.
    verified: BTreeMap<PoolId, Revision>,
}

/// A record before and after a change.
#[derive(Clone, Copy, Debug)]
pub struct Revised<'a> {
    /// Before; `None` when the pool is new.
    pub old: Option<&'a AllocationRecord>,
    /// After; `None` when the pool is gone.
    pub new: Option<&'a AllocationRecord>,
}

impl Allocations {
    /// Takes note of a pool's record, and names the members for which that makes a difference. `row_of`
    /// finds what is known of a sandbox.
    pub fn revise<'a>(
        &mut self,
        pool: &Key,
        id: &PoolId,
        revised: Revised<'_>,
        row_of: impl Fn(&Key) -> Option<&'a SandboxRow>,
    ) -> Vec<Key> {
        let mut touched = Vec::new();
        let entries = |record: Option<&AllocationRecord>| -> BTreeMap<Uid, (Key, Purpose)> {
            let allocations = record.into_iter().flat_map(|it| &it.allocations);
            let retiring = record.into_iter().flat_map(|it| &it.retiring);
            let allocations = allocations.map(|it| (&it.sandbox, purpose(pool, it)));
            let retiring = retiring.map(|it| (it, Purpose::Retirement));
            let mut entries = BTreeMap::new();
            for (sandbox, purpose) in allocations.chain(retiring) {
                // The first entry of a sandbox counts; a record of ours never has two.
                if sandbox.uid != Uid::FOREIGN {
                    let key = pool.sibling(sandbox.name.clone());
                    entries.entry(sandbox.uid).or_insert((key, purpose));
                }
            }
            entries
        };
        let new = entries(revised.new);
        for uid in entries(revised.old).into_keys() {
            if new.contains_key(&uid) {
                continue;
            }
            if let Some(hold) = self.holds.get_mut(&uid) {
                hold.listed = false;
                touched.push(hold.sandbox.clone());
            }
            self.drop_ended(uid);
        }
        for (uid, (sandbox, purpose)) in new {
            if let Some(hold) = self.holds.get_mut(&uid).filter(|it| it.purpose == purpose) {
                hold.listed = true;
                continue;
            }
            self.forget(uid);
            touched.push(sandbox.clone());
            let end = match row_of(&sandbox) {
                Some(row) if row.head.uid == uid => end_of(row, id, &purpose),
                // Not known here yet, or of an earlier sandbox of the name.
                _ => End::Open,
            };
            self.keep(Hold {
                pool: pool.clone(),
                pool_id: id.clone(),
                sandbox,
                uid,
                purpose,
                end,
                listed: true,
            });
        }
        if revised.new.is_none() {
            self.verified.remove(id);
        }
        touched
    }

    /// Takes note of a sandbox as it is now.
    pub fn observe(&mut self, row: &SandboxRow) {
        let uid = row.head.uid;
        if let Some(hold) = self.holds.get_mut(&uid) {
            let end = end_of(row, &hold.pool_id, &hold.purpose);
            // Once the claim owned it the entry has served, whatever comes afterwards.
            if end != End::Open && !matches!(hold.end, End::Settled(_)) {
                hold.end = end;
            }
        }
        self.drop_ended(uid);
    }

    /// Takes note that a sandbox is gone.
    pub fn observe_gone(&mut self, sandbox: Uid) {
        if let Some(hold) = self.holds.get_mut(&sandbox)
            && hold.end == End::Open
        {
            hold.end = End::Void;
        }
        self.drop_ended(sandbox);
    }

    /// What a member is held for, if it is.
    pub fn hold_on(&self, sandbox: Uid) -> Option<&Hold> {
        self.holds
            .get(&sandbox)
            .filter(|hold| hold.end == End::Open)
    }

    /// How the entry of a record for this sandbox stands; `None` when it means nothing.
    pub fn end_of(&self, sandbox: Uid) -> Option<End> {
        self.holds.get(&sandbox).map(|hold| hold.end)
    }

    /// The members held for a claim.
    pub fn of_claim(&self, claim: Uid) -> impl Iterator<Item = &Hold> {
        let members = self.by_claim.get(&claim).into_iter().flatten();
        members.filter_map(|uid| self.hold_on(*uid))
    }

    /// The members of a pool that are held.
    pub fn of_pool(&self, pool: &PoolId) -> impl Iterator<Item = &Hold> {
        let members = self.by_pool.get(pool).into_iter().flatten();
        members.filter_map(|uid| self.hold_on(*uid))
    }

    /// Whether everything that has left a pool's record up to `settled` is known here, when the
    /// sandboxes are known up to `seen`.
    pub fn is_verified(&self, pool: &PoolId, settled: Revision, seen: Revision) -> bool {
        let own = self.verified.get(pool).copied().unwrap_or_default();
        settled <= seen.max(own)
    }

    /// What has left the pool's record up to `settled` left it by a write of our own.
    pub fn verify(&mut self, pool: &PoolId, settled: Revision) {
        self.verified.insert(pool.clone(), settled);
    }

    fn keep(&mut self, hold: Hold) {
        if let Purpose::Claim(_, claim) = &hold.purpose {
            self.by_claim.entry(*claim).or_default().insert(hold.uid);
        }
        let members = self.by_pool.entry(hold.pool_id.clone()).or_default();
        members.insert(hold.uid);
        self.holds.insert(hold.uid, hold);
    }

    fn forget(&mut self, sandbox: Uid) {
        let Some(hold) = self.holds.remove(&sandbox) else {
            return;
        };
        if let Purpose::Claim(_, claim) = &hold.purpose {
            remove(&mut self.by_claim, claim, sandbox);
        }
        remove(&mut self.by_pool, &hold.pool_id, sandbox);
    }

    /// A hold that has ended is kept as long as the record names it, to tell what may leave the record.
    fn drop_ended(&mut self, sandbox: Uid) {
        let is_over = |hold: &Hold| hold.end != End::Open && !hold.listed;
        if self.holds.get(&sandbox).is_some_and(is_over) {
            self.forget(sandbox);
        }
    }
}

fn purpose(pool: &Key, allocation: &Allocation) -> Purpose {
    let Named { name, uid } = &allocation.claim;
    Purpose::Claim(pool.sibling(name.clone()), *uid)
}

fn end_of(row: &SandboxRow, pool: &PoolId, purpose: &Purpose) -> End {
    match purpose {
        Purpose::Claim(_, claim) if row.head.is_controlled_by(*claim) => {
            End::Settled(row.head.revision)
        }
        _ if PoolId::of_member(row).as_ref() == Some(pool) => End::Open,
        _ => End::Void,
    }
}

fn remove<I: Ord>(index: &mut BTreeMap<I, BTreeSet<Uid>>, key: &I, member: Uid) {
    if let Some(members) = index.get_mut(key) {
        members.remove(&member);
        if members.is_empty() {
            index.remove(key);
        }
    }
}
