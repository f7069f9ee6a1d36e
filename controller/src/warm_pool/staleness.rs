//! Whether a member still is what its pool's template describes. Hash labels answer most of the time;
//! where they differ, the blueprints themselves are compared by meaning, once per distinct blueprint.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use agent_sandbox_crds::{Blueprint, hash, labels};
use parking_lot::Mutex;

use crate::blueprint;
use crate::ident::{Key, Revision, Text, Uid};
use crate::objects::{Mode, SandboxRow, TemplateRow, UpdateStrategy};
use crate::store::Store;

/// What a sandbox is made of, as it is kept: interned texts, so equal blueprints compare fast.
type Made = (Text, Option<Text>, Option<bool>);

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
    same: BTreeMap<Made, bool>,
}

/// Comparisons remembered per template before they are started over.
const LONGEST_MEMO: usize = 256;

/// Judges the members of one pool.
#[derive(Debug)]
pub struct Judge<'a> {
    staleness: &'a Staleness,
    replaces: bool,
    template: Option<Arc<TemplateRow>>,
}

impl Staleness {
    /// Nothing remembered. `resolvers` are part of what the operator puts into sandboxes.
    pub fn new(resolvers: Vec<IpAddr>) -> Self {
        Self {
            resolvers,
            memo: Mutex::default(),
        }
    }

    /// A judge for the members of a pool, as pool and template are now.
    pub fn judge(&self, store: &Store, pool: &Key) -> Judge<'_> {
        let (replaces, template) = store.read(|state| match state.pool(pool) {
            Some(row) => (
                row.strategy == UpdateStrategy::Recreate,
                state.template(&pool.sibling(row.template.clone())),
            ),
            None => (false, None),
        });
        Judge {
            staleness: self,
            replaces,
            template,
        }
    }

    /// Whether a sandbox differs from what the template describes today.
    pub fn is_stale(&self, template: &TemplateRow, row: &SandboxRow) -> bool {
        if !row
            .labels
            .has(labels::SANDBOX_TEMPLATE_REF_HASH, &template.ref_hash)
        {
            return true;
        }
        if row
            .labels
            .has(labels::SANDBOX_TEMPLATE_HASH, &template.blueprint_hash)
        {
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
        let made = (
            row.pod.spec.clone(),
            row.volume_claim_templates.clone(),
            row.service,
        );
        let Memo {
            blueprint: wanted,
            same,
            ..
        } = entry;
        let same = *same
            .entry(made)
            .or_insert_with(|| hash::same_blueprint(&blueprint::of_sandbox(row), wanted));
        !same
    }
}

/// Whether somebody changed a member's life after the pool made it: it would not outlive its claim,
/// or would not run at all.
pub(super) fn has_drifted(row: &SandboxRow) -> bool {
    row.mode == Mode::Suspended || row.shutdown_time.is_some()
}

impl Judge<'_> {
    /// Whether a claim may have this member: a pool that replaces stale members hands out only such as
    /// are known to be fresh.
    pub fn may_hand_out(&self, row: &SandboxRow) -> bool {
        if !self.replaces {
            return true;
        }
        self.template
            .as_ref()
            .is_some_and(|template| !self.staleness.is_stale(template, row))
    }
}
