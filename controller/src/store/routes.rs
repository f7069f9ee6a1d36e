//! What a change means: which indexes move, which work it causes, which deadlines it sets. One
//! function per kind, each a plain function of the row before and the row after.

use std::collections::{BTreeMap, BTreeSet};

use agent_sandbox_crds::claim::Warmth;
use agent_sandbox_crds::{condition, labels};

use super::{Deadline, State, Table, Work};
use crate::expiry::Target;
use crate::ident::{Key, Text, Uid};
use crate::objects::{
    ClaimRow, Head, NodeRow, Owner, OwnerKind, PodRow, PolicyRow, PoolRow, Row, SandboxRow,
    ServiceRow, Source, TemplateRow, VolumeClaimRow,
};
use crate::queue::Priority;

/// A kind with a table in the store.
pub trait Stored: Row {
    /// Its table.
    fn table(state: &mut State) -> &mut Table<Self>;

    /// Whether `work` is the one that reconciles the object of this key, and so writes its status.
    fn is_reconciled_by(_key: &Key, _work: &Work) -> bool {
        false
    }

    /// Updates indexes and names the consequences of a change.
    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed);
}

/// The consequences of a change.
#[derive(Debug, Default)]
pub struct Routed {
    pub(super) work: Vec<Work>,
    pub(super) deadlines: Vec<Deadline>,
}

pub(super) fn route<R: Stored>(state: &mut State, new: Option<&R>, old: Option<&R>) -> Routed {
    let mut out = Routed::default();
    R::changed(state, new, old, &mut out);
    out
}

/// How urgent a sandbox is: a pool's unclaimed member can wait, anything else has somebody waiting.
pub(super) fn priority(row: &SandboxRow) -> Priority {
    match &row.head.owner {
        Some(owner) if owner.kind == OwnerKind::Pool => Priority::Low,
        _ => Priority::High,
    }
}

impl Stored for SandboxRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.sandboxes
    }

    fn is_reconciled_by(key: &Key, work: &Work) -> bool {
        matches!(work, Work::Sandbox(own, _) if own == key)
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(head) = new.or(old).map(|row| &row.head) else {
            return;
        };
        reindex_owner(
            &mut state.sandboxes_by_owner,
            head,
            new.map(|r| &r.head),
            old.map(|r| &r.head),
        );
        count_user(
            state,
            new.map(|row| (&row.head, &*row.labels)),
            old.map(|row| (&row.head, &*row.labels)),
            out,
        );
        state.census.changed(new, old);
        if let Some(row) = new {
            let healthy = state.node_is_healthy(row.status.node_name.as_ref());
            if state.availability.update(row, healthy) {
                wake_waiting(state, row, out);
            }
            out.work
                .push(Work::Sandbox(row.head.key.clone(), priority(row)));
        }
        if let Some(gone) = old.filter(|old| new.is_none_or(|new| new.head.uid != old.head.uid)) {
            state.availability.remove(gone.head.uid);
        }
        if new.is_none() {
            // Once more, so that what is kept about it in memory is dropped.
            out.work
                .push(Work::Sandbox(head.key.clone(), Priority::Low));
            // A claim may be waiting for its own name to be free.
            if state.claims.get(&head.key).is_some() {
                out.work.push(Work::Claim(head.key.clone()));
            }
        }
        out.deadlines.push((
            Target::Sandbox(head.key.clone()),
            new.and_then(|row| row.shutdown_time),
        ));

        let owners = [old, new]
            .into_iter()
            .flatten()
            .filter_map(|row| row.head.owner.as_ref());
        for owner in distinct(owners) {
            let key = head.key.sibling(owner.name.clone());
            match owner.kind {
                OwnerKind::Claim if claim_cares(new, old) => out.work.push(Work::Claim(key)),
                OwnerKind::Pool if pool_cares(new, old) => out.work.push(Work::Pool(key)),
                _ => {}
            }
        }
    }
}

/// Whether a change of a sandbox can change its claim's status.
fn claim_cares(new: Option<&SandboxRow>, old: Option<&SandboxRow>) -> bool {
    let (Some(new), Some(old)) = (new, old) else {
        return true;
    };
    let condition = |row: &SandboxRow, kind| row.status.conditions.get(kind).cloned();
    new.head.uid != old.head.uid
        || new.head.owner != old.head.owner
        || new.head.is_deleting() != old.head.is_deleting()
        || new.status.pod_ips != old.status.pod_ips
        || condition(new, condition::READY) != condition(old, condition::READY)
        || condition(new, condition::FINISHED) != condition(old, condition::FINISHED)
}

