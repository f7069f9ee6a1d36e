//! Pools: found again by their template; a changed one may serve claims that it did not serve before.

use std::collections::BTreeSet;

use super::sandbox::take_stock;
use super::{Routed, Stored, reindex};
use crate::ident::Key;
use crate::objects::PoolRow;
use crate::store::{PoolId, Purpose, Revised, State, Table, Work};

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
        revise_record(state, new, old, out);
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

/// What a pool's record says of its members.
fn revise_record(
    state: &mut State,
    new: Option<&PoolRow>,
    old: Option<&PoolRow>,
    out: &mut Routed,
) {
    let same = new.map(|row| row.head.uid) == old.map(|row| row.head.uid);
    let revisions = match (new, old) {
        (Some(new), Some(old)) if same => {
            if new.record == old.record {
                return;
            }
            vec![(new, Some(&*new.record), Some(&*old.record))]
        }
        _ => {
            let gone = old.map(|row| (row, None, Some(&*row.record)));
            let come = new.map(|row| (row, Some(&*row.record), None));
            gone.into_iter().chain(come).collect()
        }
    };
    let mut touched = BTreeSet::new();
    for (pool, new, old) in revisions {
        let id = PoolId::new(&pool.head.key, pool.head.uid);
        let State {
            allocations,
            sandboxes,
            ..
        } = state;
        let row_of = |key: &Key| sandboxes.get(key).map(|row| &**row);
        let revised = Revised { old, new };
        touched.extend(allocations.revise(&pool.head.key, &id, revised, row_of));
    }
    for key in touched {
        let Some(row) = state.sandboxes.get(&key).cloned() else {
            continue;
        };
        let given = state.allocations.hold_on(row.head.uid);
        if let Some(Purpose::Claim(claim, uid)) = given.map(|hold| &hold.purpose) {
            // A claim that has a reservation is being served by whoever made the entry.
            let reserved = state.availability.reserved_for(*uid);
            if reserved.is_none_or(|pick| pick.uid != row.head.uid) {
                out.work.push(Work::Claim(claim.clone()));
            }
        }
        take_stock(state, &row, out);
    }
}
