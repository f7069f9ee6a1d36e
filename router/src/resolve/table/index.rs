//! The writer side of the table: what the watches said, joined by Sandbox UID.
//!
//! Only [`super::table::Table`] holds one. Methods are synchronous and total: any order of events,
//! including late deletes, relists and pods that change hands, leaves the index as if it had seen
//! only the final state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::row::{Addresses, Load, Row, State, Uid};
use super::shards::Key;
use super::{Kind, Trust};

/// A namespace and a name, as kept.
pub(super) type NameKey = (Arc<str>, Arc<str>);

/// What is read of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodFacts {
    /// UID of the pod.
    pub uid: Uid,
    /// Namespace of the pod and its Sandbox.
    pub namespace: Arc<str>,
    /// Name of the pod.
    pub name: Arc<str>,
    /// UID of the Sandbox that controls it.
    pub sandbox_uid: Uid,
    /// Name of the Sandbox that controls it.
    pub sandbox_name: Arc<str>,
    /// Its addresses.
    pub addresses: Addresses,
    /// Whether its Ready condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is labelled as an unclaimed pool member.
    pub pooled: bool,
}

/// Where a Sandbox is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It should run.
    Running,
    /// It should not run now.
    Suspended,
    /// Its pod has ended for good.
    Finished,
    /// It is being deleted or has expired.
    Gone,
}

/// What is read of a Sandbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SandboxFacts {
    /// UID of the Sandbox.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The name of its pod, when an older controller chose another than the Sandbox's.
    pub pod_name: Option<Arc<str>>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether it is an unclaimed pool member.
    pub pooled: bool,
}

/// What is read of a `SandboxWarmPool`: the Sandboxes that its allocation record gives to claims, of which
/// some still look as if nobody had them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolFacts {
    /// UID of the pool.
    pub uid: Uid,
    /// Its namespace. Sandboxes elsewhere are not its to give.
    pub namespace: Arc<str>,
    /// UIDs of the Sandboxes.
    pub given: HashSet<Uid>,
}

/// What one sandbox's lookups change to.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) uid: Uid,
    namespace: Arc<str>,
    name: Arc<str>,
    pub(super) row: Option<Arc<Row>>,
    pub(super) names: Vec<(NameKey, Option<Arc<Row>>)>,
    pub(super) pod_names: Vec<(NameKey, Option<Arc<Row>>)>,
    pub(super) deleted: bool,
}

impl Change {
    pub(super) fn key(&self) -> Key<'_> {
        Key {
            namespace: &self.namespace,
            name: &self.name,
        }
    }
}

/// The joined state.
#[derive(Debug)]
pub struct Index {
    trust: Trust,
    entries: HashMap<Uid, Entry>,
    /// Which Sandbox each pod belongs to, to find it again when the pod changes hands.
    owners: HashMap<Uid, Uid>,
    /// Every UID that claims a name; more than one only around deletion and recreation.
    claims: HashMap<NameKey, Vec<Uid>>,
    /// What pools have given away, by the pool's UID; pools that gave nothing away are left out.
    pools: HashMap<Uid, Seen<PoolFacts>>,
    strings: HashSet<Arc<str>>,
    swept: usize,
    dirty: Vec<Uid>,
    next: u64,
    lists: Lists,
}

#[derive(Debug, Default)]
struct Lists {
    pods: u32,
    sandboxes: u32,
    pools: u32,
}

#[derive(Debug)]
struct Entry {
    key: NameKey,
    sandbox: Option<Seen<SandboxFacts>>,
    pods: Vec<Pod>,
    /// A pool gave it to a claim. It never goes back, so that this holds when the pool's record has
    /// dropped it and its own labels have not been seen yet.
    given: bool,
    load: Arc<Load>,
    born: u64,
    published: Option<Published>,
}

#[derive(Debug)]
struct Pod {
    seen: Seen<PodFacts>,
    incarnation: u64,
}

/// Facts and the list that last confirmed them.
#[derive(Debug)]
struct Seen<T> {
    facts: T,
    list: u32,
}

/// What lookups currently say.
#[derive(Debug)]
struct Published {
    row: Arc<Row>,
    /// Whether the Sandbox object is known, which decides between claims to one name.
    known: bool,
    name: Option<NameKey>,
    pod_name: Option<NameKey>,
}

