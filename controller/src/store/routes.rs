//! What a change means: which indexes move, which work it causes, which deadlines it sets. One
//! function per kind, each a plain function of the row before and the row after.

use std::collections::{BTreeMap, BTreeSet};

use agent_sandbox_crds::claim::Warmth;
use agent_sandbox_crds::{condition, names};

use super::template_users::{self, Shared, Users, carried};
use super::{Around, Deadline, PoolId, State, Table, Work};
use crate::expiry::Target;
use crate::ident::{Key, Text, Uid};
use crate::objects::{
    ClaimRow, Head, NodeRow, Owner, OwnerKind, PodRow, PolicyRow, PoolRow, Row, SandboxRow,
    ServiceRow, Source, TemplateRow, Truth, VolumeClaimRow,
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
        let shared = |row: Option<&Self>| carried(&row?.head, &row?.labels);
        // Only what a claim or a pool made has its pods covered by a template's policy.
        let named = |row: Option<&Self>| {
            let row = row.filter(|row| {
                let owner = row.head.owner.as_ref();
                owner.is_some_and(|owner| owner.kind.is_extension())
            });
            Some((shared(row)?, row?.template_name()?.clone()))
        };
        state.template_users.recount(named(new), named(old));
        state.template_users.shift(
            |users| &mut users.sandboxes,
            &head.key,
            shared(new),
            shared(old),
        );
        state.census.changed(new, old);
        if named(old) != named(new) || shared(old) != shared(new) {
            release(state, shared(old), old.and_then(Self::template_name), out);
        }
        let mut pool_cares = false;
        if let Some(row) = new {
            pool_cares |= take_stock(state, row, out);
            out.work
                .push(Work::Sandbox(row.head.key.clone(), priority(row)));
        }
        if let Some(gone) = old.filter(|old| new.is_none_or(|new| new.head.uid != old.head.uid)) {
            state.availability.remove(gone.head.uid);
            pool_cares |= state.rolls.remove(gone.head.uid);
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
                OwnerKind::Pool if pool_cares => out.work.push(Work::Pool(key)),
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

/// Brings what is kept of a pool's member up to date with its row, its pod and its node; `true` when
/// the pool has to know.
fn take_stock(state: &mut State, row: &SandboxRow, out: &mut Routed) -> bool {
    if PoolId::of_member(row).is_none() {
        state.availability.remove(row.head.uid);
        return state.rolls.remove(row.head.uid);
    }
    let lives = |pod: &PodRow| !pod.head.is_deleting() && !pod.phase.is_terminal();
    let pod = state
        .pods_of(row.head.uid)
        .filter(|pod| pod.head.key.namespace == row.head.key.namespace)
        .max_by_key(|pod| lives(pod))
        .cloned();
    let pod = pod.as_deref();
    let node = match pod {
        Some(pod) => pod.node.as_ref(),
        None => row.status.node_name.as_ref(),
    };
    let (health, node_since) = state.node_health(node, &row.pod.spec);
    let around = Around {
        pod,
        node,
        health,
        node_since,
    };
    let pool_cares = state.rolls.update(row, around);
    if state
        .availability
        .update(row, pod.is_some_and(lives), health)
    {
        wake_waiting(state, row, out);
    }
    pool_cares
}

/// Queues the claim that has waited longest for a member of this sandbox's pool: one member serves
/// one claim, and waking all of them for each would be work without end in a burst.
fn wake_waiting(state: &mut State, row: &SandboxRow, out: &mut Routed) {
    let Some(pool) = PoolId::of_member(row) else {
        return;
    };
    let Some(waiting) = state.waiting_claims.get_mut(&pool) else {
        return;
    };
    while let Some((_, key)) = waiting.pop_first() {
        // Whoever has a sandbox by now, or is gone, waits no longer.
        let waits = state
            .claims
            .get(&key)
            .is_some_and(|claim| !state.sandboxes_by_owner.contains_key(&claim.head.uid));
        if waits {
            out.work.push(Work::Claim(key));
            break;
        }
    }
    if waiting.is_empty() {
        state.waiting_claims.remove(&pool);
    }
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
        let shared = |row: Option<&Self>| carried(&row?.head, &row?.labels);
        state
            .template_users
            .shift(|users| &mut users.pods, &head.key, shared(new), shared(old));
        if shared(old) != shared(new) {
            release(state, shared(old), None, out);
        }
        let heads = [old, new].into_iter().flatten().map(|row| &row.head);
        let owners = heads.filter_map(|head| head.owner.as_ref());
        for owner in distinct(owners.filter(|owner| owner.kind == OwnerKind::Sandbox)) {
            let sandbox = state.sandboxes.get(&head.key.sibling(owner.name.clone()));
            if let Some(row) = sandbox.filter(|row| row.head.uid.is(owner.uid)).cloned() {
                tell_pool(state, &row, out);
            }
        }
        wake_sandbox(state, new.map(|r| &r.head), old.map(|r| &r.head), out);
    }
}

/// Takes stock of a member whose pod or node has changed, and queues its pool if it has to know.
fn tell_pool(state: &mut State, row: &SandboxRow, out: &mut Routed) {
    if take_stock(state, row, out)
        && let Some(owner) = &row.head.owner
    {
        let pool = row.head.key.sibling(owner.name.clone());
        out.work.push(Work::Pool(pool));
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

    fn is_reconciled_by(key: &Key, work: &Work) -> bool {
        matches!(work, Work::Template(own) if own == key)
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(row) = new.or(old) else {
            return;
        };
        let key = &row.head.key;
        let shared = template_users::own(row);
        state.template_users.shift(
            |users| &mut users.templates,
            key,
            new.map(|_| shared.clone()),
            old.map(|_| shared.clone()),
        );
        out.work.push(Work::Template(key.clone()));
        if let (Some(new), Some(old)) = (new, old)
            && new.differs_in_own_status_only(old)
            && verdict(new) == verdict(old)
        {
            return;
        }
        let pools: Vec<Key> = state
            .pools_by_template
            .get(key)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let came_or_went = new.map(|row| row.head.uid) != old.map(|row| row.head.uid);
        if new.is_some() && came_or_went {
            // A policy of an earlier template of the name is this one's business.
            let policy = key.sibling(names::network_policy(&key.name));
            state.fallen_policies.remove(&policy);
        }
        if old.is_none() {
            let direct = state.claims_by_template.get(key).into_iter().flatten();
            let through_pools = pools
                .iter()
                .filter_map(|pool| state.claims_by_pool.get(pool))
                .flatten();
            let claims: BTreeSet<&Key> = direct.chain(through_pools).collect();
            out.work
                .extend(claims.into_iter().cloned().map(Work::Claim));
        }
        out.work.extend(pools.into_iter().map(Work::Pool));
        if came_or_went {
            wake_covering(state, &shared, out);
        }
        let management = |row: &Self| row.spec.network_policy_management.clone();
        if came_or_went
            || new.map(management) != old.map(management)
            || new.map(verdict) != old.map(verdict)
        {
            wake_podless(state, &shared, out);
        }
    }
}

/// What a template's status says of its policy, as far as others act on it.
fn verdict(row: &TemplateRow) -> Option<(Truth, Text)> {
    let condition = row.status.conditions.get(condition::NETWORK_POLICY_READY)?;
    Some((condition.status, condition.reason.clone()))
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
            let pool = PoolId::new(&gone.head.key, gone.head.uid);
            state.waiting_claims.remove(&pool);
        }
    }
}