/// Whether a change of a sandbox can change its pool's membership or counts.
fn pool_cares(new: Option<&SandboxRow>, old: Option<&SandboxRow>) -> bool {
    let (Some(new), Some(old)) = (new, old) else {
        return true;
    };
    let finished = |row: &SandboxRow| row.is_finished();
    new.head.uid != old.head.uid
        || new.head.owner != old.head.owner
        || new.head.is_deleting() != old.head.is_deleting()
        || new.is_ready() != old.is_ready()
        || finished(new) != finished(old)
        || new.head.generation != old.head.generation
        || new.labels != old.labels
}

/// Queues the claims that wait for a member of this sandbox's pool.
fn wake_waiting(state: &mut State, row: &SandboxRow, out: &mut Routed) {
    let Some(owner) = &row.head.owner else {
        return;
    };
    let waiting = state.waiting_claims.remove(&owner.uid).unwrap_or_default();
    out.work.extend(waiting.into_iter().map(Work::Claim));
}

impl Stored for PodRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.pods
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(head) = new.or(old).map(|row| &row.head) else {
            return;
        };
        reindex_owner(
            &mut state.pods_by_owner,
            head,
            new.map(|r| &r.head),
            old.map(|r| &r.head),
        );
        count_user(
            state,
            new.map(|row| (&row.head, &*row.labels)),
            old.map(|row| (&row.head, &*row.labels)),
            out,
        );
        wake_sandbox(state, new.map(|r| &r.head), old.map(|r| &r.head), out);
    }
}

impl Stored for ServiceRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.services
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        wake_sandbox(state, new.map(|r| &r.head), old.map(|r| &r.head), out);
    }
}

impl Stored for VolumeClaimRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.volume_claims
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        // A bound or resized volume says nothing to the operator; only ownership does.
        if let (Some(new), Some(old)) = (new, old)
            && new.head.uid == old.head.uid
            && new.head.owner == old.head.owner
            && new.head.is_deleting() == old.head.is_deleting()
        {
            return;
        }
        wake_sandbox(state, new.map(|r| &r.head), old.map(|r| &r.head), out);
        if let Some(head) = new.or(old).map(|row| &row.head) {
            wake_namesakes(state, head, out);
        }
    }
}

/// Queues the sandboxes that could have a volume claim of this name: the name ends in theirs. One of them
/// may have been refused it while another had it.
fn wake_namesakes(state: &State, head: &Head, out: &mut Routed) {
    let name = &*head.key.name;
    for (at, _) in name.match_indices('-') {
        let (_, rest) = name.split_at(at);
        let key = head.key.sibling(rest.trim_start_matches('-'));
        if let Some(row) = state.sandboxes.get(&key) {
            out.work.push(Work::Sandbox(key, priority(row)));
        }
    }
}

/// Queues the sandbox that controls a child, and the one whose name the child holds.
fn wake_sandbox(state: &State, new: Option<&Head>, old: Option<&Head>, out: &mut Routed) {
    let heads = [old, new];
    let owners = heads
        .into_iter()
        .flatten()
        .filter_map(|head| head.owner.as_ref())
        .filter(|owner| owner.kind == OwnerKind::Sandbox);
    let Some(key) = new.or(old).map(|head| &head.key) else {
        return;
    };
    let mut keys: BTreeSet<Key> = distinct(owners)
        .map(|owner| key.sibling(owner.name.clone()))
        .collect();
    keys.insert(key.clone());
    for key in keys {
        if let Some(row) = state.sandboxes.get(&key) {
            out.work.push(Work::Sandbox(key, priority(row)));
        }
    }
}

