//! Pools: found again by their template; a changed one may serve claims that it did not serve before.

use std::collections::BTreeSet;

use super::{Routed, Stored, reindex};
use crate::ident::Key;
use crate::objects::PoolRow;
use crate::store::{PoolId, State, Table, Work};

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
