//! Templates: their pools, the claims that waited for one, and whoever stands under the hash of its name.

use std::collections::BTreeSet;

use agent_sandbox_crds::{condition, names};

use super::{Routed, Stored, priority};
use crate::ident::{Key, Text};
use crate::objects::{OwnerKind, Row, SandboxRow, TemplateRow, Truth};
use crate::store::template_users::{self, Shared, Users};
use crate::store::{State, Table, Work};

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
        let metadata = |row: &Self| row.spec.pod_template.metadata.clone();
        if new.is_some() && (came_or_went || new.map(metadata) != old.map(metadata)) {
            wake_claims_served_from(state, key, &shared, out);
        }
        let management = |row: &Self| row.spec.network_policy_management.clone();
        if came_or_went
            || new.map(management) != old.map(management)
            || new.map(verdict) != old.map(verdict)
        {
            wake_waiting_for_policy(state, &shared, out);
        }
    }
}

/// Queues the claims whose sandboxes were made from a template: labels and annotations of its pod template
/// follow it, now rather than with whatever wakes the claim next.
fn wake_claims_served_from(state: &State, template: &Key, shared: &Shared, out: &mut Routed) {
    let users = state.template_users.get(shared);
    let served = users
        .into_iter()
        .flat_map(|users| &users.sandboxes)
        .filter_map(|key| state.sandboxes.get(key))
        .filter(|row| row.template_name() == Some(&template.name))
        .filter_map(|row| {
            let owner = row.head.owner.as_ref()?;
            (owner.kind == OwnerKind::Claim).then(|| template.sibling(owner.name.clone()))
        });
    out.work.extend(served.map(Work::ServedClaim));
}

/// What a template's status says of its policy, as far as others act on it.
fn verdict(row: &TemplateRow) -> Option<(Truth, Text)> {
    let condition = row.status.conditions.get(condition::NETWORK_POLICY_READY)?;
    Some((condition.status, condition.reason.clone()))
}

/// Queues the sandboxes under a template's hash that may be waiting for its policy: they have no pod, or
/// say that it is lost.
pub(super) fn wake_waiting_for_policy(state: &State, shared: &Shared, out: &mut Routed) {
    let waits = |row: &SandboxRow| {
        let conditions = &row.status.conditions;
        !state.pods_by_owner.has(row.head.uid)
            || conditions.get(condition::NETWORK_POLICY_READY).is_some()
    };
    wake_users(state, shared, waits, out);
}

/// Queues sandboxes under a template's hash.
pub(super) fn wake_users(
    state: &State,
    shared: &Shared,
    concerns: impl Fn(&SandboxRow) -> bool,
    out: &mut Routed,
) {
    let users = state.template_users.get(shared);
    let concerned = users
        .into_iter()
        .flat_map(|users| &users.sandboxes)
        .filter_map(|key| state.sandboxes.get(key))
        .filter(|row| concerns(row));
    out.work
        .extend(concerned.map(|row| Work::Sandbox(row.head.key.clone(), priority(row))));
}

/// Queues the templates whose policies cover a hash, and those whose policies would.
pub(super) fn wake_covering(state: &State, shared: &Shared, out: &mut Routed) {
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
pub(super) fn release(
    state: &mut State,
    shared: Option<Shared>,
    name: Option<&Text>,
    out: &mut Routed,
) {
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
