//! What the operator keeps of each object it watches, and nothing more: one *wire* struct per kind
//! that decodes only the members that are read, and one *row* made from it with interned texts.
//! Rows are immutable and shared; the store swaps whole rows. Whole objects are never kept, and
//! whatever must survive unchanged (pod templates) is kept as JSON text, so members newer than this
//! program are not lost.

mod allocation;
mod claim;
mod condition;
mod dependent;
mod make;
mod node;
mod pod;
mod policy;
mod sandbox;
mod template;
mod warm_pool;

pub use allocation::{Allocation, AllocationRecord, Named};
pub use claim::{Bound, ClaimAnnotations, ClaimRow, ClaimWire, EnvEntry, Expiry, Source};
pub use condition::{Condition, Conditions, Truth};
pub use dependent::{ServiceRow, ServiceWire, VolumeClaimRow, VolumeClaimWire};
pub use make::Make;
pub use node::{NodeHealth, NodeRow, NodeWire};
pub use pod::{PodPhase, PodRow, PodWire, Scheduled};
pub use policy::{PolicyRow, PolicyWire, normal_form};
pub use sandbox::{Mode, PodBlueprint, SandboxRow, SandboxStatus, SandboxWire, ShutdownPolicy};
pub use template::{TemplateRow, TemplateStatus, TemplateWire};
pub use warm_pool::{PoolRow, PoolStatus, PoolWire, UpdateStrategy};

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ident::{Key, Revision, Text, Uid};
use crate::intern::Interner;

/// Why an object from the API server could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// `metadata.resourceVersion` is no integer.
    #[error("{kind} {key}: metadata.resourceVersion {found:?} is not an integer")]
    Revision {
        /// The kind.
        kind: &'static str,
        /// Which object.
        key: Key,
        /// What was there.
        found: String,
    },
    /// A member does not have the type the schema promises.
    #[error("{kind} {key}: {reason}")]
    Member {
        /// The kind.
        kind: &'static str,
        /// Which object.
        key: Key,
        /// What is wrong.
        reason: String,
    },
}

/// A kind the operator watches: how it is decoded and what of it is kept.
pub trait Row: Send + Sync + Sized + 'static {
    /// The members read from the wire.
    type Wire: DeserializeOwned + Clone + Send + 'static;
    /// The kind's name, for messages.
    const KIND: &'static str;

    /// Keeps what is needed of `wire`.
    ///
    /// # Errors
    /// When a member cannot be understood.
    fn from_wire(wire: Self::Wire, interner: &Interner) -> Result<Self, DecodeError>;

    /// Identity and ownership.
    fn head(&self) -> &Head;

    /// Whether only the status differs from `before`, for a kind whose status nobody but the operator
    /// writes. Then a write of the operator's accounts for the whole difference; otherwise what the
    /// write returned may also hold a change of somebody else's that came before it.
    fn differs_in_own_status_only(&self, _before: &Self) -> bool {
        false
    }
}

/// The members of `metadata` that are read. `managedFields`, often the largest part of an object,
/// is skipped while parsing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace, empty when cluster-scoped.
    pub namespace: String,
    /// The UID.
    pub uid: String,
    /// The resource version.
    pub resource_version: String,
    /// The generation; 0 for kinds without one.
    pub generation: i64,
    /// When the object was created.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once deletion has begun.
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Owner references.
    pub owner_references: Vec<OwnerReference>,
}

/// An owner reference as on the wire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether this owner is the controller.
    pub controller: Option<bool>,
}

/// Kinds of owners the operator tells apart; groups matter, versions do not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnerKind {
    /// `Sandbox`.
    Sandbox,
    /// `SandboxClaim`.
    Claim,
    /// `SandboxWarmPool`.
    Pool,
    /// `SandboxTemplate`.
    Template,
    /// Anybody else.
    Other,
}

impl OwnerKind {
    /// Whether the owner is one of the extension kinds that manage sandboxes.
    pub fn is_extension(self) -> bool {
        matches!(self, Self::Claim | Self::Pool | Self::Template)
    }

    fn of(reference: &OwnerReference) -> Self {
        let group = reference
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        match (group, reference.kind.as_str()) {
            (agent_sandbox_crds::CORE_GROUP, "Sandbox") => Self::Sandbox,
            (agent_sandbox_crds::EXTENSIONS_GROUP, "SandboxClaim") => Self::Claim,
            (agent_sandbox_crds::EXTENSIONS_GROUP, "SandboxWarmPool") => Self::Pool,
            (agent_sandbox_crds::EXTENSIONS_GROUP, "SandboxTemplate") => Self::Template,
            _ => Self::Other,
        }
    }
}

/// The controlling owner of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// What it is, as far as the operator cares.
    pub kind: OwnerKind,
    /// Its kind as written, for messages.
    pub kind_name: Text,
    /// Its name.
    pub name: Text,
    /// Its UID.
    pub uid: Uid,
}

