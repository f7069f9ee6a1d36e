//! Everything the operator knows, in one place: a [`Table`] per kind, the indexes derived from the
//! tables, and the routing of every change to the work it causes. Watches and successful writes feed
//! it; reconcilers read it. One lock, held for microseconds and never across an await. It does no
//! I/O.

mod allocations;
mod availability;
mod census;
mod owned;
mod roll;
mod routes;
mod table;
mod template_users;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;

use crate::expiry::{Deadlines, Target};
use crate::ident::{Key, Revision, Text, Uid};
use crate::intern::Interner;
use crate::objects::{
    ClaimRow, DecodeError, Head, Make, NodeHealth, NodeRow, PodRow, PolicyRow, PoolRow, SandboxRow,
    ServiceRow, TemplateRow, VolumeClaimRow,
};
use crate::queue::{Priority, Queue};

pub use allocations::{Allocations, End, Hold, Purpose, Revised};
pub use availability::{Availability, Class, Pick};
pub use census::{Census, Sort};
use owned::Owned;
pub use roll::{Around, Group, Line, Member, PoolId, Roll, Rolls, Standing};
pub use routes::Stored;
pub use table::{Delta, Seen, Table};
pub use template_users::Rival;

/// A key with the queue it belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Work {
    /// Reconcile a sandbox.
    Sandbox(Key, Priority),
    /// Reconcile a claim.
    Claim(Key),
    /// Reconcile a claim when no other one waits: it has its sandbox, and there may be thousands of it.
    ServedClaim(Key),
    /// Make a claim the owner of the sandbox that it was given.
    Handover(Key),
    /// Reconcile a template.
    Template(Key),
    /// Reconcile a pool.
    Pool(Key),
}

/// The queues of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Sandboxes.
    pub sandboxes: Queue,
    /// Claims.
    pub claims: Queue,
    /// Claims whose sandboxes do not say yet whose they are.
    pub handovers: Queue,
    /// Templates.
    pub templates: Queue,
    /// Pools.
    pub pools: Queue,
}

impl Queues {
    /// Queues a piece of work now.
    pub fn add(&self, work: Work) {
        match work {
            Work::Sandbox(key, priority) => self.sandboxes.add(key, priority),
            Work::Claim(key) => self.claims.add(key, Priority::High),
            Work::ServedClaim(key) => self.claims.add(key, Priority::Low),
            Work::Handover(key) => self.handovers.add(key, Priority::High),
            Work::Template(key) => self.templates.add(key, Priority::High),
            Work::Pool(key) => self.pools.add(key, Priority::High),
        }
    }
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: RwLock<State>,
    census: Census,
    interner: Interner,
    queues: Queues,
    deadlines: Deadlines,
}

/// The tables and the indexes over them.
#[derive(Debug, Default)]
pub struct State {
    sandboxes: Table<SandboxRow>,
    pods: Table<PodRow>,
    services: Table<ServiceRow>,
    volume_claims: Table<VolumeClaimRow>,
    claims: Table<ClaimRow>,
    templates: Table<TemplateRow>,
    pools: Table<PoolRow>,
    policies: Table<PolicyRow>,
    nodes: Table<NodeRow>,
    sandboxes_by_owner: Owned,
    pods_by_owner: Owned,
    pools_by_template: BTreeMap<Key, BTreeSet<Key>>,
    claims_by_pool: BTreeMap<Key, BTreeSet<Key>>,
    claims_by_template: BTreeMap<Key, BTreeSet<Key>>,
    template_users: template_users::TemplateUsers,
    /// Policies that were deleted although pods need them and their templates are gone.
    fallen_policies: BTreeMap<Key, Arc<PolicyRow>>,
    /// Policies that older controllers made for claims, by their own names. Nobody watches them.
    legacy_policies: BTreeMap<Key, Arc<PolicyRow>>,
    allocations: Allocations,
    availability: Availability,
    census: Census,
    rolls: Rolls,
    /// Claims that wait for a member of a pool to get its address, oldest first.
    waiting_claims: BTreeMap<PoolId, BTreeSet<(Timestamp, Key)>>,
}

impl Store {
    /// An empty store that feeds `queues` and `deadlines`.
    pub fn new(queues: Queues, deadlines: Deadlines) -> Self {
        let state = State::default();
        Self {
            shared: Arc::new(Shared {
                census: state.census.clone(),
                state: RwLock::new(state),
                interner: Interner::default(),
                queues,
                deadlines,
            }),
        }
    }

