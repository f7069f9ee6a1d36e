//! Reading what a claim's plan depends on, in one look at the store. Only reads.

use std::cmp::Reverse;
use std::sync::Arc;

use agent_sandbox_crds::claim::Warmth;
use agent_sandbox_crds::names;

use super::Learned;
use super::plan::{self, Candidate, Found, Observed, PoolRef};
use crate::ident::{Key, Text};
use crate::objects::{ClaimRow, PoolRow, SandboxRow, Source};
use crate::store::{PoolId, State};

/// What is known of a claim and what it refers to; `None` when there is no such claim.
pub(super) fn observe(state: &State, key: &Key, learned: &Learned) -> Option<Observed> {
    let claim = state.claim(key)?;
    let bound: Vec<Arc<SandboxRow>> = state.sandboxes_for(&claim.head).cloned().collect();
    let unseen = state.allocations().of_claim(claim.head.uid);
    let unseen = unseen.filter(|hold| state.held(hold).is_none());
    let unseen = unseen.map(|hold| (hold.sandbox.clone(), hold.uid)).next();
    let told = claim.bound.name.clone().map(|name| key.sibling(name));
    let asked_for = told.is_some() && learned.asked_for == told;
    let is_known = |named: &Key| bound.iter().any(|row| row.head.key == *named);
    let unconfirmed = told.filter(|named| !asked_for && !is_known(named));
    let namesake = state
        .sandbox(key)
        .filter(|row| !row.head.is_controlled_by(claim.head.uid));
    let legacy = key.sibling(names::legacy_claim_network_policy(&key.name));
    let legacy_policy = state.legacy_policy(&legacy).filter(|policy| {
        policy.head.is_controlled_by(claim.head.uid) && !policy.head.is_deleting()
    });
    let pool = match plan::named_pool(&claim) {
        Some(name) => find(
            key,
            name,
            state.pool(&key.sibling(name.clone())),
            learned.missing_pool.as_ref(),
        ),
        None => Found::NotNamed,
    };
    let candidate = learned.candidate.clone().unwrap_or(Candidate::Unasked);
    let chosen = match &candidate {
        Candidate::Chosen(row) => Some(row),
        _ => None,
    };
    let template = match plan::primary(&claim, &bound).or(chosen) {
        // What a sandbox was made from is its own record, not the current word of claim or pool: a
        // pool that has been pointed at another template still hands out members of the old one.
        Some(sandbox) => match sandbox.template_name() {
            Some(name) => find(key, name, state.template(&key.sibling(name.clone())), None),
            None => Found::NotNamed,
        },
        None => match template_name(&claim, &pool) {
            Some(name) => find(
                key,
                &name,
                state.template(&key.sibling(name.clone())),
                learned.missing_template.as_ref(),
            ),
            None => Found::NotNamed,
        },
    };
    let pools = eligible_pools(state, &claim, &pool);
    Some(Observed {
        claim,
        bound,
        unseen,
        unconfirmed,
        asked_for,
        namesake,
        legacy_policy,
        pool,
        pools,
        template,
        candidate,
        confirmed: learned.confirmed,
        fault: learned.fault.clone(),
        conflicts: learned.conflicts,
    })
}

/// What is known about something a claim names.
fn find<R>(claim: &Key, name: &Text, row: Option<Arc<R>>, missing: Option<&Key>) -> Found<R> {
    let key = claim.sibling(name.clone());
    match row {
        Some(row) => Found::Here(row),
        None if missing == Some(&key) => Found::Missing(key),
        None => Found::Unseen(key),
    }
}

/// The template a claim without a sandbox leads to.
fn template_name(claim: &ClaimRow, pool: &Found<PoolRow>) -> Option<Text> {
    match &claim.source {
        Source::Template { name, .. } => Some(name.clone()),
        Source::Pool(_) => pool.row().map(|pool| pool.template.clone()),
    }
}

/// The pools that may serve a claim, best first.
fn eligible_pools(state: &State, claim: &ClaimRow, named: &Found<PoolRow>) -> Vec<PoolRef> {
    let live = |pool: &Arc<PoolRow>| !pool.head.is_deleting();
    let refer = |pool: &Arc<PoolRow>| PoolRef {
        key: pool.head.key.clone(),
        uid: pool.head.uid,
    };
    match &claim.source {
        Source::Pool(_) => named
            .row()
            .filter(|pool| live(pool))
            .map(refer)
            .into_iter()
            .collect(),
        Source::Template {
            warmth: Warmth::Cold,
            ..
        } => Vec::new(),
        Source::Template { name, warmth } => {
            let template = claim.head.key.sibling(name.clone());
            let mut pools = state.pools_of_template(&template);
            pools.retain(live);
            if let Warmth::Pool(only) = warmth {
                pools.retain(|pool| pool.head.key.name == *only);
            }
            pools.sort_by_key(|pool| {
                (
                    Reverse(
                        state
                            .availability()
                            .available(&PoolId::new(&pool.head.key, pool.head.uid)),
                    ),
                    pool.head.key.clone(),
                )
            });
            pools.iter().map(refer).collect()
        }
    }
}
