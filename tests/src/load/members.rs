//! Seeing a pool become full: how many sandboxes that no claim has are Ready, told by a watch and not by the
//! pool's status, which is allowed to be late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::core::WatchEvent;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Kind, Plain};
use super::follow::{Audience, Follower, Seen};

/// A watch on the members of the only pool. Ends with its value.
#[derive(Debug)]
pub struct Members {
    tally: watch::Receiver<Tally>,
    follower: Follower,
}

/// How many are Ready, and since when.
#[derive(Clone, Copy, Debug)]
struct Tally {
    ready: usize,
    at: Instant,
    is_over: bool,
}

#[derive(Debug)]
struct Shared {
    /// Sandboxes that claims have.
    claimed: HashSet<String>,
    ready: Mutex<HashSet<String>>,
    tally: watch::Sender<Tally>,
}

#[derive(Debug, Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

impl Members {
    /// Starts with what there is. Sandboxes that are `claimed` do not count.
    pub async fn start(plain: &Plain, claimed: HashSet<String>) -> Result<Self> {
        let list: List = plain.get(&plain.path(Kind::Sandbox)).await?;
        let (shared, tally) = Shared::new(claimed);
        for seen in list.items {
            shared.hear(WatchEvent::Added(seen));
        }
        let revision = list.metadata.resource_version;
        Ok(Self {
            tally,
            follower: Follower::since(plain, Kind::Sandbox, revision, Arc::new(shared)).await?,
        })
    }

    /// Waits until so many are Ready, and says since when.
    ///
    /// # Errors
    /// When nothing becomes Ready for minutes.
    pub async fn until(&mut self, count: u32) -> Result<Instant> {
        let count = usize::try_from(count)?;
        loop {
            let tally = *self.tally.borrow_and_update();
            if tally.ready >= count {
                return Ok(tally.at);
            }
            if tally.is_over {
                return Err(self.follower.trouble());
            }
            tokio::time::timeout(STALL, self.tally.changed())
                .await
                .with_context(|| {
                    format!(
                        "{} of {count} members are Ready, and for {} s there was no progress; the run is void",
                        tally.ready,
                        STALL.as_secs()
                    )
                })?
                .context("the watch on sandboxes is gone")?;
        }
    }
}

impl Shared {
    fn new(claimed: HashSet<String>) -> (Self, watch::Receiver<Tally>) {
        let (sender, receiver) = watch::channel(Tally {
            ready: 0,
            at: Instant::now(),
            is_over: false,
        });
        let shared = Self {
            claimed,
            ready: Mutex::default(),
            tally: sender,
        };
        (shared, receiver)
    }
}

impl Audience for Shared {
    fn needs_status(&self) -> bool {
        true
    }

    fn hear(&self, event: WatchEvent<Seen>) {
        let at = Instant::now();
        let mut ready = self.ready.lock();
        let before = ready.len();
        match event {
            WatchEvent::Added(seen) | WatchEvent::Modified(seen) if seen.is_ready() => {
                if !self.claimed.contains(&seen.metadata.name) {
                    ready.insert(seen.metadata.name);
                }
            }
            WatchEvent::Added(seen) | WatchEvent::Modified(seen) | WatchEvent::Deleted(seen) => {
                ready.remove(&seen.metadata.name);
            }
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
        }
        let ready = ready.len();
        if ready != before {
            self.tally.send_modify(|tally| {
                tally.ready = ready;
                tally.at = at;
            });
        }
    }

    fn end(&self) {
        self.tally.send_modify(|tally| tally.is_over = true);
    }
}

/// How long nothing may become Ready.
const STALL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, name: &str, ready: &str) -> WatchEvent<Seen> {
        serde_json::from_value(json!({"type": kind, "object": {
            "metadata": {"name": name, "resourceVersion": "7"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }}))
        .unwrap()
    }

    #[test]
    fn ready_sandboxes_that_no_claim_has_are_counted() {
        let (shared, tally) = Shared::new(HashSet::from(["c".to_owned()]));
        let mut counts = Vec::new();
        for (kind, name, ready) in [
            ("ADDED", "a", "False"),
            ("MODIFIED", "a", "True"),
            ("MODIFIED", "a", "True"),
            ("MODIFIED", "c", "True"),
            ("ADDED", "b", "True"),
            ("MODIFIED", "a", "False"),
            ("DELETED", "b", "True"),
        ] {
            shared.hear(event(kind, name, ready));
            counts.push(tally.borrow().ready);
        }
        assert_eq!(counts, [0, 1, 1, 1, 2, 1, 0]);
        shared.end();
        assert!(tally.borrow().is_over);
    }
}
