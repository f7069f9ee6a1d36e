//! What exists: the set of resources the server knows at one moment.
//!
//! Handlers take an immutable [`Snapshot`] and never see it change under them. Only the CRD
//! lifecycle publishes a new one, through [`Registry::publish`].

pub mod builtin;
pub mod custom;
mod resource;
mod rules;
mod strategy;

pub use resource::{
    Column, Deprecation, Descriptor, Origin, ScalePaths, Scope, SelectableField, Subresource,
    SubresourceAction, Verb, Version,
};
pub(crate) use strategy::definition::CLEANUP;
pub use strategy::{Context, Deletion, NameRule, Plain, Strategy, strategy_for};

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::discovery::DiscoveryCache;

/// The current [`Snapshot`]. Clones share it.
#[derive(Debug, Clone)]
pub struct Registry {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
}

impl Registry {
    /// A registry that starts with these resources.
    pub fn new(descriptors: impl IntoIterator<Item = Descriptor>) -> Self {
        let snapshot = Snapshot::new(descriptors.into_iter().map(Arc::new));
        Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            generation: watch::Sender::new(0),
        }
    }

    /// What exists now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes `snapshot` what exists. Only one caller may build snapshots from snapshots.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// A receiver that is notified after every publication.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// An immutable view of every known resource.
#[derive(Debug, Default)]
pub struct Snapshot {
    descriptors: Vec<Arc<Descriptor>>,
    by_path: HashMap<(String, String), usize>,
    /// Documents derived from this snapshot, built at most once each.
    pub discovery: DiscoveryCache,
}

impl Snapshot {
    /// Indexes `descriptors`; of two that share a group and plural the later one wins.
    pub fn new(descriptors: impl IntoIterator<Item = Arc<Descriptor>>) -> Self {
        let mut snapshot = Self::default();
        for descriptor in descriptors {
            let key = (descriptor.group.clone(), descriptor.plural.clone());
            if let Some(&at) = snapshot.by_path.get(&key) {
                if let Some(slot) = snapshot.descriptors.get_mut(at) {
                    *slot = descriptor;
                }
            } else {
                snapshot.by_path.insert(key, snapshot.descriptors.len());
                snapshot.descriptors.push(descriptor);
            }
        }
        snapshot
    }

    /// Every descriptor, in registration order.
    pub fn descriptors(&self) -> &[Arc<Descriptor>] {
        &self.descriptors
    }

    /// The resource named by a group and plural, served or not.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        let at = self.by_path.get(&(group.to_owned(), plural.to_owned()))?;
        self.descriptors.get(*at)
    }

    /// The resource that stores the objects of `descriptor`: itself, unless it is a view.
    pub fn holder(&self, descriptor: &Arc<Descriptor>) -> Arc<Descriptor> {
        descriptor
            .stored_as
            .as_ref()
            .and_then(|(group, plural)| self.resource(group, plural))
            .unwrap_or(descriptor)
            .clone()
    }

    /// The resource with this store name (`plural` or `plural.group`).
    pub fn qualified(&self, qualified: &str) -> Option<&Arc<Descriptor>> {
        let (plural, group) = qualified.split_once('.').unwrap_or((qualified, ""));
        self.resource(group, plural)
    }

    /// The resource whose objects carry this group and kind.
    pub fn kind(&self, group: &str, kind: &str) -> Option<&Arc<Descriptor>> {
        self.descriptors
            .iter()
            .find(|d| d.group == group && d.kind == kind)
    }
}