impl Stored for PolicyRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.policies
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        let Some(key) = new.or(old).map(|row| row.head.key.clone()) else {
            return;
        };
        let shared = |row: Option<&Self>| template_users::covered(row?);
        state
            .template_users
            .shift(|users| &mut users.policies, &key, shared(new), shared(old));
        match (new, old) {
            (Some(_), _) => {
                state.fallen_policies.remove(&key);
            }
            (None, Some(gone)) => note_fall(state, gone),
            (None, None) => {}
        }
        let templates: BTreeSet<&Text> = [old, new]
            .into_iter()
            .flatten()
            .filter_map(Self::template_name)
            .collect();
        out.work.extend(
            templates
                .into_iter()
                .map(|name| Work::Template(key.sibling(name.clone()))),
        );
        if let Some(gone) = shared(old).filter(|_| shared(new) != shared(old)) {
            // Whoever shares the hash may have waited for its end.
            wake_covering(state, &gone, out);
        }
        if let Some(row) = new
            && old.is_none_or(|old| may_now_protect(row, old))
            && let Some(shared) = shared(new)
        {
            wake_podless(state, &shared, out);
        }
    }
}

/// Remembers a policy that somebody deleted while pods need it and nothing else tells what it said.
fn note_fall(state: &mut State, gone: &PolicyRow) {
    let Some((name, _)) = &gone.template else {
        return;
    };
    let template = gone.head.key.sibling(name.clone());
    if state.templates.get(&template).is_none() && state.template_is_used(&template) {
        let row = std::sync::Arc::new(gone.clone());
        state.fallen_policies.insert(gone.head.key.clone(), row);
    }
}