    /// How many sandboxes there are of each sort.
    pub fn census(&self) -> Census {
        self.shared.census.clone()
    }

    /// The interner that decoders use.
    pub fn interner(&self) -> &Interner {
        &self.shared.interner
    }

    /// Takes an object from the watch or a list.
    ///
    /// # Errors
    /// When the object cannot be understood; the store is unchanged.
    pub fn observe<R: Stored>(
        &self,
        wire: R::Wire,
        seen: Seen,
    ) -> Result<(Key, Revision), DecodeError> {
        let row = R::from_wire(wire, &self.shared.interner)?;
        let key = row.head().key.clone();
        let revision = row.head().revision;
        self.change(None, |state| R::table(state).observe(row, seen));
        Ok((key, revision))
    }

    /// Takes a deletion from the watch.
    ///
    /// # Errors
    /// When the object cannot be understood; the store is unchanged.
    pub fn observe_deleted<R: Stored>(&self, wire: R::Wire) -> Result<Revision, DecodeError> {
        let row = R::from_wire(wire, &self.shared.interner)?;
        let head = row.head();
        self.change(None, |state| {
            R::table(state).observe_deleted(&head.key, head.uid, head.revision)
        });
        Ok(head.revision)
    }

    /// Takes a bookmark of the watch.
    pub fn observe_progress<R: Stored>(&self, revision: Revision) {
        R::table(&mut self.shared.state.write()).observe_progress(revision);
    }

    /// Ends a list; see [`Table::finish_list`].
    pub fn finish_list<R: Stored>(&self, revision: Revision, listed: &BTreeSet<Key>) {
        let gone = R::table(&mut self.shared.state.write()).finish_list(revision, listed);
        for row in gone {
            self.route::<R>(None, Some(&row), None);
            drop(row);
            self.shared.interner.release();
        }
    }

    /// Takes the object that a successful write of ours, or an uncached read, returned. `by` is the
    /// work that made the write: it is not queued again for its own doing. For an object that existed
    /// before, that holds only where nobody else can have had a part in the difference: the answer to
    /// a patch also carries what others wrote just before it, and the watch will not tell of that again.
    ///
    /// # Errors
    /// When the object cannot be understood; the watch will deliver it again.
    pub fn assume<R: Stored>(
        &self,
        wire: R::Wire,
        by: Option<&Work>,
    ) -> Result<Arc<R>, DecodeError> {
        let row = R::from_wire(wire, &self.shared.interner)?;
        let key = row.head().key.clone();
        let uid = row.head().uid;
        // What the write returned is what the caller goes on with, even when the watch was faster.
        let mut returned = None;
        self.change(by, |state| {
            let delta = R::table(state).assume(row);
            returned = R::table(state).get(&key).cloned();
            delta
        });
        returned
            .filter(|row: &Arc<R>| row.head().uid == uid)
            .ok_or_else(|| DecodeError::Member {
                kind: R::KIND,
                key,
                reason: "it was deleted meanwhile".to_owned(),
            })
    }

    /// Takes the news that a delete of ours removed an object at once.
    pub fn assume_deleted<R: Stored>(&self, key: &Key, uid: Uid, by: Option<&Work>) {
        self.change(by, |state| R::table(state).assume_deleted(key, uid));
    }