impl Index {
    pub(in crate::resolve) fn new(trust: Trust) -> Self {
        Self {
            trust,
            entries: HashMap::new(),
            owners: HashMap::new(),
            claims: HashMap::new(),
            pools: HashMap::new(),
            strings: HashSet::new(),
            swept: 0,
            dirty: Vec::new(),
            next: 1,
            lists: Lists::default(),
        }
    }

    /// How many sandboxes are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no sandbox is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many texts are kept for sharing.
    #[cfg(test)]
    pub(super) fn interned(&self) -> usize {
        self.strings.len()
    }

    /// Whether nothing is left of anything that was ever applied.
    #[cfg(test)]
    pub(super) fn is_spotless(&self) -> bool {
        self.entries.is_empty()
            && self.owners.is_empty()
            && self.claims.is_empty()
            && self.pools.is_empty()
    }

    /// One shared copy of a text that many objects carry.
    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.strings.insert(text.clone());
        text
    }

    /// A fresh list of `kind` begins: what it does not confirm is gone when it ends.
    pub fn begin_list(&mut self, kind: Kind) {
        match kind {
            Kind::Pods => self.lists.pods += 1,
            Kind::Sandboxes => self.lists.sandboxes += 1,
            Kind::Pools => self.lists.pools += 1,
        }
    }

    /// The list of `kind` is complete.
    pub fn end_list(&mut self, kind: Kind) {
        match kind {
            Kind::Pods => {
                let list = self.lists.pods;
                let stale: Vec<Uid> = self
                    .entries
                    .values()
                    .flat_map(|entry| &entry.pods)
                    .filter(|pod| pod.seen.list != list)
                    .map(|pod| pod.seen.facts.uid.clone())
                    .collect();
                for uid in stale {
                    self.delete_pod(&uid);
                }
            }
            Kind::Sandboxes => {
                let list = self.lists.sandboxes;
                let stale: Vec<Uid> = self
                    .entries
                    .iter()
                    .filter(|(_, entry)| {
                        entry
                            .sandbox
                            .as_ref()
                            .is_some_and(|sandbox| sandbox.list != list)
                    })
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in stale {
                    self.delete_sandbox(&uid);
                }
            }
            Kind::Pools => {
                let list = self.lists.pools;
                self.pools.retain(|_, pool| pool.list == list);
            }
        }
    }

    /// A pool was added or changed.
    pub fn apply_pool(&mut self, facts: PoolFacts) {
        for uid in &facts.given {
            let entry = self.entries.get_mut(uid);
            if let Some(entry) = entry.filter(|it| !it.given && it.key.0 == facts.namespace) {
                entry.given = true;
                self.dirty.push(uid.clone());
            }
        }
        if facts.given.is_empty() {
            self.pools.remove(&facts.uid);
        } else {
            let list = self.lists.pools;
            self.pools.insert(facts.uid.clone(), Seen { facts, list });
        }
    }

    /// A pool is gone.
    pub fn delete_pool(&mut self, uid: &Uid) {
        self.pools.remove(uid);
    }

    /// A pod was added or changed.
    pub fn apply_pod(&mut self, facts: PodFacts) {
        if self
            .owners
            .get(&facts.uid)
            .is_some_and(|owner| *owner != facts.sandbox_uid)
        {
            self.delete_pod(&facts.uid);
        }
        let list = self.lists.pods;
        let key = (facts.namespace.clone(), facts.sandbox_name.clone());
        let uid = facts.sandbox_uid.clone();
        self.owners.insert(facts.uid.clone(), uid.clone());
        let incarnation = self.number();
        let entry = self.entry(uid.clone(), key.clone());
        match entry
            .pods
            .iter_mut()
            .find(|pod| pod.seen.facts.uid == facts.uid)
        {
            Some(pod) => pod.seen = Seen { facts, list },
            None => entry.pods.push(Pod {
                seen: Seen { facts, list },
                incarnation,
            }),
        }
        // A Sandbox object knows its own name better than a pod does.
        if entry.sandbox.is_none() {
            self.rename(&uid, key);
        }
        self.dirty.push(uid);
    }

    /// A pod is gone, or no longer belongs to any Sandbox.
    pub fn delete_pod(&mut self, pod: &Uid) {
        let Some(uid) = self.owners.remove(pod) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.pods.retain(|other| other.seen.facts.uid != *pod);
            self.dirty.push(uid);
        }
    }

    /// A Sandbox was added or changed.
    pub fn apply_sandbox(&mut self, facts: SandboxFacts) {
        let list = self.lists.sandboxes;
        let key = (facts.namespace.clone(), facts.name.clone());
        let uid = facts.uid.clone();
        let entry = self.entry(uid.clone(), key.clone());
        entry.sandbox = Some(Seen { facts, list });
        self.rename(&uid, key);
        self.dirty.push(uid);
    }

    /// A Sandbox is gone.
    pub fn delete_sandbox(&mut self, uid: &Uid) {
        if let Some(entry) = self.entries.get_mut(uid)
            && entry.sandbox.take().is_some()
        {
            self.dirty.push(uid.clone());
        }
    }

    /// What lookups must change to since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut done = HashSet::with_capacity(dirty.len());
        let mut changes = Vec::new();
        for uid in dirty {
            if done.insert(uid.clone()) {
                changes.extend(self.refresh(&uid));
            }
        }
        // Winners of names are chosen once every row is current.
        let mut names: Vec<(NameKey, Option<Arc<Row>>)> = Vec::new();
        let mut seen = HashSet::new();
        for change in &mut changes {
            for (key, _) in std::mem::take(&mut change.names) {
                if seen.insert(key.clone()) {
                    let holder = self.holder(&key);
                    names.push((key, holder));
                }
            }
        }
        if let Some(last) = changes.last_mut() {
            last.names = names;
        }
        self.sweep_strings();
        changes
    }

    /// Brings one entry's row up to date; `None` when lookups say the same as before.
    fn refresh(&mut self, uid: &Uid) -> Option<Change> {
        let trust = self.trust;
        let entry = self.entries.get_mut(uid)?;
        let view = entry.view(trust);
        let emptied = entry.sandbox.is_none() && entry.pods.is_empty();
        let before = entry.published.take();
        let row = view.as_ref().map(|view| match &before {
            Some(published) if view.matches(&published.row, &entry.key) => published.row.clone(),
            _ => Arc::new(Row::new(
                uid.clone(),
                entry.key.clone(),
                view.state,
                (view.addresses, view.incarnation),
                entry.load.clone(),
            )),
        });
        let nameable = view.as_ref().is_some_and(|view| view.nameable);
        let name = nameable.then(|| entry.key.clone());
        let pod_name = view
            .as_ref()
            .filter(|view| view.nameable)
            .and_then(|view| view.pod_name.clone())
            .filter(|pod_name| **pod_name != *entry.key.1)
            .map(|pod_name| (entry.key.0.clone(), pod_name));

        let mut change = Change {
            uid: uid.clone(),
            namespace: entry.key.0.clone(),
            name: entry.key.1.clone(),
            row: row.clone(),
            names: Vec::new(),
            pod_names: Vec::new(),
            deleted: row.is_none() && before.as_ref().is_some_and(|before| before.name.is_some()),
        };
        let same_row = match (&before, &row) {
            (Some(before), Some(row)) => Arc::ptr_eq(&before.row, row),
            (None, None) => true,
            _ => false,
        };
        let known = entry.sandbox.is_some();
        let same_rank = before.as_ref().is_none_or(|before| before.known == known);
        let (old_name, old_pod_name) =
            before.map_or((None, None), |before| (before.name, before.pod_name));
        if !same_row || !same_rank || old_name != name {
            for key in old_name.iter().chain(&name) {
                change.names.push((key.clone(), None));
            }
        }
        if !same_row || old_pod_name != pod_name {
            if let Some(key) = old_pod_name.filter(|old| Some(old) != pod_name.as_ref()) {
                change.pod_names.push((key, None));
            }
            if let Some(key) = &pod_name {
                change.pod_names.push((key.clone(), row.clone()));
            }
        }
        let changed = !same_row || !change.names.is_empty() || !change.pod_names.is_empty();
        entry.published = row.map(|row| Published {
            row,
            known,
            name,
            pod_name,
        });
        if emptied {
            let key = entry.key.clone();
            self.entries.remove(uid);
            self.unclaim(&key, uid);
        }
        changed.then_some(change)
    }

    /// The row that a name leads to: a known Sandbox before a mere pod, a ready one before others,
    /// the newest before older ones.
    fn holder(&self, key: &NameKey) -> Option<Arc<Row>> {
        self.claims
            .get(key)?
            .iter()
            .filter_map(|uid| {
                let entry = self.entries.get(uid)?;
                let published = entry.published.as_ref()?;
                published.name.as_ref().filter(|name| *name == key)?;
                let rank = (
                    published.known,
                    published.row.state == State::Ready,
                    entry.born,
                );
                Some((rank, &published.row))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, row)| row.clone())
    }

    fn entry(&mut self, uid: Uid, key: NameKey) -> &mut Entry {
        let born = self.number();
        let (claims, pools) = (&mut self.claims, &self.pools);
        self.entries.entry(uid.clone()).or_insert_with(|| {
            let mut neighbours = pools.values().filter(|it| it.facts.namespace == key.0);
            let given = neighbours.any(|it| it.facts.given.contains(&uid));
            claims.entry(key.clone()).or_default().push(uid);
            Entry {
                given,
                key,
                sandbox: None,
                pods: Vec::with_capacity(1),
                load: Arc::default(),
                born,
                published: None,
            }
        })
    }

    fn rename(&mut self, uid: &Uid, key: NameKey) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        if entry.key == key {
            return;
        }
        let old = std::mem::replace(&mut entry.key, key.clone());
        self.claims.entry(key).or_default().push(uid.clone());
        self.unclaim(&old, uid);
    }

    fn unclaim(&mut self, key: &NameKey, uid: &Uid) {
        if let Some(uids) = self.claims.get_mut(key) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    /// Lets go of interned texts that nothing else holds any more, once they may be half of all.
    fn sweep_strings(&mut self) {
        if self.strings.len() > self.swept * 2 + 64 {
            self.strings.retain(|text| Arc::strong_count(text) > 1);
            self.swept = self.strings.len();
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// What an entry amounts to.
struct View {
    state: State,
    addresses: Addresses,
    incarnation: u64,
    nameable: bool,
    pod_name: Option<Arc<str>>,
}

impl View {
    fn matches(&self, row: &Row, key: &NameKey) -> bool {
        row.state == self.state
            && row.addresses == self.addresses
            && row.incarnation == self.incarnation
            && row.namespace == key.0
            && row.name == key.1
    }
}

impl Entry {
    fn view(&self, trust: Trust) -> Option<View> {
        let sandbox = self.sandbox.as_ref().map(|seen| &seen.facts);
        if sandbox.is_none() && (trust == Trust::Sandboxes || self.pods.is_empty()) {
            return None;
        }
        // The newest routable pod that the Sandbox would call its own.
        let pod = self
            .pods
            .iter()
            .filter(|pod| {
                let facts = &pod.seen.facts;
                sandbox.is_none_or(|sandbox| {
                    facts.name == *sandbox.pod_name.as_ref().unwrap_or(&sandbox.name)
                })
            })
            .max_by_key(|pod| (pod.seen.facts.is_routable(), pod.incarnation));
        let routable = pod.filter(|pod| pod.seen.facts.is_routable());
        let state = match sandbox.map(|sandbox| sandbox.phase) {
            Some(Phase::Gone) => State::Gone,
            Some(Phase::Suspended) => State::Suspended,
            _ if routable.is_some() => State::Ready,
            Some(Phase::Finished) => State::Gone,
            Some(Phase::Running) | None => State::Starting,
        };
        let pooled = match sandbox {
            Some(sandbox) => sandbox.pooled,
            None => pod.is_some_and(|pod| pod.seen.facts.pooled),
        };
        let (addresses, incarnation) = match routable {
            Some(pod) if state == State::Ready => (pod.seen.facts.addresses, pod.incarnation),
            _ => (Addresses::default(), 0),
        };
        Some(View {
            state,
            addresses,
            incarnation,
            nameable: !pooled || self.given,
            pod_name: pod.map(|pod| pod.seen.facts.name.clone()),
        })
    }
}

impl PodFacts {
    fn is_routable(&self) -> bool {
        self.ready && !self.deleting && !self.addresses.is_empty()
    }
}
