//! Claims: found again by the pool and the template that they name, and ended at their deadline.

use agent_sandbox_crds::claim::Warmth;

use super::{Routed, Stored, reindex};
use crate::expiry::Target;
use crate::ident::{Key, Text};
use crate::objects::{ClaimRow, Source};
use crate::store::{State, Table, Work};

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
            // What it was given is of no use to anybody any more.
            let holds = state.allocations.of_claim(gone.head.uid);
            out.work
                .extend(holds.map(|hold| Work::Pool(hold.pool.clone())));
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