    /// Reads the state under the lock. Rows are shared; take what is needed and let go.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state.read())
    }

    /// Reserves a member for a claim; see [`Availability::pick`].
    pub fn pick(
        &self,
        pool: &PoolId,
        claim: Uid,
        eligible: impl FnMut(&Make) -> bool,
    ) -> Option<Arc<SandboxRow>> {
        let mut state = self.shared.state.write();
        let pick = state.availability.pick(pool, claim, eligible)?;
        state.sandboxes.get(&pick.key).cloned()
    }

    /// Ends a claim's reservation.
    pub fn release(&self, claim: Uid) {
        self.shared.state.write().availability.release(claim);
    }

    /// What has left the pool's record up to `settled` left it by a write of this process.
    pub fn verify_record(&self, pool: &PoolId, settled: Revision) {
        let mut state = self.shared.state.write();
        state.allocations.verify(pool, settled);
    }

    /// Takes the news, from an uncached read, that a member a record names is gone.
    pub fn note_gone(&self, sandbox: Uid) {
        let mut state = self.shared.state.write();
        state.allocations.observe_gone(sandbox);
    }

    /// Queues the handing over of a claim's sandbox.
    pub fn hand_over(&self, claim: &Key) {
        self.shared.queues.add(Work::Handover(claim.clone()));
    }

    /// Registers a claim as waiting for a member of `pool`; it is queued when one turns up for it.
    pub fn wait_for_member(&self, pool: PoolId, claim: &ClaimRow) {
        self.shared
            .state
            .write()
            .waiting_claims
            .entry(pool)
            .or_default()
            .insert((claim.head.created, claim.head.key.clone()));
    }

    /// Takes note of a policy that an older controller made for the claim that controls it, and queues the
    /// claim.
    pub fn note_legacy_policy(&self, row: PolicyRow) {
        let Some(owner) = &row.head.owner else {
            return;
        };
        let key = row.head.key.clone();
        let claim = key.sibling(owner.name.clone());
        let mut state = self.shared.state.write();
        state.legacy_policies.insert(key, Arc::new(row));
        drop(state);
        self.shared.queues.add(Work::Claim(claim));
    }

    /// Such a policy is gone, or is somebody else's.
    pub fn forget_legacy_policy(&self, key: &Key) {
        self.shared.state.write().legacy_policies.remove(key);
    }

    /// Queues everything once, as after a restart or a change of leadership: claims first.
    pub fn queue_all(&self) {
        let work: Vec<Work> = {
            let state = self.shared.state.read();
            let claims = state
                .claims
                .iter()
                .map(|row| Work::Claim(row.head.key.clone()));
            let templates = state
                .templates
                .iter()
                .map(|row| Work::Template(row.head.key.clone()))
                .chain(state.policies.iter().filter_map(|row| {
                    let (template, _) = row.template.as_ref()?;
                    Some(Work::Template(row.head.key.sibling(template.clone())))
                }))
                .chain(state.gone_templates().map(Work::Template));
            let pools = state
                .pools
                .iter()
                .map(|row| Work::Pool(row.head.key.clone()));
            let sandboxes = state
                .sandboxes
                .iter()
                .map(|row| Work::Sandbox(row.head.key.clone(), routes::priority(row)));
            claims
                .chain(templates)
                .chain(pools)
                .chain(sandboxes)
                .collect()
        };
        for piece in work {
            self.shared.queues.add(piece);
        }
    }

    fn change<R: Stored>(&self, by: Option<&Work>, change: impl FnOnce(&mut State) -> Delta<R>) {
        let mut state = self.shared.state.write();
        match change(&mut state) {
            Delta::None => {}
            Delta::Set { old, new } => {
                let by = by.filter(|by| {
                    old.as_ref().is_none_or(|old| {
                        R::is_reconciled_by(&new.head().key, by)
                            && new.differs_in_own_status_only(old)
                    })
                });
                let routed = routes::route(&mut state, Some(&*new), old.as_deref());
                drop(state);
                self.dispatch(routed, by);
            }
            Delta::Removed(old) => {
                let routed = routes::route::<R>(&mut state, None, Some(&*old));
                drop(state);
                self.dispatch(routed, by);
                drop(old);
                self.shared.interner.release();
            }
        }
    }

    fn route<R: Stored>(&self, new: Option<&R>, old: Option<&R>, by: Option<&Work>) {
        let routed = routes::route(&mut self.shared.state.write(), new, old);
        self.dispatch(routed, by);
    }

    fn dispatch(&self, routed: routes::Routed, by: Option<&Work>) {
        for (target, at) in routed.deadlines {
            self.shared.deadlines.set(target, at);
        }
        for piece in routed.work {
            let own = match (&piece, by) {
                (Work::Sandbox(key, _), Some(Work::Sandbox(own, _)))
                | (Work::Claim(key), Some(Work::Claim(own)))
                | (Work::Template(key), Some(Work::Template(own)))
                | (Work::Pool(key), Some(Work::Pool(own))) => key == own,
                _ => false,
            };
            if !own {
                self.shared.queues.add(piece);
            }
        }
    }
}