impl Stored for ClaimRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.claims
    }

    fn is_reconciled_by(key: &Key, work: &Work) -> bool {
        matches!(work, Work::Claim(own) if own == key)
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(head) = new.or(old).map(|row| &row.head) else {
            return;
        };
        let refs = |row: Option<&Self>| row.map(source_keys).unwrap_or_default();
        let (old_pool, old_template) = refs(old);
        let (new_pool, new_template) = refs(new);
        reindex(&mut state.claims_by_pool, &head.key, new_pool, old_pool);
        reindex(
            &mut state.claims_by_template,
            &head.key,
            new_template,
            old_template,
        );
        if let Some(gone) = old.filter(|old| new.is_none_or(|new| new.head.uid != old.head.uid)) {
            state.availability.release(gone.head.uid);
        }
        out.deadlines.push((
            Target::Claim(head.key.clone()),
            new.filter(|row| !row.head.is_deleting())
                .and_then(Self::expires_at),
        ));
        // A deleted claim is queued once more, so that what is kept about it in memory is dropped.
        out.work.push(Work::Claim(head.key.clone()));
    }
}

/// The pool and the template a claim names.
fn source_keys(row: &ClaimRow) -> (Option<Key>, Option<Key>) {
    let key = |name: &Text| Some(row.head.key.sibling(name.clone()));
    match &row.source {
        Source::Pool(pool) => (key(pool), None),
        Source::Template {
            name,
            warmth: Warmth::Pool(pool),
        } => (key(pool), key(name)),
        Source::Template { name, .. } => (None, key(name)),
    }
}

impl Stored for TemplateRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.templates
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(key) = new.or(old).map(|row| row.head.key.clone()) else {
            return;
        };
        out.work.push(Work::Template(key.clone()));
        let pools: Vec<Key> = state
            .pools_by_template
            .get(&key)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let created = old.is_none() && new.is_some();
        if created {
            let direct = state.claims_by_template.get(&key).into_iter().flatten();
            let through_pools = pools
                .iter()
                .filter_map(|pool| state.claims_by_pool.get(pool))
                .flatten();
            let claims: BTreeSet<&Key> = direct.chain(through_pools).collect();
            out.work
                .extend(claims.into_iter().cloned().map(Work::Claim));
        }
        out.work.extend(pools.into_iter().map(Work::Pool));
        let calls_for_policy = |row: Option<&Self>| {
            row.map(|row| (row.head.uid, row.spec.network_policy_management.clone()))
        };
        if calls_for_policy(new) != calls_for_policy(old)
            && let Some(row) = new.or(old)
        {
            wake_podless(state, &key.namespace, &row.ref_hash, out);
        }
    }
}

impl Stored for PoolRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.pools
    }

    fn is_reconciled_by(key: &Key, work: &Work) -> bool {
        matches!(work, Work::Pool(own) if own == key)
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(key) = new.or(old).map(|row| row.head.key.clone()) else {
            return;
        };
        let template =
            |row: Option<&Self>| row.map(|row| row.head.key.sibling(row.template.clone()));
        reindex(
            &mut state.pools_by_template,
            &key,
            template(new),
            template(old),
        );
        out.work.push(Work::Pool(key.clone()));
        let spec_changed = match (new, old) {
            (Some(new), Some(old)) => {
                new.head.generation != old.head.generation || new.head.uid != old.head.uid
            }
            _ => true,
        };
        if spec_changed {
            let by_name = state.claims_by_pool.get(&key).into_iter().flatten();
            let by_template = template(new)
                .and_then(|template| state.claims_by_template.get(&template))
                .into_iter()
                .flatten();
            let unbound = by_name.chain(by_template).filter(|claim| {
                state
                    .claims
                    .get(claim)
                    .is_some_and(|row| row.bound.name.is_none() && !row.head.is_deleting())
            });
            let claims: BTreeSet<&Key> = unbound.collect();
            out.work
                .extend(claims.into_iter().cloned().map(Work::Claim));
        }
        if let Some(gone) = old.filter(|_| new.is_none()) {
            state.waiting_claims.remove(&gone.head.uid);
        }
    }
}

impl Stored for PolicyRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.policies
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(row) = new.or(old) else {
            return;
        };
        let key = &row.head.key;
        let templates: BTreeSet<Text> = [old, new]
            .into_iter()
            .flatten()
            .filter_map(|row| {
                let named = row.template.as_ref().map(|(name, _)| name.clone());
                let owner = row.head.owner.as_ref();
                named.or_else(|| {
                    owner
                        .filter(|owner| owner.kind == OwnerKind::Template)
                        .map(|owner| owner.name.clone())
                })
            })
            .collect();
        for template in templates {
            let template = key.sibling(template);
            if new.is_some_and(|new| old.is_none_or(|old| may_now_protect(new, old)))
                && let Some(row) = state.templates.get(&template)
            {
                wake_podless(state, &key.namespace, &row.ref_hash, out);
            }
            out.work.push(Work::Template(template));
        }
    }
}

