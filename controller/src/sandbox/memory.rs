//! What is remembered of sandboxes between passes, because no object says it: rejections that must
//! not be repeated, and since when something that can wait has been waiting.
//!
//! Nothing here outlives its sandbox, and all of it may be lost: the next pass learns it again.
//! Entries go by name, so that a sandbox that is gone takes its entry along; the UID tells a successor
//! of the same name apart.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::Rejected;
use super::{Sandboxes, is_unclaimed_member};
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::objects::SandboxRow;

/// The longest a pod's metadata may lag behind: a claimed pod must not be taken for an idle one by an
/// autoscaler.
const LONGEST_WRITE_BEHIND: Duration = Duration::from_secs(1);

/// How soon to look again while claims have right of way.
const YIELD: Duration = Duration::from_millis(20);

/// What is remembered of a sandbox between passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    uid: Option<Uid>,
    generation: i64,
    rejected: Rejected,
    /// The failure to create the pod that was last told in an event.
    told: Option<String>,
    /// Since when a write to the pod's metadata waits.
    pub(super) metadata_waits: Option<Instant>,
    /// Since when a status write waits.
    pub(super) status_waits: Option<Instant>,
    /// Since when low-priority work yields to claims.
    yields: Option<Instant>,
}

impl Memory {
    /// What the API server refused for good, of this sandbox at this generation.
    pub(super) fn rejected(&self, row: &SandboxRow) -> Rejected {
        if self.uid == Some(row.head.uid) && self.generation == row.head.generation {
            self.rejected.clone()
        } else {
            Rejected::default()
        }
    }

    fn is_blank(&self) -> bool {
        self.rejected == Rejected::default()
            && self.told.is_none()
            && self.metadata_waits.is_none()
            && self.status_waits.is_none()
            && self.yields.is_none()
    }
}

impl Sandboxes {
    /// Whether low-priority work should let claims pass, and for how long.
    pub(super) fn yields(&self, row: &SandboxRow) -> Option<Duration> {
        let low = is_unclaimed_member(row);
        self.remember(row, |memory| {
            if low && self.cx.lanes.is_busy() {
                let since = *memory.yields.get_or_insert_with(Instant::now);
                if since.elapsed() < self.cx.lanes.patience() {
                    return Some(YIELD);
                }
            } else {
                memory.yields = None;
            }
            None
        })
    }

    /// How much longer a pod's metadata may lag: for the configured window, and while claims have
    /// right of way; never longer than [`LONGEST_WRITE_BEHIND`].
    pub(super) fn write_behind(&self, row: &SandboxRow) -> Option<Duration> {
        let busy = self.cx.lanes.is_busy();
        let window = self.cx.config.write_behind.min(LONGEST_WRITE_BEHIND);
        self.remember(row, |memory| {
            let since = *memory.metadata_waits.get_or_insert_with(Instant::now);
            let waited = since.elapsed();
            if waited < window {
                return Some(window.saturating_sub(waited));
            }
            (busy && waited < LONGEST_WRITE_BEHIND).then_some(YIELD)
        })
    }

    pub(super) fn note_rejection(
        &self,
        row: &SandboxRow,
        fault: &Fault,
        slot: impl FnOnce(&mut Rejected) -> &mut Option<Fault>,
    ) {
        if matches!(fault, Fault::Invalid(_)) {
            self.remember(row, |memory| {
                *slot(&mut memory.rejected) = Some(fault.clone());
            });
        }
    }

    /// How much longer a waiting write to a pod's metadata may be made to wait.
    pub(super) fn metadata_may_wait(&self, row: &SandboxRow) -> Duration {
        self.remember(row, |memory| {
            let since = memory.metadata_waits.unwrap_or_else(Instant::now);
            LONGEST_WRITE_BEHIND.saturating_sub(since.elapsed())
        })
    }

    /// Whether this failure to create the pod is another one than the one told last. The same failure
    /// comes back with every attempt, and would otherwise be told with every attempt.
    pub(super) fn is_news(&self, row: &SandboxRow, fault: &Fault) -> bool {
        let text = fault.to_string();
        self.remember(row, |memory| {
            let news = memory.told.as_ref() != Some(&text);
            memory.told = Some(text);
            news
        })
    }

    /// The pod could be created: the next failure is news again.
    pub(super) fn pod_was_created(&self, row: &SandboxRow) {
        self.remember(row, |memory| memory.told = None);
    }

    pub(super) fn remember<T>(&self, row: &SandboxRow, edit: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock();
        let entry = memory.entry(row.head.key.clone()).or_default();
        if entry.uid != Some(row.head.uid) {
            *entry = Memory {
                uid: Some(row.head.uid),
                ..Memory::default()
            };
        }
        if entry.generation != row.head.generation {
            entry.generation = row.head.generation;
            entry.rejected = Rejected::default();
        }
        let result = edit(entry);
        if entry.is_blank() {
            memory.remove(&row.head.key);
        }
        result
    }

    pub(super) fn forget(&self, key: &Key) {
        self.memory.lock().remove(key);
    }
}
