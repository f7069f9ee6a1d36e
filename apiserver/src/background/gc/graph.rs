//! Who owns whom, kept up to date commit by commit.
//!
//! Synchronous and without side effects: every change returns the work it causes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ops::{FOREGROUND, ORPHAN};
use crate::registry::Snapshot;
use crate::store::{Event, EventKind, Key, Object, Owner, Revision, Uid};

/// Something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Whether the owners of an object still exist.
    Check(Uid),
    /// Whether a foreground deletion can go on.
    Foreground(Uid),
    /// Dependents have to forget an object.
    Orphan(Uid),
}

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Store name of its resource.
    pub resource: Arc<str>,
    /// Namespace and name.
    pub key: Key,
    /// The revision this is about.
    pub revision: Revision,
    /// Its owners.
    pub owners: Box<[Owner]>,
    /// Whether it is marked for deletion.
    pub deleting: bool,
    /// Whether it waits for its dependents.
    pub foreground: bool,
    /// Whether its dependents have to forget it.
    pub orphan: bool,
}

/// How the owners of an object stand: whether one keeps it, and which are on their way out or gone,
/// by position.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub solid: bool,
    pub waiting: Vec<usize>,
    pub absent: Vec<usize>,
}

/// All objects by UID, and the dependents of each owner.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Owners that were seen to go, as long as somebody refers to them.
    departed: HashSet<Uid>,
    /// Objects with an owner of a kind that nobody knows.
    undecided: HashSet<Uid>,
}

impl Graph {
    /// Takes a commit in and says what has to be looked at because of it.
    pub(super) fn observe(&mut self, resource: &Arc<str>, event: &Event) -> Vec<Work> {
        let Some(uid) = event.object.uid() else {
            return Vec::new();
        };
        match event.kind {
            EventKind::Added | EventKind::Modified => self.update(uid, resource, &event.object),
            EventKind::Deleted => self.remove(uid),
        }
    }

    fn update(&mut self, uid: Uid, resource: &Arc<str>, object: &Object) -> Vec<Work> {
        let node = Node {
            resource: resource.clone(),
            key: object.key().clone(),
            revision: object.revision(),
            owners: object.owners().into(),
            deleting: object.is_deleting(),
            foreground: object.has_finalizer(FOREGROUND),
            orphan: object.has_finalizer(ORPHAN),
        };
        let before = self.nodes.insert(uid, node.clone());
        let mut work = Vec::new();
        let owners_changed = before
            .as_ref()
            .is_none_or(|before| before.owners != node.owners);
        if owners_changed {
            for owner in before.iter().flat_map(|before| before.owners.iter()) {
                work.extend(self.unlink(owner, uid));
            }
            for owner in node.owners.iter().filter_map(|owner| owner.uid) {
                self.dependents.entry(owner).or_default().insert(uid);
            }
            if !node.owners.is_empty() {
                work.push(Work::Check(uid));
            }
        }
        let began = |is: fn(&Node) -> bool| is(&node) && !before.as_ref().is_some_and(is);
        if began(|node| node.deleting && node.foreground) {
            work.push(Work::Foreground(uid));
        }
        if began(|node| node.deleting && node.orphan) {
            work.push(Work::Orphan(uid));
        }
        work
    }

    fn remove(&mut self, uid: Uid) -> Vec<Work> {
        self.undecided.remove(&uid);
        let mut work = Vec::new();
        if let Some(node) = self.nodes.remove(&uid) {
            for owner in &node.owners {
                work.extend(self.unlink(owner, uid));
            }
        }
        if let Some(dependents) = self.dependents.get(&uid) {
            self.departed.insert(uid);
            work.extend(dependents.iter().copied().map(Work::Check));
        }
        work
    }

    /// Takes a dependent from an owner; an owner that waits for dependents has to look again.
    fn unlink(&mut self, owner: &Owner, dependent: Uid) -> Option<Work> {
        let owner = owner.uid?;
        let dependents = self.dependents.get_mut(&owner)?;
        dependents.remove(&dependent);
        if dependents.is_empty() {
            self.dependents.remove(&owner);
            self.departed.remove(&owner);
        }
        let waits = self
            .nodes
            .get(&owner)
            .is_some_and(|node| node.deleting && node.foreground);
        waits.then_some(Work::Foreground(owner))
    }

    pub(super) fn node(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    pub(super) fn has_dependents(&self, uid: Uid) -> bool {
        self.dependents.contains_key(&uid)
    }

    pub(super) fn dependents(&self, uid: Uid) -> Vec<Uid> {
        self.dependents
            .get(&uid)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Whether a dependent exists that blocks the deletion of its owner.
    pub(super) fn is_blocked(&self, uid: Uid) -> bool {
        self.dependents
            .get(&uid)
            .into_iter()
            .flatten()
            .any(|dependent| {
                self.nodes.get(dependent).is_some_and(|node| {
                    node.owners
                        .iter()
                        .any(|owner| owner.uid == Some(uid) && owner.blocks)
                })
            })
    }

    /// How the owners of an object stand. An owner whose kind nobody knows keeps its dependents
    /// until the kind is known.
    pub(super) fn standing(&mut self, uid: Uid, node: &Node, snapshot: &Snapshot) -> Standing {
        let mut standing = Standing::default();
        let mut undecided = false;
        for (at, owner) in node.owners.iter().enumerate() {
            match self.stand(owner, node, snapshot) {
                Some(Stand::Solid) => standing.solid = true,
                Some(Stand::Waiting) => standing.waiting.push(at),
                Some(Stand::Absent) => standing.absent.push(at),
                None => {
                    undecided = true;
                    standing.solid = true;
                }
            }
        }
        if undecided {
            self.undecided.insert(uid);
        } else {
            self.undecided.remove(&uid);
        }
        standing
    }

    fn stand(&self, owner: &Owner, dependent: &Node, snapshot: &Snapshot) -> Option<Stand> {
        if owner.uid.is_some_and(|uid| self.departed.contains(&uid)) {
            return Some(Stand::Absent);
        }
        let descriptor = snapshot.kind(&owner.group, &owner.kind)?;
        let Some(node) = owner.uid.and_then(|uid| self.nodes.get(&uid)) else {
            return Some(Stand::Absent);
        };
        // A UID under another name, kind or namespace is a forgery or a mistake, not the owner.
        let is_it = *node.key.name == *owner.name
            && *node.resource == *descriptor.qualified()
            && (node.key.namespace.is_empty() || node.key.namespace == dependent.key.namespace);
        Some(if !is_it {
            Stand::Absent
        } else if node.deleting && node.foreground {
            Stand::Waiting
        } else {
            Stand::Solid
        })
    }

    /// Objects to check again because a kind may have become known.
    pub(super) fn take_undecided(&mut self) -> Vec<Work> {
        self.undecided.drain().map(Work::Check).collect()
    }
}

enum Stand {
    Solid,
    Waiting,
    Absent,
}
