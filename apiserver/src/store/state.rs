//! What the store's lock protects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::history::{Overlay, overlay};
use super::journal::{Journal, Record};
use super::watch::{Event, EventKind, Scope};
use super::window::{Window, WindowLimits};
use super::{
    Change, CommitError, Draft, Guard, Key, ListQuery, Object, Observer, Revision, RevisionError,
};

/// Backlog and queue of a new subscription, with the id that ends it.
type Subscribed = (u64, VecDeque<Arc<Event>>, mpsc::Receiver<Arc<Event>>);

/// Every object, every window, every subscription.
pub(super) struct State {
    limits: WindowLimits,
    revision: Revision,
    /// Windows of resources seen later know nothing of what happened up to here.
    floor: Revision,
    shards: HashMap<Arc<str>, Shard>,
    observers: Vec<Arc<dyn Observer>>,
    journal: Option<Journal>,
    next_subscription: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("revision", &self.revision)
            .field("resources", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// A subscription's end of its queue, with its id.
type Queue = (u64, mpsc::Sender<Arc<Event>>);

/// One resource.
struct Shard {
    objects: BTreeMap<Key, Arc<Object>>,
    window: Window,
    subscriptions: HashMap<Scope, Vec<Queue>>,
}

impl State {
    pub(super) fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            revision: Revision::ZERO,
            floor: Revision::ZERO,
            shards: HashMap::new(),
            observers: Vec::new(),
            journal: None,
            next_subscription: 0,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.shards
            .get(resource)?
            .objects
            .get(&Key::new(namespace, name))
            .cloned()
    }

    pub(super) fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        self.shards
            .get(resource)
            .map_or(0, |shard| match namespace {
                None => shard.objects.len(),
                Some(namespace) => shard.range(Some(namespace), None).count(),
            })
    }

    /// The objects of a scope at a revision, in key order.
    pub(super) fn list(
        &self,
        resource: &str,
        query: ListQuery<'_>,
    ) -> Result<(Revision, Vec<Arc<Object>>), RevisionError> {
        let revision = query.revision.unwrap_or(self.revision);
        self.check_reached(revision)?;
        let Some(shard) = self.shards.get(resource) else {
            self.check_floor(revision)?;
            return Ok((revision, Vec::new()));
        };
        let objects = shard.range(query.namespace, query.after);
        if revision == self.revision {
            return Ok((
                revision,
                objects.map(|(_, object)| object.clone()).collect(),
            ));
        }
        shard.window.check(revision)?;
        let past: Overlay = overlay(shard.window.after(revision), query.namespace, query.after);
        Ok((revision, past.merge(objects)))
    }

    pub(super) fn commit(
        &mut self,
        resource: &str,
        change: Change,
        guard: Option<Guard<'_>>,
    ) -> Result<Arc<Object>, CommitError> {
        if let Some(guard) = guard {
            let held = self.get(guard.resource, "", guard.name);
            match held {
                None => return Err(CommitError::GuardMissing),
                Some(object) if object.is_deleting() => return Err(CommitError::GuardDeleting),
                Some(_) => {}
            }
        }
        let previous = self
            .shards
            .get(resource)
            .and_then(|shard| shard.objects.get(change.key()))
            .cloned();
        let revision = self.revision.next();
        let event = plan(change, previous, revision)?;
        if let Some(journal) = &mut self.journal {
            let record = Record::of(resource, &event);
            journal
                .append(&record)
                .map_err(|error| CommitError::Journal(error.to_string()))?;
        }
        self.revision = revision;
        Ok(self.publish(resource, event))
    }

    /// Makes a planned event real: objects, observers, window, subscriptions.
    fn publish(&mut self, resource: &str, event: Event) -> Arc<Object> {
        let object = event.object.clone();
        let event = Arc::new(event);
        let (name, shard) = self.shard(resource);
        match event.kind {
            EventKind::Added | EventKind::Modified => {
                shard.objects.insert(object.key().clone(), object.clone());
            }
            EventKind::Deleted => {
                shard.objects.remove(object.key());
            }
        }
        shard.window.push(event.clone());
        shard.deliver(&event);
        for observer in &self.observers {
            observer.observe(&name, &event);
        }
        object
    }

    pub(super) fn subscribe(
        &mut self,
        resource: &str,
        scope: Scope,
        after: Option<Revision>,
    ) -> Result<Subscribed, RevisionError> {
        let after = after.unwrap_or(self.revision);
        self.check_reached(after)?;
        self.next_subscription += 1;
        let id = self.next_subscription;
        let limit = self.limits.watcher_backlog;
        let (_, shard) = self.shard(resource);
        shard.window.check(after)?;
        let backlog = shard
            .window
            .after(after)
            .filter(|event| scope.contains(event.object.key()))
            .cloned()
            .collect();
        let (sender, receiver) = mpsc::channel(limit);
        shard
            .subscriptions
            .entry(scope)
            .or_default()
            .push((id, sender));
        Ok((id, backlog, receiver))
    }

