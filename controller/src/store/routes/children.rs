//! What sandboxes are made of: pods, Services and volume claims. Each wakes the sandbox that controls it,
//! and the one whose name it holds.

use std::collections::BTreeSet;

use super::sandbox::tell_pool;
use super::template::release;
use super::{Routed, Stored, distinct, priority, reindex_owner};
use crate::ident::Key;
use crate::names;
use crate::objects::{Head, OwnerKind, PodRow, SandboxRow, ServiceRow, VolumeClaimRow};
use crate::store::template_users::carried;
use crate::store::{State, Table, Work};

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
                if old.is_none() {
                    out.work.extend(bereft(state, &row, new));
                }
            }
        }
        wake_sandbox(state, new.map(|r| &r.head), old.map(|r| &r.head), out);
    }
}

/// The template to look at when a pod turns up that was started under its policy, and it is gone by now,
/// maybe together with the policy.
fn bereft(state: &State, row: &SandboxRow, pod: Option<&PodRow>) -> Option<Work> {
    if !pod?.annotations.contains(names::REQUIRED_POLICY) {
        return None;
    }
    let template = row.head.key.sibling(row.template_name()?.clone());
    let is_gone = state.templates.get(&template).is_none();
    is_gone.then_some(Work::Template(template))
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