/// Whether a policy may have become what pods wait for.
fn may_now_protect(new: &PolicyRow, old: &PolicyRow) -> bool {
    new.head.uid != old.head.uid
        || new.head.owner != old.head.owner
        || new.head.is_deleting() != old.head.is_deleting()
        || new.template != old.template
}

/// Queues the sandboxes that carry a template's hash and have no pod: they may be waiting for its policy.
fn wake_podless(state: &State, namespace: &Text, ref_hash: &Text, out: &mut Routed) {
    let waiting = state.sandboxes.iter().filter(|sandbox| {
        sandbox.head.key.namespace == *namespace
            && sandbox
                .labels
                .has(labels::SANDBOX_TEMPLATE_REF_HASH, ref_hash)
            && !state.pods_by_owner.contains_key(&sandbox.head.uid)
    });
    out.work
        .extend(waiting.map(|row| Work::Sandbox(row.head.key.clone(), priority(row))));
}

impl Stored for NodeRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.nodes
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, _out: &mut Routed) {
        let healthy = |row: Option<&Self>| row.is_none_or(|row| row.healthy);
        if healthy(new) == healthy(old) {
            return;
        }
        let Some(name) = new.or(old).map(|row| row.head.key.name.clone()) else {
            return;
        };
        for key in state.availability.on_node(&name) {
            if let Some(row) = state.sandboxes.get(&key).cloned() {
                state.availability.update(&row, healthy(new));
            }
        }
    }
}

/// Keeps count of the sandboxes and pods that carry a template's hash, and queues the template when
/// its last one is gone: its policy may go now.
fn count_user(
    state: &mut State,
    new: Option<(&Head, &crate::objects::Labels)>,
    old: Option<(&Head, &crate::objects::Labels)>,
    out: &mut Routed,
) {
    let user = |row: Option<(&Head, &crate::objects::Labels)>| {
        let (head, set) = row?;
        let hash = set.get(labels::SANDBOX_TEMPLATE_REF_HASH)?;
        Some((head.key.namespace.clone(), hash.clone()))
    };
    let (new, old) = (user(new), user(old));
    if new == old {
        return;
    }
    if let Some(user) = new {
        *state.template_users.entry(user).or_default() += 1;
    }
    let Some(user) = old else {
        return;
    };
    if let Some(count) = state.template_users.get_mut(&user) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            state.template_users.remove(&user);
            let (namespace, hash) = &user;
            let policies = state.policies.iter().filter(|policy| {
                policy.head.key.namespace == *namespace && policy.ref_hash() == Some(hash)
            });
            out.work.extend(policies.filter_map(|policy| {
                let (template, _) = policy.template.as_ref()?;
                Some(Work::Template(policy.head.key.sibling(template.clone())))
            }));
        }
    }
}

fn reindex_owner(
    index: &mut BTreeMap<Uid, BTreeSet<Key>>,
    head: &Head,
    new: Option<&Head>,
    old: Option<&Head>,
) {
    let owner = |head: Option<&Head>| Some(head?.owner.as_ref()?.uid);
    reindex(index, &head.key, owner(new), owner(old));
}

fn reindex<I: Ord>(
    index: &mut BTreeMap<I, BTreeSet<Key>>,
    key: &Key,
    new: Option<I>,
    old: Option<I>,
) {
    if new == old {
        return;
    }
    if let Some(old) = old
        && let Some(keys) = index.get_mut(&old)
    {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(&old);
        }
    }
    if let Some(new) = new {
        index.entry(new).or_default().insert(key.clone());
    }
}

fn distinct<'a>(owners: impl Iterator<Item = &'a Owner>) -> impl Iterator<Item = &'a Owner> {
    let mut seen: Vec<&'a Owner> = Vec::new();
    for owner in owners {
        if !seen.contains(&owner) {
            seen.push(owner);
        }
    }
    seen.into_iter()
}
