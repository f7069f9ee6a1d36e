//! What a change means: which indexes move, which work it causes, which deadlines it sets. One file per
//! kind, in each a plain function of the row before and the row after.

mod children;
mod claim;
mod node;
mod policy;
mod pool;
mod sandbox;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use super::{Deadline, Owned, State, Table, Work};
use crate::ident::Key;
use crate::objects::{Head, Owner, OwnerKind, Row, SandboxRow};
use crate::queue::Priority;

/// A kind with a table in the store.
pub trait Stored: Row {
    /// Its table.
    fn table(state: &mut State) -> &mut Table<Self>;

    /// Whether `work` is the one that reconciles the object of this key, and so writes its status.
    fn is_reconciled_by(_key: &Key, _work: &Work) -> bool {
        false
    }

    /// Updates indexes and names the consequences of a change.
    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed);
}

/// The consequences of a change.
#[derive(Debug, Default)]
pub struct Routed {
    pub(super) work: Vec<Work>,
    pub(super) deadlines: Vec<Deadline>,
}

pub(super) fn route<R: Stored>(state: &mut State, new: Option<&R>, old: Option<&R>) -> Routed {
    let mut out = Routed::default();
    R::changed(state, new, old, &mut out);
    out
}

/// How urgent a sandbox is: a pool's unclaimed member can wait, anything else has somebody waiting.
pub(super) fn priority(row: &SandboxRow) -> Priority {
    match &row.head.owner {
        Some(owner) if owner.kind == OwnerKind::Pool => Priority::Low,
        _ => Priority::High,
    }
}

/// Keeps the index of owners. Pools are not in it: their members are on their rolls.
fn reindex_owner(index: &mut Owned, head: &Head, new: Option<&Head>, old: Option<&Head>) {
    let owner = |head: Option<&Head>| {
        let owner = head?.owner.as_ref()?;
        (owner.kind != OwnerKind::Pool).then_some(owner.uid)
    };
    index.shift(&head.key, owner(new), owner(old));
}

fn reindex<I: Ord>(
    index: &mut BTreeMap<I, BTreeSet<Key>>,
    key: &Key,
    new: Option<I>,
    old: Option<I>,
) {
    if new == old {
        return;
    }
    if let Some(old) = old
        && let Some(keys) = index.get_mut(&old)
    {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(&old);
        }
    }
    if let Some(new) = new {
        index.entry(new).or_default().insert(key.clone());
    }
}

fn distinct<'a>(owners: impl Iterator<Item = &'a Owner>) -> impl Iterator<Item = &'a Owner> {
    let mut seen: Vec<&'a Owner> = Vec::new();
    for owner in owners {
        if !seen.contains(&owner) {
            seen.push(owner);
        }
    }
    seen.into_iter()
}
