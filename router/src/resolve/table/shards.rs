//! The published side of the table: immutable sets behind atomic pointers.
//!
//! A lookup loads one pointer and probes one set; it takes no lock and allocates nothing. A change
//! copies one shard, so its cost grows with the number of sandboxes divided by [`SHARDS`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use indexmap::Equivalent;
use parking_lot::RwLock;

use super::index::{Change, NameKey};
use super::row::{Row, Uid};

/// Keys come from the cluster, so nobody can choose many that collide.
type IndexSet<T> = indexmap::IndexSet<T, RandomState>;

const SHARDS: usize = 64;
/// How many deleted names are remembered, to say "gone" instead of "unknown".
const REMEMBERED: usize = 4096;

/// A namespace and a name, as looked up.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Rows by UID and by name.
#[derive(Debug)]
pub(super) struct Shards {
    hasher: RandomState,
    uids: Box<[ArcSwap<IndexSet<ByUid>>]>,
    names: Box<[ArcSwap<IndexSet<ByName>>]>,
    /// Pods whose name differs from their Sandbox's: a handful, left by older controllers.
    pod_names: ArcSwap<HashMap<NameKey, Arc<Row>>>,
    deleted: RwLock<Deleted>,
}

#[derive(Clone, Debug)]
struct ByUid(Arc<Row>);

#[derive(Clone, Debug)]
struct ByName(Arc<Row>);

#[derive(Debug, Default)]
struct Deleted {
    order: VecDeque<u64>,
    hashes: HashSet<u64>,
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            uids: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            names: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            pod_names: ArcSwap::default(),
            deleted: RwLock::default(),
        }
    }
}

impl Shards {
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn by_uid(&self, uid: &Uid) -> Option<Arc<Row>> {
        let shard = self.uids.get(shard_of_uid(uid))?;
        Some(shard.load().get(uid)?.0.clone())
    }

    pub(super) fn by_name(&self, key: Key<'_>) -> Option<Arc<Row>> {
        let shard = self.names.get(shard_of_name(key))?.load();
        if let Some(found) = shard.get(&key) {
            return Some(found.0.clone());
        }
        let pod_names = self.pod_names.load();
        if pod_names.is_empty() {
            return None;
        }
        pod_names
            .get(&(Arc::from(key.namespace), Arc::from(key.name)))
            .cloned()
    }

    /// Whether a sandbox of this name was deleted a while ago.
    pub(super) fn was_deleted(&self, key: Key<'_>) -> bool {
        let deleted = self.deleted.read();
        !deleted.hashes.is_empty() && deleted.hashes.contains(&self.hash(key))
    }

    /// Publishes changes, copying each shard they touch once.
    pub(super) fn publish(&self, changes: &[Change]) {
        let mut uids: HashMap<usize, IndexSet<ByUid>> = HashMap::new();
        let mut names: HashMap<usize, IndexSet<ByName>> = HashMap::new();
        let mut pod_names = None;
        for change in changes {
            let at = shard_of_uid(&change.uid);
            if let Some(shard) = self.uids.get(at) {
                let set = uids.entry(at).or_insert_with(|| (**shard.load()).clone());
                match &change.row {
                    Some(row) => {
                        set.replace(ByUid(row.clone()));
                    }
                    None => {
                        set.swap_remove(&change.uid);
                    }
                }
            }
            for (key, holder) in &change.names {
                let key = Key {
                    namespace: &key.0,
                    name: &key.1,
                };
                let at = shard_of_name(key);
                let Some(shard) = self.names.get(at) else {
                    continue;
                };
                let set = names.entry(at).or_insert_with(|| (**shard.load()).clone());
                if let Some(row) = holder {
                    set.replace(ByName(row.clone()));
                } else {
                    set.swap_remove(&key);
                }
            }
            for (key, holder) in &change.pod_names {
                let map = pod_names.get_or_insert_with(|| (**self.pod_names.load()).clone());
                match holder {
                    Some(row) => {
                        map.insert(key.clone(), row.clone());
                    }
                    None => {
                        map.remove(key);
                    }
                }
            }
        }
        // Names point at rows that the UID side already knows.
        for (at, set) in uids {
            if let Some(shard) = self.uids.get(at) {
                shard.store(Arc::new(set));
            }
        }
        for (at, set) in names {
            if let Some(shard) = self.names.get(at) {
                shard.store(Arc::new(set));
            }
        }
        if let Some(map) = pod_names {
            self.pod_names.store(Arc::new(map));
        }
        self.remember(changes);
    }

    fn remember(&self, changes: &[Change]) {
        let mut gone = changes.iter().filter(|change| change.deleted).peekable();
        if gone.peek().is_none() {
            return;
        }
        let mut deleted = self.deleted.write();
        for change in gone {
            let hash = self.hash(change.key());
            if deleted.hashes.insert(hash) {
                deleted.order.push_back(hash);
            }
            if deleted.order.len() > REMEMBERED
                && let Some(oldest) = deleted.order.pop_front()
            {
                deleted.hashes.remove(&oldest);
            }
        }
    }
}

/// Spreads keys over shards; the sets inside defend themselves against chosen collisions.
fn shard_of_name(key: Key<'_>) -> usize {
    key.namespace
        .bytes()
        .chain(key.name.bytes())
        .fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        })
        % SHARDS
}

fn shard_of_uid(uid: &Uid) -> usize {
    match uid {
        // A random UUID is even in every byte.
        Uid::Uuid(bits) => usize::from(bits.to_le_bytes()[0]) % SHARDS,
        Uid::Text(text) => shard_of_name(Key {
            namespace: "",
            name: text,
        }),
    }
}

impl ByName {
    fn key(&self) -> Key<'_> {
        Key {
            namespace: &self.0.namespace,
            name: &self.0.name,
        }
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByName {}

impl Equivalent<ByName> for Key<'_> {
    fn equivalent(&self, other: &ByName) -> bool {
        *self == other.key()
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

impl Equivalent<ByUid> for Uid {
    fn equivalent(&self, other: &ByUid) -> bool {
        *self == other.0.uid
    }
}