/// Identity, age and ownership: the part every row has.
#[derive(Clone, Debug)]
pub struct Head {
    /// Namespace and name.
    pub key: Key,
    /// UID.
    pub uid: Uid,
    /// Resource version.
    pub revision: Revision,
    /// Generation.
    pub generation: i64,
    /// Creation time.
    pub created: Timestamp,
    /// Deletion time, once deletion has begun.
    pub deleting: Option<Timestamp>,
    /// The controlling owner.
    pub owner: Option<Owner>,
}

impl Head {
    /// Reads identity and ownership from `metadata`.
    ///
    /// # Errors
    /// When the resource version is no integer.
    pub fn read(
        kind: &'static str,
        metadata: &Metadata,
        interner: &Interner,
    ) -> Result<Self, DecodeError> {
        let key = Key {
            namespace: interner.text(&metadata.namespace),
            name: interner.text(&metadata.name),
        };
        let revision =
            Revision::parse(&metadata.resource_version).map_err(|_| DecodeError::Revision {
                kind,
                key: key.clone(),
                found: metadata.resource_version.clone(),
            })?;
        let owner = metadata
            .owner_references
            .iter()
            .find(|reference| reference.controller == Some(true))
            .map(|reference| Owner {
                kind: OwnerKind::of(reference),
                kind_name: interner.text(&reference.kind),
                name: interner.text(&reference.name),
                uid: Uid::parse(&reference.uid),
            });
        Ok(Self {
            key,
            uid: Uid::parse(&metadata.uid),
            revision,
            generation: metadata.generation,
            created: metadata.creation_timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            deleting: metadata.deletion_timestamp,
            owner,
        })
    }

    /// Whether everything but the revision is the same.
    pub fn is_unchanged_since(&self, before: &Self) -> bool {
        let Self {
            key,
            uid,
            revision: _,
            generation,
            created,
            deleting,
            owner,
        } = self;
        *key == before.key
            && *uid == before.uid
            && *generation == before.generation
            && *created == before.created
            && *deleting == before.deleting
            && *owner == before.owner
    }

    /// Whether deletion has begun.
    pub fn is_deleting(&self) -> bool {
        self.deleting.is_some()
    }

    /// Whether the object with `uid` controls this one.
    pub fn is_controlled_by(&self, uid: Uid) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid.is(uid))
    }
}

/// A label or annotation set, sorted by key. Sets are small, so lookup is a binary search.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Labels(Box<[(Text, Text)]>);

impl Labels {
    /// The set in `map`, interned.
    pub fn read(map: Option<&BTreeMap<String, String>>, interner: &Interner) -> Arc<Self> {
        Self::read_where(map, interner, |_| true)
    }

    /// The part of `map` whose keys satisfy `keep`, interned.
    pub fn read_where(
        map: Option<&BTreeMap<String, String>>,
        interner: &Interner,
        keep: impl Fn(&str) -> bool,
    ) -> Arc<Self> {
        let entries = map
            .into_iter()
            .flatten()
            .filter(|(key, _)| keep(key))
            .map(|(key, value)| (interner.text(key), interner.text(value)))
            .collect();
        interner.labels(Self(entries))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Text> {
        let index = self
            .0
            .binary_search_by(|(candidate, _)| (**candidate).cmp(key))
            .ok()?;
        self.0.get(index).map(|(_, value)| value)
    }

    /// Whether `key` is present.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether `key` has exactly `value`.
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.get(key).is_some_and(|found| &**found == value)
    }

    /// Key and value pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Text)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Text, Text)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Text, Text)>>(entries: I) -> Self {
        let sorted: BTreeMap<Text, Text> = entries.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_controlling_owner_counts_and_versions_do_not_matter() {
        let metadata: Metadata = serde_json::from_value(json!({
            "name": "s", "namespace": "n", "uid": "0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0",
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "x"}],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "x"},
                {"apiVersion": "extensions.agents.x-k8s.io/v1alpha1", "kind": "SandboxWarmPool",
                 "name": "pool", "uid": "1b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0", "controller": true},
            ],
        }))
        .unwrap();
        let head = Head::read("Sandbox", &metadata, &Interner::default()).unwrap();
        let owner = head.owner.clone().unwrap();
        assert_eq!((owner.kind, &*owner.name), (OwnerKind::Pool, "pool"));
        assert!(owner.kind.is_extension());
        assert!(head.is_controlled_by(Uid::parse("1b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0")));
        assert!(!head.is_controlled_by(Uid::FOREIGN));
    }

    #[test]
    fn a_revision_that_is_no_integer_names_the_object() {
        let metadata = Metadata {
            name: "a".to_owned(),
            namespace: "b".to_owned(),
            resource_version: "W/1".to_owned(),
            ..Metadata::default()
        };
        let error = Head::read("Pod", &metadata, &Interner::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Pod b/a: metadata.resourceVersion \"W/1\" is not an integer"
        );
    }

    #[test]
    fn label_sets_are_sorted_and_shared() {
        let interner = Interner::default();
        let map: BTreeMap<String, String> = [("b", "2"), ("a", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let one = Labels::read(Some(&map), &interner);
        let two = Labels::read(Some(&map), &interner);
        assert!(Arc::ptr_eq(&one, &two));
        assert!(one.has("a", "1") && !one.has("a", "2") && !one.contains("c"));
        let keys: Vec<&str> = one.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "b"]);
    }
}
