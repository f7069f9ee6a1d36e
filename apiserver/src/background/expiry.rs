//! What goes with time: events, the history of watches, the journal's dead weight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::shutdown::Shutdown;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::ops::Engine;
use crate::store::{Event, EventKind, Key, Observer, Revision, Store};

const EVENTS: &str = "events";

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryLimits {
    /// Events, counted from their last update.
    pub events: SignedDuration,
    /// History that watches and pages can go back to, unless the window is full before.
    pub history: SignedDuration,
    /// How often to look.
    pub interval: Duration,
}

impl Default for ExpiryLimits {
    fn default() -> Self {
        Self {
            events: SignedDuration::from_hours(1),
            history: SignedDuration::from_mins(5),
            interval: Duration::from_secs(15),
        }
    }
}

/// Expires things.
#[derive(Debug)]
pub(super) struct Expiry {
    engine: Engine,
    limits: ExpiryLimits,
    written: Arc<Written>,
    /// Times and the revisions reached by then.
    marks: VecDeque<(Timestamp, Revision)>,
}

/// When which event was written, oldest first.
#[derive(Debug)]
struct Written {
    clock: Clock,
    events: Mutex<VecDeque<(Timestamp, Key, Revision)>>,
}

impl Observer for Written {
    fn observe(&self, resource: &Arc<str>, event: &Event) {
        if **resource == *EVENTS && event.kind != EventKind::Deleted {
            let entry = (
                self.clock.now(),
                event.object.key().clone(),
                event.revision(),
            );
            self.events.lock().push_back(entry);
        }
    }
}

impl Expiry {
    pub(super) fn new(engine: &Engine, limits: ExpiryLimits) -> Self {
        let written = Arc::new(Written {
            clock: engine.clock.clone(),
            events: Mutex::default(),
        });
        engine.store.observe(written.clone());
        Self {
            engine: engine.clone(),
            limits,
            written,
            marks: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(self.limits.interval);
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                _ = ticks.tick() => {
                    self.pass();
                    let store = self.engine.store.clone();
                    // Writing and flushing a file may block for long.
                    let maintenance = tokio::task::spawn_blocking(move || maintain(&store));
                    if let Err(error) = maintenance.await {
                        tracing::warn!(%error, "journal maintenance failed");
                    }
                }
            }
        }
    }

    /// Expires what is due now.
    fn pass(&mut self) {
        let now = self.engine.clock.now();
        let is_due = |since: Timestamp, kept: SignedDuration| now.duration_since(since) >= kept;
        let due: Vec<(Key, Revision)> = {
            let mut events = self.written.events.lock();
            let count = events
                .iter()
                .take_while(|(at, ..)| is_due(*at, self.limits.events))
                .count();
            events
                .drain(..count)
                .map(|(_, key, revision)| (key, revision))
                .collect()
        };
        for (key, revision) in due {
            let current = self.engine.store.get(EVENTS, &key.namespace, &key.name);
            if let Some(object) = current.filter(|object| object.revision() == revision) {
                self.engine.expire(EVENTS, &object);
            }
        }
        self.marks.push_back((now, self.engine.store.revision()));
        while let Some((at, revision)) = self.marks.front().copied()
            && is_due(at, self.limits.history)
        {
            self.marks.pop_front();
            self.engine.store.compact(revision);
        }
    }
}

fn maintain(store: &Store) {
    let outcome = store.compact_journal().and_then(|()| store.sync_journal());
    if let Err(error) = outcome {
        tracing::warn!(%error, "the journal cannot be maintained");
    }
}
