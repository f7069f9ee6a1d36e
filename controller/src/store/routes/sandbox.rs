//! Sandboxes: what their owners, their templates' policies and the claims that wait have to know.

use agent_sandbox_crds::condition;

use super::template::release;
use super::{Routed, Stored, distinct, priority, reindex_owner};
use crate::expiry::Target;
use crate::ident::Key;
use crate::objects::{OwnerKind, PodRow, SandboxRow};
use crate::queue::Priority;
use crate::store::template_users::carried;
use crate::store::{Around, PoolId, Purpose, State, Table, Work};

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
        if let Some(claim) = given_to(state, new).or_else(|| given_to(state, old))
            && claim_cares(new, old)
        {
            out.work.push(Work::Claim(claim));
        }
        if let Some(row) = new {
            state.allocations.observe(row);
            pool_cares |= take_stock(state, row, out);
            out.work
                .push(Work::Sandbox(row.head.key.clone(), priority(row)));
        }
        if let Some(gone) = old.filter(|old| new.is_none_or(|new| new.head.uid != old.head.uid)) {
            state.allocations.observe_gone(gone.head.uid);
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

/// The claim that a pool's record gives a sandbox to.
fn given_to(state: &State, row: Option<&SandboxRow>) -> Option<Key> {
    match &state.allocations.hold_on(row?.head.uid)?.purpose {
        Purpose::Claim(claim, _) => Some(claim.clone()),
        Purpose::Retirement => None,
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
pub(super) fn take_stock(state: &mut State, row: &SandboxRow, out: &mut Routed) -> bool {
    let hold = state.allocations.hold_on(row.head.uid);
    let purpose = hold.map(|hold| &hold.purpose);
    let retiring = purpose == Some(&Purpose::Retirement);
    // What was given to a claim is the pool's in name only.
    let is_given = matches!(purpose, Some(Purpose::Claim(..)));
    if is_given || PoolId::of_member(row).is_none() {
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
        retiring,
    };
    let pool_cares = state.rolls.update(row, around);
    if retiring {
        state.availability.remove(row.head.uid);
    } else if state
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
        let waits = state.claims.get(&key).is_some_and(|claim| {
            let uid = claim.head.uid;
            !state.sandboxes_by_owner.has(uid) && state.allocations.of_claim(uid).next().is_none()
        });
        if waits {
            out.work.push(Work::Claim(key));
            break;
        }
    }
    if waiting.is_empty() {
        state.waiting_claims.remove(&pool);
    }
}

/// Takes stock of a member whose pod or node has changed, and queues its pool if it has to know.
pub(super) fn tell_pool(state: &mut State, row: &SandboxRow, out: &mut Routed) {
    if take_stock(state, row, out)
        && let Some(owner) = &row.head.owner
    {
        let pool = row.head.key.sibling(owner.name.clone());
        out.work.push(Work::Pool(pool));
    }
}
