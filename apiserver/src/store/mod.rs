//! The only owner of state: objects by (resource, namespace, name) under one global revision.
//!
//! A commit is one compare-and-swap on one object; it assigns the next revision, appends to the
//! resource's [`window`], feeds the subscribed watchers and the journal, all under one lock that is
//! never held across an await or while JSON is parsed or written. Readers take `Arc`s out and do
//! their work outside. Nothing here knows HTTP, kinds or schemas.

mod history;
pub mod journal;
mod object;
mod revision;
mod state;
mod watch;
mod window;

#[cfg(test)]
mod tests;

pub use object::{Draft, Fields, Key, Labels, Object, Owner, Uid};
pub use revision::{ParseRevisionError, Revision};
pub use watch::{Event, EventKind, Scope, Subscription};
pub use window::WindowLimits;

use std::sync::Arc;

use parking_lot::RwLock;

use self::journal::Journal;
use self::state::State;

/// Shared handle to the state. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
}

/// What a commit does to one object.
#[derive(Debug)]
pub enum Change {
    /// Stores an object under a key that must be free.
    Create(Draft),
    /// Replaces the object whose current revision is `expected`.
    Replace {
        /// The revision the draft was made from.
        expected: Revision,
        /// The new content.
        draft: Draft,
    },
    /// Removes the object whose current revision is `expected`.
    Delete {
        /// Which object.
        key: Key,
        /// The revision the decision was made from.
        expected: Revision,
    },
}

impl Change {
    fn key(&self) -> &Key {
        match self {
            Self::Create(draft) | Self::Replace { draft, .. } => &draft.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// An object that must exist, and not be on its way out, for a commit to go through.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// Qualified resource of the object.
    pub resource: &'a str,
    /// Name of the (cluster-scoped) object.
    pub name: &'a str,
}

/// Why a commit changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A create found the key taken.
    #[error("an object with this name exists")]
    Exists,
    /// A replace or delete found nothing.
    #[error("no object with this name exists")]
    Missing,
    /// The object changed since it was read.
    #[error("the object is at revision {current}, not {expected}")]
    Stale {
        /// What the caller had read.
        expected: Revision,
        /// What is stored now.
        current: Revision,
    },
    /// The guard's object does not exist.
    #[error("the guarding object does not exist")]
    GuardMissing,
    /// The guard's object is being deleted.
    #[error("the guarding object is being deleted")]
    GuardDeleting,
    /// The journal refused the record; memory and journal stay as they were.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// Why a read at a revision is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// The history back to that revision is gone.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that could be served.
        oldest: Revision,
    },
    /// The revision has not been reached.
    #[error("Too large resource version: {requested}, current: {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The latest revision.
        current: Revision,
    },
}

/// One page of a consistent list.
#[derive(Debug)]
pub struct Page {
    /// The revision of the snapshot.
    pub revision: Revision,
    /// Objects in key order.
    pub objects: Vec<Arc<Object>>,
    /// How many objects of the scope follow after this page.
    pub remaining: usize,
}

/// Which objects a list returns.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery<'a> {
    /// Only this namespace.
    pub namespace: Option<&'a str>,
    /// The snapshot's revision; the latest when absent.
    pub revision: Option<Revision>,
    /// Only keys after this one.
    pub after: Option<&'a Key>,
}

/// Sees every commit, in order, under the store's lock: it must be quick and must not call back.
pub trait Observer: Send + Sync {
    /// Called once per committed event of any resource.
    fn observe(&self, resource: &Arc<str>, event: &Event);
}

impl Store {
    /// An empty store whose first commit gets revision 1.
    pub fn new(limits: WindowLimits) -> Self {
        Self {
            state: Arc::new(RwLock::new(State::new(limits))),
        }
    }

    /// The revision of the latest commit.
    pub fn revision(&self) -> Revision {
        self.state.read().revision()
    }