    pub(super) fn unsubscribe(&mut self, resource: &str, scope: &Scope, id: u64) {
        let Some(shard) = self.shards.get_mut(resource) else {
            return;
        };
        if let Some(queues) = shard.subscriptions.get_mut(scope) {
            queues.retain(|(candidate, _)| *candidate != id);
            if queues.is_empty() {
                shard.subscriptions.remove(scope);
            }
        }
    }

    pub(super) fn observe(&mut self, observer: Arc<dyn Observer>) {
        for (resource, shard) in &self.shards {
            for object in shard.objects.values() {
                let event = Event {
                    kind: EventKind::Added,
                    object: object.clone(),
                    previous: None,
                };
                observer.observe(resource, &event);
            }
        }
        self.observers.push(observer);
    }

    pub(super) fn rewrite(&mut self, resource: &str, old: &Arc<Object>, draft: Draft) {
        let Some(shard) = self.shards.get_mut(resource) else {
            return;
        };
        if let Some(slot) = shard.objects.get_mut(old.key())
            && Arc::ptr_eq(slot, old)
        {
            *slot = Arc::new(draft.at(old.revision()));
        }
    }

    pub(super) fn compact(&mut self, revision: Revision) {
        let revision = revision.min(self.revision);
        self.floor = self.floor.max(revision);
        for shard in self.shards.values_mut() {
            shard.window.compact(revision);
        }
    }

    pub(super) fn restore(
        &mut self,
        revision: Revision,
        objects: impl IntoIterator<Item = (String, Revision, Draft)>,
    ) {
        self.revision = self.revision.max(revision);
        self.floor = self.revision;
        for (resource, revision, draft) in objects {
            let (_, shard) = self.shard(&resource);
            let object = Arc::new(draft.at(revision));
            shard.objects.insert(object.key().clone(), object);
        }
    }

    pub(super) fn attach_journal(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    pub(super) fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    /// Every object of every resource.
    pub(super) fn dump(&self) -> Vec<(Arc<str>, Arc<Object>)> {
        self.shards
            .iter()
            .flat_map(|(resource, shard)| {
                shard
                    .objects
                    .values()
                    .map(|object| (resource.clone(), object.clone()))
            })
            .collect()
    }

    fn check_reached(&self, revision: Revision) -> Result<(), RevisionError> {
        if revision > self.revision {
            return Err(RevisionError::Future {
                requested: revision,
                current: self.revision,
            });
        }
        Ok(())
    }

    fn check_floor(&self, revision: Revision) -> Result<(), RevisionError> {
        if revision < self.floor {
            return Err(RevisionError::Expired {
                requested: revision,
                oldest: self.floor,
            });
        }
        Ok(())
    }

    fn shard(&mut self, resource: &str) -> (Arc<str>, &mut Shard) {
        let name = match self.shards.get_key_value(resource) {
            Some((name, _)) => name.clone(),
            None => resource.into(),
        };
        let (limits, floor) = (self.limits, self.floor);
        let shard = self.shards.entry(name.clone()).or_insert_with(|| Shard {
            objects: BTreeMap::new(),
            window: Window::new(limits, floor),
            subscriptions: HashMap::new(),
        });
        (name, shard)
    }
}

impl Shard {
    fn range<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let start = match (after, namespace) {
            (Some(key), _) => Bound::Excluded(key.clone()),
            (None, Some(namespace)) => Bound::Included(Key::new(namespace, "")),
            (None, None) => Bound::Unbounded,
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| namespace.is_none_or(|only| *key.namespace == *only))
    }

    /// Pushes an event to every subscription whose scope contains it.
    fn deliver(&mut self, event: &Arc<Event>) {
        let key = event.object.key();
        let scopes = [
            Scope::All,
            Scope::Namespace(key.namespace.clone()),
            Scope::Object(key.clone()),
        ];
        for scope in scopes {
            if let Some(queues) = self.subscriptions.get_mut(&scope) {
                // A full queue is dropped: its reader drains it and then sees the end.
                queues.retain(|(_, queue)| queue.try_send(event.clone()).is_ok());
            }
        }
    }
}

/// The event a change amounts to, or why it does not apply.
fn plan(
    change: Change,
    previous: Option<Arc<Object>>,
    revision: Revision,
) -> Result<Event, CommitError> {
    let current = |previous: Option<Arc<Object>>, expected: Revision| {
        let previous = previous.ok_or(CommitError::Missing)?;
        if previous.revision() == expected {
            return Ok(previous);
        }
        Err(CommitError::Stale {
            expected,
            current: previous.revision(),
        })
    };
    Ok(match change {
        Change::Create(_) if previous.is_some() => return Err(CommitError::Exists),
        Change::Create(draft) => Event {
            kind: EventKind::Added,
            object: Arc::new(draft.at(revision)),
            previous: None,
        },
        Change::Replace { expected, draft } => Event {
            kind: EventKind::Modified,
            previous: Some(current(previous, expected)?),
            object: Arc::new(draft.at(revision)),
        },
        Change::Delete { expected, .. } => {
            let previous = current(previous, expected)?;
            Event {
                kind: EventKind::Deleted,
                object: Arc::new(previous.at(revision)),
                previous: Some(previous),
            }
        }
    })
}
