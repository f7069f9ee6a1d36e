//! How many sandboxes there are of each sort, kept up to date with every change, so that reading the
//! figures neither holds up the store nor looks at each sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::labels;
use parking_lot::Mutex;

use crate::ident::Text;
use crate::objects::{OwnerKind, SandboxRow};

/// What sandboxes are told apart by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Sort {
    /// Where they are.
    pub namespace: Text,
    /// The status of their Ready condition, `Unknown` while there is none.
    pub ready: &'static str,
    /// Whether their time is over.
    pub expired: bool,
    /// Whether they were taken from a pool.
    pub warm: bool,
    /// The template they were made from.
    pub template: Option<Text>,
    /// The kind of object that controls them, `None` when it is not one of ours.
    pub owner: &'static str,
    /// The client that asked for them, normalised.
    pub creator: &'static str,
}

impl Sort {
    fn of(row: &SandboxRow) -> Self {
        let ready = row.status.conditions.get(condition::READY);
        let label = |key| row.labels.get(key).map(|text| &**text);
        let owner = row.head.owner.as_ref().map(|owner| owner.kind);
        Self {
            namespace: row.head.key.namespace.clone(),
            ready: ready.map_or("Unknown", |it| it.status.as_str()),
            expired: ready.is_some_and(|it| &*it.reason == reason::SANDBOX_EXPIRED),
            warm: label(labels::LAUNCH_TYPE) == Some(labels::LAUNCH_TYPE_WARM),
            template: row.template_name().cloned(),
            owner: match owner {
                Some(OwnerKind::Claim) => "SandboxClaim",
                Some(OwnerKind::Pool) => "SandboxWarmPool",
                _ => "None",
            },
            creator: labels::normalised_creator(label(labels::CREATED_BY).unwrap_or_default()),
        }
    }
}

/// The figures. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Census {
    counts: Arc<Mutex<BTreeMap<Sort, i64>>>,
}

impl Census {
    /// Takes a change of a sandbox into account.
    pub(super) fn changed(&self, new: Option<&SandboxRow>, old: Option<&SandboxRow>) {
        let (new, old) = (new.map(Sort::of), old.map(Sort::of));
        if new == old {
            return;
        }
        let mut counts = self.counts.lock();
        if let Some(new) = new {
            *counts.entry(new).or_insert(0) += 1;
        }
        if let Some(old) = old
            && let Some(count) = counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&old);
            }
        }
    }

    /// The figures now; only sorts of which there are any.
    pub fn counts(&self) -> BTreeMap<Sort, i64> {
        self.counts.lock().clone()
    }
}