    /// One object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.read().get(resource, namespace, name)
    }

    /// A consistent list; all objects of the scope that `keep` accepts, up to `limit`.
    pub fn list(
        &self,
        resource: &str,
        query: ListQuery<'_>,
        limit: Option<usize>,
        mut keep: impl FnMut(&Object) -> bool,
    ) -> Result<Page, RevisionError> {
        let (revision, candidates) = self.state.read().list(resource, query)?;
        let mut objects = Vec::new();
        let mut rest = candidates.into_iter();
        let limit = limit.unwrap_or(usize::MAX);
        for object in rest.by_ref() {
            if !keep(&object) {
                continue;
            }
            objects.push(object);
            if objects.len() == limit {
                break;
            }
        }
        let remaining = rest.filter(|object| keep(object)).count();
        Ok(Page {
            revision,
            objects,
            remaining,
        })
    }

    /// How many objects of a resource exist, in one namespace or in all.
    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        self.state.read().count(resource, namespace)
    }

    /// Commits one change and returns the object as stored (as last stored, for a delete: the
    /// object carries the revision of the deletion).
    pub fn commit(
        &self,
        resource: &str,
        change: Change,
        guard: Option<Guard<'_>>,
    ) -> Result<Arc<Object>, CommitError> {
        self.state.write().commit(resource, change, guard)
    }

    /// Subscribes to every event of a scope after `after`; events of the past come from the
    /// window.
    pub fn subscribe(
        &self,
        resource: &str,
        scope: Scope,
        after: Revision,
    ) -> Result<Subscription, RevisionError> {
        let (id, backlog, receiver) =
            self.state
                .write()
                .subscribe(resource, scope.clone(), Some(after))?;
        Ok(Subscription::new(
            self, resource, scope, id, backlog, receiver,
        ))
    }

    /// Takes a consistent list of a scope and subscribes to everything after it in one step.
    pub fn list_and_subscribe(
        &self,
        resource: &str,
        scope: Scope,
    ) -> Result<(Page, Subscription), RevisionError> {
        let mut state = self.state.write();
        let query = ListQuery {
            namespace: scope.namespace(),
            revision: None,
            after: None,
        };
        let (revision, mut objects) = state.list(resource, query)?;
        let (id, backlog, receiver) = state.subscribe(resource, scope.clone(), None)?;
        drop(state);
        objects.retain(|object| scope.contains(object.key()));
        let page = Page {
            revision,
            objects,
            remaining: 0,
        };
        Ok((
            page,
            Subscription::new(self, resource, scope, id, backlog, receiver),
        ))
    }

    /// Registers an observer after showing it every existing object as an added one.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.state.write().observe(observer);
    }

    /// Replaces stored content without a revision or an event: for re-encoding objects after their
    /// schema changed. `rewrite` returns `None` for objects that stay as they are.
    pub fn rewrite(&self, resource: &str, rewrite: impl Fn(&Object) -> Option<Draft>) {
        let query = ListQuery {
            namespace: None,
            revision: None,
            after: None,
        };
        let Ok((_, objects)) = self.state.read().list(resource, query) else {
            return;
        };
        for old in objects {
            if let Some(draft) = rewrite(&old) {
                self.state.write().rewrite(resource, &old, draft);
            }
        }
    }

    /// Forgets events up to `revision`; watches from before it answer 410.
    pub fn compact(&self, revision: Revision) {
        self.state.write().compact(revision);
    }

    /// Continues at `revision` with these objects, as read back from a journal. Only for a store
    /// that has committed nothing.
    pub fn restore(
        &self,
        revision: Revision,
        objects: impl IntoIterator<Item = (String, Revision, Draft)>,
    ) {
        self.state.write().restore(revision, objects);
    }

    /// Records every later commit in `journal`.
    pub fn attach_journal(&self, journal: Journal) {
        self.state.write().attach_journal(journal);
    }

    /// Rewrites the journal to just the live objects when it has grown to a multiple of them.
    ///
    /// # Errors
    /// When the new file cannot be written; the old one stays in use.
    pub fn compact_journal(&self) -> std::io::Result<()> {
        journal::compact(self)
    }

    /// Flushes the journal to the disk.
    ///
    /// # Errors
    /// When the operating system reports that it could not.
    pub fn sync_journal(&self) -> std::io::Result<()> {
        let file = self
            .state
            .read()
            .journal()
            .map(Journal::handle)
            .transpose()?;
        file.map_or(Ok(()), |file| file.sync_data())
    }
}