impl State {
    /// A sandbox.
    pub fn sandbox(&self, key: &Key) -> Option<Arc<SandboxRow>> {
        self.sandboxes.get(key).cloned()
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> impl Iterator<Item = &Arc<SandboxRow>> {
        self.sandboxes.iter()
    }

    /// The sandboxes controlled by the object with this UID, which is no pool's.
    pub fn sandboxes_of(&self, owner: Uid) -> impl Iterator<Item = &Arc<SandboxRow>> {
        let keys = self.sandboxes_by_owner.of(owner);
        keys.filter_map(|key| self.sandboxes.get(key))
    }

    /// A pod.
    pub fn pod(&self, key: &Key) -> Option<Arc<PodRow>> {
        self.pods.get(key).cloned()
    }

    /// The pods controlled by the object with this UID.
    pub fn pods_of(&self, owner: Uid) -> impl Iterator<Item = &Arc<PodRow>> {
        let keys = self.pods_by_owner.of(owner);
        keys.filter_map(|key| self.pods.get(key))
    }

    /// A Service.
    pub fn service(&self, key: &Key) -> Option<Arc<ServiceRow>> {
        self.services.get(key).cloned()
    }

    /// A volume claim.
    pub fn volume_claim(&self, key: &Key) -> Option<Arc<VolumeClaimRow>> {
        self.volume_claims.get(key).cloned()
    }

    /// A claim.
    pub fn claim(&self, key: &Key) -> Option<Arc<ClaimRow>> {
        self.claims.get(key).cloned()
    }

    /// A template.
    pub fn template(&self, key: &Key) -> Option<Arc<TemplateRow>> {
        self.templates.get(key).cloned()
    }

    /// A pool.
    pub fn pool(&self, key: &Key) -> Option<Arc<PoolRow>> {
        self.pools.get(key).cloned()
    }

    /// The pools that use a template.
    pub fn pools_of_template(&self, template: &Key) -> Vec<Arc<PoolRow>> {
        self.pools_by_template
            .get(template)
            .into_iter()
            .flatten()
            .filter_map(|key| self.pool(key))
            .collect()
    }

    /// A network policy.
    pub fn policy(&self, key: &Key) -> Option<Arc<PolicyRow>> {
        self.policies.get(key).cloned()
    }

    /// A policy that an older controller made for a claim.
    pub fn legacy_policy(&self, key: &Key) -> Option<Arc<PolicyRow>> {
        self.legacy_policies.get(key).cloned()
    }

    /// How well a node is for a pod of this spec, and since when it is as Ready as it is; an unknown one
    /// is fine.
    pub fn node_health(
        &self,
        node: Option<&Text>,
        pod_spec: &str,
    ) -> (NodeHealth, Option<Timestamp>) {
        node.and_then(|name| self.nodes.get(&Key::new("", name.clone())))
            .map_or((NodeHealth::Fine, None), |row| {
                (row.health_for(pod_spec), row.since)
            })
    }

    /// The claims' sandboxes that do not say so themselves yet, and the members about to be deleted.
    pub fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// The sandboxes that belong to a claim: those it owns, and those that a pool's record gives it. A
    /// reference from another namespace is whatever its writer likes, and means nothing.
    pub fn sandboxes_for<'a>(
        &'a self,
        claim: &'a Head,
    ) -> impl Iterator<Item = &'a Arc<SandboxRow>> {
        let owned = self.sandboxes_of(claim.uid);
        let given = self
            .allocations
            .of_claim(claim.uid)
            .filter_map(|hold| self.held(hold));
        let namespace = &claim.key.namespace;
        owned
            .chain(given)
            .filter(move |row| row.head.key.namespace == *namespace)
    }

    /// The sandbox of a hold, if it is known.
    pub fn held(&self, hold: &Hold) -> Option<&Arc<SandboxRow>> {
        let row = self.sandboxes.get(&hold.sandbox)?;
        (row.head.uid == hold.uid).then_some(row)
    }

    /// Whether a pool's record can be written on what is known of the sandboxes: everything that has
    /// left it has been seen.
    pub fn is_record_verified(&self, pool: &PoolId, settled: Revision) -> bool {
        let seen = self.sandboxes.progress();
        self.allocations.is_verified(pool, settled, seen)
    }

    /// The members of a pool; `None` when it has none.
    pub fn roll(&self, pool: &PoolId) -> Option<&Roll> {
        self.rolls.of(pool)
    }

    /// The availability index.
    pub fn availability(&self) -> &Availability {
        &self.availability
    }
}

/// A deadline to set or clear.
type Deadline = (Target, Option<Timestamp>);

#[cfg(test)]
mod tests;
