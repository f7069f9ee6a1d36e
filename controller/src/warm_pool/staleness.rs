//! Whether a member still is what its pool's template describes. Hash labels answer most of the time;
//! where they differ, the blueprints themselves are compared by meaning, once per distinct make.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent_sandbox_crds::{Blueprint, hash};
use parking_lot::Mutex;

use crate::blueprint;
use crate::ident::{Key, Revision, Uid};
use crate::objects::{Make, TemplateRow, UpdateStrategy};
use crate::store::{PoolId, Store};

/// Remembered comparisons.
#[derive(Debug)]
pub struct Staleness {
    resolvers: Vec<IpAddr>,
    memo: Mutex<BTreeMap<Key, Memo>>,
}

#[derive(Debug)]
struct Memo {
    template: (Uid, Revision),
    blueprint: Blueprint,
    same: BTreeMap<Make, bool>,
}

/// Comparisons remembered per template before they are started over.
const LONGEST_MEMO: usize = 256;

/// Which members of a pool a claim may have, by what they were made from.
#[derive(Debug)]
pub enum Fit {
    /// Any.
    Any,
    /// Those of these makes.
    Only(BTreeSet<Arc<Make>>),
}

impl Fit {
    /// Whether a claim may have a member of this make.
    pub fn includes(&self, make: &Make) -> bool {
        match self {
            Self::Any => true,
            Self::Only(makes) => makes.contains(make),
        }
    }
}

impl Staleness {
    /// Nothing remembered. `resolvers` are part of what the operator puts into sandboxes.
    pub fn new(resolvers: Vec<IpAddr>) -> Self {
        Self {
            resolvers,
            memo: Mutex::default(),
        }
    }

    /// Which members of a pool a claim may have, as pool and template are now: of a pool that replaces
    /// stale members only such as are known to be fresh.
    pub fn fit(&self, store: &Store, pool: &Key) -> Fit {
        let (template, makes) = store.read(|state| {
            let row = state
                .pool(pool)
                .filter(|row| row.strategy == UpdateStrategy::Recreate);
            let Some(row) = row else {
                return (None, None);
            };
            // Those of members reserved for claims are among them.
            let id = PoolId::new(pool, row.head.uid);
            let roll = state.roll(&id).into_iter();
            let makes: Vec<Arc<Make>> = roll
                .flat_map(|roll| roll.groups().map(|(make, _)| make.clone()))
                .collect();
            (
                state.template(&pool.sibling(row.template.clone())),
                Some(makes),
            )
        });
        let Some(makes) = makes else {
            return Fit::Any;
        };
        let fresh = |make: &Arc<Make>| {
            template
                .as_ref()
                .is_some_and(|template| !self.is_stale(template, make))
        };
        Fit::Only(makes.into_iter().filter(fresh).collect())
    }

    /// Whether a sandbox of this make differs from what the template describes today.
    pub fn is_stale(&self, template: &TemplateRow, make: &Make) -> bool {
        if make.ref_hash.as_ref() != Some(&template.ref_hash) {
            return true;
        }
        if make.blueprint_hash.as_ref() == Some(&template.blueprint_hash) {
            return false;
        }
        let mut memo = self.memo.lock();
        let version = (template.head.uid, template.head.revision);
        let fresh = || Memo {
            template: version,
            blueprint: blueprint::of_template(&template.spec, &self.resolvers),
            same: BTreeMap::new(),
        };
        let entry = memo.entry(template.head.key.clone()).or_insert_with(fresh);
        if entry.template != version {
            *entry = fresh();
        }
        if entry.same.len() >= LONGEST_MEMO {
            entry.same.clear();
        }
        let Memo {
            blueprint: wanted,
            same,
            ..
        } = entry;
        if let Some(same) = same.get(make) {
            return !same;
        }
        let is_same = hash::same_blueprint(&blueprint::of_make(make), wanted);
        same.insert(make.clone(), is_same);
        !is_same
    }
}