/// Whether a policy may have become what pods wait for.
fn may_now_protect(new: &PolicyRow, old: &PolicyRow) -> bool {
    new.head.uid != old.head.uid
        || new.head.owner != old.head.owner
        || new.head.is_deleting() != old.head.is_deleting()
        || new.template != old.template
}

/// Queues the sandboxes under a template's hash that have no pod: they may be waiting for its policy.
fn wake_podless(state: &State, shared: &Shared, out: &mut Routed) {
    let users = state.template_users.get(shared);
    let waiting = users
        .into_iter()
        .flat_map(|users| &users.sandboxes)
        .filter_map(|key| state.sandboxes.get(key))
        .filter(|row| !state.pods_by_owner.contains_key(&row.head.uid));
    out.work
        .extend(waiting.map(|row| Work::Sandbox(row.head.key.clone(), priority(row))));
}

/// Queues the templates whose policies cover a hash, and those whose policies would.
fn wake_covering(state: &State, shared: &Shared, out: &mut Routed) {
    let Some(users) = state.template_users.get(shared) else {
        return;
    };
    let of_policies = users
        .policies
        .iter()
        .filter_map(|key| Some(key.sibling(state.policies.get(key)?.template_name()?.clone())));
    let templates: BTreeSet<Key> = users.templates.iter().cloned().chain(of_policies).collect();
    out.work.extend(templates.into_iter().map(Work::Template));
}

/// Somebody who was under a hash is so no longer. Queues the templates that may have waited for that: the
/// last one frees the policy, and with a policy that is on its way out, or with something left of another
/// template, anybody may have been the last that mattered.
fn release(state: &mut State, shared: Option<Shared>, name: Option<&Text>, out: &mut Routed) {
    let Some(shared) = shared else {
        return;
    };
    let users = state.template_users.get(&shared);
    let is_idle = users.is_none_or(Users::is_idle);
    if is_idle {
        state
            .fallen_policies
            .retain(|_, policy| template_users::covered(policy).as_ref() != Some(&shared));
    }
    let Some(users) = users else {
        return;
    };
    let lives = |name: &Text| users.templates.iter().any(|key| key.name == *name);
    let is_leaving = |key: &Key| {
        state.policies.get(key).is_some_and(|policy| {
            policy.kept_for.is_some() || !policy.template_name().is_some_and(lives)
        })
    };
    if is_idle || name.is_some_and(|name| !lives(name)) || users.policies.iter().any(is_leaving) {
        wake_covering(state, &shared, out);
    }
}

impl Stored for NodeRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.nodes
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        // A node tells of itself every few seconds, and hardly ever anything new.
        if let (Some(new), Some(old)) = (new, old)
            && new.is_as_healthy_as(old)
        {
            return;
        }
        let Some(name) = new.or(old).map(|row| row.head.key.name.clone()) else {
            return;
        };
        for key in state.rolls.on_node(&name) {
            if let Some(row) = state.sandboxes.get(&key).cloned() {
                tell_pool(state, &row, out);
            }
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
