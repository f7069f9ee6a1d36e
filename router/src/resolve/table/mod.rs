//! The routing table: what the watches say, joined by Sandbox UID and published for lookups that
//! take no lock.
//!
//! ```text
//! watch events -> Index (one writer, behind a mutex) -> rows -> Shards (read by requests)
//!                                                           `-> Waiters (requests that came early)
//! ```
//!
//! The writer side is synchronous and knows no clock, so that tests can feed it any order of
//! events. Readers see whole rows, never a half-applied event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Absence, Found, Resolve, Source};
use crate::target::{NameForm, Target};

mod index;
mod row;
mod shards;
mod waiters;

use self::index::Change;
use self::shards::{Key, Shards};
use self::waiters::Waiters;

pub use self::index::{Index, Phase, PodFacts, PoolFacts, SandboxFacts};
pub use self::row::{Addresses, Load, Row, State, Uid};
pub use self::waiters::Subscription;

/// A table that watches keep up to date.
#[derive(Debug)]
pub struct Table {
    index: Mutex<Index>,
    shards: Shards,
    waiters: Arc<Waiters>,
    loaded: Loaded,
    /// The only namespace served, when watching is limited to one.
    namespace: Option<Arc<str>>,
    sandboxes: AtomicU64,
}

/// Which first lists have arrived.
#[derive(Debug)]
struct Loaded {
    pods: AtomicBool,
    sandboxes: AtomicBool,
    pools: AtomicBool,
}

/// Whether a pod routes for a Sandbox that the table has not seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Sandboxes are watched too: only the pod that a known Sandbox names routes for it.
    Sandboxes,
    /// Only pods are watched: a pod's controller reference is believed.
    Pods,
}

/// Whose first list is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Sandboxes.
    Sandboxes,
    /// Pools.
    Pools,
}

impl Table {
    /// An empty table that is still loading.
    pub fn new(trust: Trust, namespace: Option<&str>) -> Self {
        Self {
            index: Mutex::new(Index::new(trust)),
            shards: Shards::default(),
            waiters: Arc::default(),
            loaded: Loaded {
                pods: AtomicBool::new(false),
                sandboxes: AtomicBool::new(trust == Trust::Pods),
                pools: AtomicBool::new(false),
            },
            namespace: namespace.map(Into::into),
            sandboxes: AtomicU64::new(0),
        }
    }

    /// Applies events and publishes what they changed, at once for all of them.
    pub fn update(&self, apply: impl FnOnce(&mut Index)) {
        let mut index = self.index.lock();
        apply(&mut index);
        let changes = index.take_changes();
        if changes.is_empty() {
            return;
        }
        self.shards.publish(&changes);
        self.sandboxes.store(index.len() as u64, Ordering::Relaxed);
        for change in &changes {
            self.waiters.wake(&self.shards, change);
        }
    }

    /// Records that a first list has been applied.
    pub fn set_loaded(&self, kind: Kind) {
        match kind {
            Kind::Pods => self.loaded.pods.store(true, Ordering::Release),
            Kind::Sandboxes => self.loaded.sandboxes.store(true, Ordering::Release),
            Kind::Pools => self.loaded.pools.store(true, Ordering::Release),
        }
        self.waiters.wake_all();
    }

    /// Whether the first list of `kind` has been applied.
    pub fn has_loaded(&self, kind: Kind) -> bool {
        match kind {
            Kind::Pods => self.loaded.pods.load(Ordering::Acquire),
            Kind::Sandboxes => self.loaded.sandboxes.load(Ordering::Acquire),
            Kind::Pools => self.loaded.pools.load(Ordering::Acquire),
        }
    }

    /// Whether every first list has been applied that lookups depend on. What pools give away only makes
    /// sandboxes known by name a little sooner.
    pub fn is_loaded(&self) -> bool {
        self.has_loaded(Kind::Pods) && self.has_loaded(Kind::Sandboxes)
    }

    /// How many sandboxes are known.
    pub fn len(&self) -> u64 {
        self.sandboxes.load(Ordering::Relaxed)
    }

    /// Whether no sandbox is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of a UID.
    pub fn by_uid(&self, uid: &Uid) -> Option<Arc<Row>> {
        self.shards.by_uid(uid)
    }

    /// The row of a name; pool members that no claim has have none.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Row>> {
        self.shards.by_name(Key { namespace, name })
    }

    fn find(&self, target: &Target) -> Option<(Arc<Row>, Source)> {
        if let Some(row) = target
            .uid_text()
            .and_then(Uid::parse)
            .and_then(|uid| self.by_uid(&uid))
        {
            return Some((row, Source::Uid));
        }
        self.by_name(target.namespace.as_str(), target.id.as_str())
            .map(|row| (row, Source::Name))
    }
}

impl Resolve for Table {
    fn lookup(&self, target: &Target) -> Result<Found, Absence> {
        if let Some((row, source)) = self.find(target) {
            return match row.state {
                State::Ready => Ok(Found { row, source }),
                State::Starting => Err(Absence::Starting),
                State::Suspended => Err(Absence::Suspended),
                State::Gone => Err(Absence::Gone),
            };
        }
        if let Some(served) = &self.namespace
            && **served != *target.namespace.as_str()
        {
            return Err(Absence::OutOfScope(served.clone()));
        }
        if !self.is_loaded() {
            return Err(Absence::Loading);
        }
        let key = Key {
            namespace: target.namespace.as_str(),
            name: target.id.as_str(),
        };
        if self.shards.was_deleted(key) {
            Err(Absence::Gone)
        } else if target.id.form() == NameForm::Subdomain {
            Err(Absence::UnknownSubdomain)
        } else {
            Err(Absence::Unknown)
        }
    }

    fn subscribe(&self, target: &Target) -> Option<Subscription> {
        let name = self.shards.hash(Key {
            namespace: target.namespace.as_str(),
            name: target.id.as_str(),
        });
        let uid = target
            .uid_text()
            .and_then(Uid::parse)
            .map(|uid| self.shards.hash(&uid));
        Some(self.waiters.subscribe(name, uid))
    }
}

impl Waiters {
    fn wake(&self, shards: &Shards, change: &Change) {
        if !self.is_empty() {
            self.wake_key(shards.hash(&change.uid));
            self.wake_key(shards.hash(change.key()));
        }
    }
}

#[cfg(test)]
mod tests;
