//! The recent past of one resource: what watches and old snapshots are served from.

use std::collections::VecDeque;
use std::sync::Arc;

use super::watch::Event;
use super::{Revision, RevisionError};

/// How much of the past each resource keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// At most this many events.
    pub events: usize,
    /// At most about this many bytes of object text, though always the latest event.
    pub bytes: usize,
    /// How many events a watcher may fall behind before its stream ends.
    pub watcher_backlog: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self {
            events: 8192,
            bytes: 8 << 20,
            watcher_backlog: 16_384,
        }
    }
}

/// A ring of events in revision order.
#[derive(Debug)]
pub(super) struct Window {
    limits: WindowLimits,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Every event after this revision is in the ring.
    floor: Revision,
}

impl Window {
    /// An empty window that knows nothing of what happened up to `floor`.
    pub(super) fn new(limits: WindowLimits, floor: Revision) -> Self {
        Self {
            limits,
            events: VecDeque::new(),
            bytes: 0,
            floor,
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.object.size();
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > self.limits.events || self.bytes > self.limits.bytes)
        {
            self.evict();
        }
    }

    /// Forgets events up to `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        while self
            .events
            .front()
            .is_some_and(|event| event.revision() <= revision)
        {
            self.evict();
        }
        self.floor = self.floor.max(revision);
        self.events.shrink_to_fit();
    }

    /// Whether every event after `revision` is still known.
    pub(super) fn check(&self, revision: Revision) -> Result<(), RevisionError> {
        if revision < self.floor {
            return Err(RevisionError::Expired {
                requested: revision,
                oldest: self.floor,
            });
        }
        Ok(())
    }

    /// The events after `revision`, oldest first.
    pub(super) fn after(
        &self,
        revision: Revision,
    ) -> impl DoubleEndedIterator<Item = &Arc<Event>> + '_ {
        let start = self
            .events
            .partition_point(|event| event.revision() <= revision);
        self.events.range(start..)
    }

    fn evict(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes = self.bytes.saturating_sub(event.object.size());
            self.floor = self.floor.max(event.revision());
        }
    }
}
