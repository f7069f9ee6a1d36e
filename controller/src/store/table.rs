//! One kind's rows as this process knows them: what the watch delivered, overlaid by the results of
//! our own successful writes.
//!
//! Both sources carry revisions, and for one resource revisions only grow, so merging is taking the
//! newer one: an event older than what is known is ignored, and a write's result is ignored when the
//! watch has already delivered everything up to its revision. That is the whole of what other
//! controllers need expectations, requeue loops and "wait for the cache" for. The table is a plain
//! data structure: no locks, no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ident::{Key, Revision, Uid};
use crate::objects::{Head, Row};

/// The rows of one kind.
#[derive(Debug)]
pub struct Table<R> {
    rows: BTreeMap<Key, Arc<R>>,
    /// Every event up to this revision has been delivered.
    progress: Revision,
    /// Objects known to be gone whose deletion the watch has not delivered yet.
    graves: BTreeMap<Key, Grave>,
    /// Set once the first list is complete.
    synced: bool,
}

/// An object that a delete of ours removed. Its late events, and those of earlier objects of its name,
/// must not bring anything back.
#[derive(Clone, Copy, Debug)]
struct Grave {
    uid: Uid,
    last_known: Revision,
}

impl Grave {
    fn covers(&self, head: &Head) -> bool {
        self.uid.is(head.uid) || head.revision <= self.last_known
    }
}

/// What a change did to the visible rows.
#[derive(Debug)]
pub enum Delta<R> {
    /// Nothing that matters: an echo of our own write, or old news.
    None,
    /// A row appeared or changed.
    Set {
        /// What was visible before.
        old: Option<Arc<R>>,
        /// What is visible now.
        new: Arc<R>,
    },
    /// A row is gone.
    Removed(Arc<R>),
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            progress: Revision::default(),
            graves: BTreeMap::new(),
            synced: false,
        }
    }
}

impl<R: Row> Table<R> {
    /// The row of a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<R>> {
        self.rows.get(key)
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.rows.values()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The revision up to which the watch has delivered everything.
    pub fn progress(&self) -> Revision {
        self.progress
    }

    /// Takes an added or modified event from the watch, or an item of a list.
    pub fn observe(&mut self, row: R, from: Seen) -> Delta<R> {
        let head = row.head();
        if from == Seen::InWatch {
            self.progress = self.progress.max(head.revision);
        }
        if self.is_buried(head) {
            return Delta::None;
        }
        self.merge(row)
    }

    /// Takes a deleted event from the watch: the object is gone, or no longer selected.
    pub fn observe_deleted(&mut self, key: &Key, uid: Uid, revision: Revision) -> Delta<R> {
        self.progress = self.progress.max(revision);
        if self.graves.get(key).is_some_and(|grave| grave.uid.is(uid)) {
            self.graves.remove(key);
        }
        match self.rows.get(key) {
            Some(row) if row.head().uid == uid => {
                self.rows.remove(key).map_or(Delta::None, Delta::Removed)
            }
            _ => Delta::None,
        }
    }

    /// Takes a bookmark.
    pub fn observe_progress(&mut self, revision: Revision) {
        self.progress = self.progress.max(revision);
    }

    /// Takes the object a successful write, or an uncached read, returned.
    pub fn assume(&mut self, row: R) -> Delta<R> {
        let head = row.head();
        if head.revision <= self.progress && self.synced {
            return Delta::None;
        }
        if self.is_buried(head) {
            return Delta::None;
        }
        self.merge(row)
    }

    /// Takes the news that a delete removed the object at once.
    pub fn assume_deleted(&mut self, key: &Key, uid: Uid) -> Delta<R> {
        match self.rows.get(key) {
            Some(row) if row.head().uid == uid => {
                let grave = Grave {
                    uid,
                    last_known: row.head().revision,
                };
                self.graves.insert(key.clone(), grave);
                self.rows.remove(key).map_or(Delta::None, Delta::Removed)
            }
            _ => Delta::None,
        }
    }

    /// Ends a list that is complete up to `revision` and contained exactly `listed`. Rows that were
    /// not in it are gone, unless we know them from a later write of our own.
    pub fn finish_list(&mut self, revision: Revision, listed: &BTreeSet<Key>) -> Vec<Arc<R>> {
        self.progress = self.progress.max(revision);
        self.synced = true;
        self.graves.retain(|key, _| listed.contains(key));
        let gone: Vec<Key> = self
            .rows
            .iter()
            .filter(|(key, row)| !listed.contains(*key) && row.head().revision <= revision)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter()
            .filter_map(|key| self.rows.remove(key))
            .collect()
    }

    fn is_buried(&self, head: &Head) -> bool {
        self.graves
            .get(&head.key)
            .is_some_and(|grave| grave.covers(head))
    }

    fn merge(&mut self, row: R) -> Delta<R> {
        let key = row.head().key.clone();
        if let Some(known) = self.rows.get(&key)
            && known.head().revision >= row.head().revision
        {
            return Delta::None;
        }
        let new = Arc::new(row);
        let old = self.rows.insert(key, new.clone());
        Delta::Set { old, new }
    }
}

/// Where an observed row comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// An item of a list, whose own revision says nothing about progress.
    InList,
    /// A watch event.
    InWatch,
}
