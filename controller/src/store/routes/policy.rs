//! Policies: their templates, the sandboxes that wait for one, and what has to outlast its own policy.

use std::collections::BTreeSet;

use super::template::{wake_covering, wake_users, wake_waiting_for_policy};
use super::{Routed, Stored};
use crate::ident::Text;
use crate::objects::PolicyRow;
use crate::store::template_users;
use crate::store::{State, Table, Work};

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
            wake_waiting_for_policy(state, &shared, out);
        }
        let is_lost = |row: Option<&Self>| row.is_none_or(|row| row.stands_in);
        let is_gone = |name: &Text| state.templates.get(&key.sibling(name.clone())).is_none();
        if (is_lost(new) || is_lost(old))
            && let Some(row) = new.or(old)
            && row.template_name().is_some_and(is_gone)
            && let Some(shared) = shared(Some(row))
        {
            wake_users(state, &shared, |_| true, out);
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
        || new.kept_for != old.kept_for
        || new.stands_in != old.stands_in
}
