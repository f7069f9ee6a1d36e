//! What exists: the set of resources the server knows at one moment.
//!
//! Handlers take an immutable [`Snapshot`] and never see it change under them. Only the CRD
//! lifecycle publishes a new one.

pub mod builtin;
mod resource;
mod strategy;

pub use resource::{
    Column, Deprecation, Descriptor, Origin, ScalePaths, Scope, SelectableField, Subresource,
    SubresourceAction, Verb, Version,
};
pub use strategy::{Context, Deletion, Strategy, strategy_for};

use std::collections::HashMap;
use std::sync::Arc;

use crate::discovery::DiscoveryCache;

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

    /// The resource whose objects carry this group and kind.
    pub fn kind(&self, group: &str, kind: &str) -> Option<&Arc<Descriptor>> {
        self.descriptors
            .iter()
            .find(|d| d.group == group && d.kind == kind)
    }
}
