//! Events and the subscriptions that receive them.
//!
//! A commit pushes its event into the queue of every subscription whose scope contains the object,
//! under the store's lock, so that each queue sees every event once and in order. A subscription
//! that does not keep up loses its queue and ends; its client starts again from the last revision
//! it saw.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Key, Object, Revision, Store};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// One commit.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after it; for a deletion the last content at the deletion's revision.
    pub object: Arc<Object>,
    /// The object before it.
    pub previous: Option<Arc<Object>>,
}

impl Event {
    /// The revision of the commit.
    pub fn revision(&self) -> Revision {
        self.object.revision()
    }
}

/// Which objects of a resource a subscription covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them.
    All,
    /// Those of one namespace.
    Namespace(Arc<str>),
    /// A single one.
    Object(Key),
}

impl Scope {
    /// The namespace the scope is confined to; `None` also for one cluster-scoped object.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(namespace),
            Self::Object(key) => (!key.namespace.is_empty()).then_some(&*key.namespace),
        }
    }

    /// Whether the object with this key is covered.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => *namespace == key.namespace,
            Self::Object(only) => only == key,
        }
    }
}

/// A queue of events, in order and without gaps until it ends.
#[derive(Debug)]
pub struct Subscription {
    store: Store,
    resource: Box<str>,
    scope: Scope,
    id: u64,
    backlog: VecDeque<Arc<Event>>,
    receiver: mpsc::Receiver<Arc<Event>>,
}

impl Subscription {
    pub(super) fn new(
        store: &Store,
        resource: &str,
        scope: Scope,
        id: u64,
        backlog: VecDeque<Arc<Event>>,
        receiver: mpsc::Receiver<Arc<Event>>,
    ) -> Self {
        Self {
            store: store.clone(),
            resource: resource.into(),
            scope,
            id,
            backlog,
            receiver,
        }
    }

    /// The next event; `None` once the subscription fell too far behind.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        match self.backlog.pop_front() {
            Some(event) => Some(event),
            None => self.receiver.recv().await,
        }
    }

    /// The next event if one is waiting.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.backlog
            .pop_front()
            .or_else(|| self.receiver.try_recv().ok())
    }

    /// The store's revision, if every event up to it has been taken from this queue.
    pub fn caught_up(&self) -> Option<Revision> {
        let state = self.store.state.read();
        (self.backlog.is_empty() && self.receiver.is_empty() && !self.receiver.is_closed())
            .then(|| state.revision())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.store
            .state
            .write()
            .unsubscribe(&self.resource, &self.scope, self.id);
    }
}
