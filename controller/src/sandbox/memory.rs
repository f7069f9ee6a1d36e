//! What is remembered of sandboxes between passes, because no object says it: rejections that must
//! not be repeated, and since when something that can wait has been waiting.
//!
//! Nothing here outlives its sandbox, and all of it may be lost: the next pass learns it again.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::Rejected;
use super::{Sandboxes, is_unclaimed_member};
use crate::error::Fault;
use crate::ident::Key;
use crate::objects::SandboxRow;

/// The longest a pod's metadata may lag behind: a claimed pod must not be taken for an idle one by an
/// autoscaler.
const LONGEST_WRITE_BEHIND: Duration = Duration::from_secs(1);

/// How soon to look again while claims have right of way.
const YIELD: Duration = Duration::from_millis(20);

/// What is remembered of a sandbox between passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    key: Option<Key>,
    pub(super) generation: i64,
    pub(super) rejected: Rejected,
    /// Since when a write to the pod's metadata waits.
    pub(super) metadata_waits: Option<Instant>,
    /// Since when a status write waits.
    pub(super) status_waits: Option<Instant>,
    /// Since when low-priority work yields to claims.
    yields: Option<Instant>,
}

impl Memory {
    fn is_blank(&self) -> bool {
        self.rejected == Rejected::default()
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

    pub(super) fn remember<T>(&self, row: &SandboxRow, edit: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock();
        let entry = memory.entry(row.head.uid).or_default();
        if entry.generation != row.head.generation {
            entry.generation = row.head.generation;
            entry.rejected = Rejected::default();
        }
        entry.key = Some(row.head.key.clone());
        let result = edit(entry);
        if entry.is_blank() {
            memory.remove(&row.head.uid);
        }
        result
    }

    pub(super) fn forget(&self, key: &Key) {
        self.memory
            .lock()
            .retain(|_, memory| memory.key.as_ref() != Some(key));
    }
}
