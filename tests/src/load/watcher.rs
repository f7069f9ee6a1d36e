//! Seeing claims become ready, and pods go, as a user's client does: through a watch.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use kube::core::WatchEvent;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Kind, Plain};
use super::follow::{Audience, Follower, Seen};

/// When something was seen.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When.
    pub at: Instant,
    /// The sandbox of a claim that is ready.
    pub sandbox: String,
}

/// A watch for what happens to objects that are known by name. Ends with its value.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    follower: Follower,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Until {
    Ready,
    Gone,
}

#[derive(Debug)]
struct Shared {
    until: Until,
    waiting: Mutex<HashMap<String, oneshot::Sender<Sighting>>>,
}

impl Watcher {
    /// Watches for claims to be ready.
    pub async fn of_claims(plain: &Plain) -> Result<Self> {
        Self::start(plain, Kind::Claim, Until::Ready).await
    }

    /// Watches for pods to be gone.
    pub async fn of_pods(plain: &Plain) -> Result<Self> {
        Self::start(plain, Kind::Pod, Until::Gone).await
    }

    /// Watches for pods to be ready.
    pub async fn of_started_pods(plain: &Plain) -> Result<Self> {
        Self::start(plain, Kind::Pod, Until::Ready).await
    }

    async fn start(plain: &Plain, kind: Kind, until: Until) -> Result<Self> {
        let shared = Arc::new(Shared::new(until));
        Ok(Self {
            follower: Follower::start(plain, kind, Arc::clone(&shared)).await?,
            shared,
        })
    }

    /// Asks to be told when it happens to the object of this name. To be called before whatever leads
    /// to it is done.
    pub fn expect(&self, name: &str) -> oneshot::Receiver<Sighting> {
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(name.to_owned(), sender);
        receiver
    }

    /// What went wrong when a promise of [`Watcher::expect`] was broken.
    pub fn trouble(&self) -> anyhow::Error {
        self.follower.trouble()
    }
}

impl Shared {
    fn new(until: Until) -> Self {
        Self {
            until,
            waiting: Mutex::default(),
        }
    }
}

impl Audience for Shared {
    fn needs_status(&self) -> bool {
        self.until == Until::Ready
    }

    fn hear(&self, event: WatchEvent<Seen>) {
        let at = Instant::now();
        let seen = match (self.until, event) {
            (Until::Ready, WatchEvent::Added(seen) | WatchEvent::Modified(seen))
                if seen.is_ready() =>
            {
                seen
            }
            (Until::Gone, WatchEvent::Deleted(seen)) => seen,
            _ => return,
        };
        if let Some(sender) = self.waiting.lock().remove(&seen.metadata.name) {
            let sandbox = seen.status.sandbox.map(|bound| bound.name);
            // Nobody waits any more after a failure elsewhere.
            drop(sender.send(Sighting {
                at,
                sandbox: sandbox.unwrap_or_default(),
            }));
        }
    }

    fn end(&self) {
        self.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, name: &str, ready: &str) -> WatchEvent<Seen> {
        serde_json::from_value(json!({"type": kind, "object": {
            "metadata": {"name": name, "resourceVersion": "7"},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "sandbox": {"name": "s"},
            },
        }}))
        .unwrap()
    }

    #[test]
    fn only_the_first_readiness_counts() {
        let shared = Shared::new(Until::Ready);
        let (sender, mut receiver) = oneshot::channel();
        shared.waiting.lock().insert("a".to_owned(), sender);
        shared.hear(event("MODIFIED", "b", "True"));
        shared.hear(event("ADDED", "a", "False"));
        shared.hear(event("DELETED", "a", "True"));
        assert!(receiver.try_recv().is_err());
        shared.hear(event("MODIFIED", "a", "True"));
        assert_eq!(receiver.try_recv().unwrap().sandbox, "s");
        shared.hear(event("MODIFIED", "a", "True"));
        assert!(shared.waiting.lock().is_empty());
    }

    #[test]
    fn only_a_deletion_is_the_end_of_a_pod() {
        let shared = Shared::new(Until::Gone);
        let (sender, mut receiver) = oneshot::channel();
        shared.waiting.lock().insert("a".to_owned(), sender);
        shared.hear(event("MODIFIED", "a", "True"));
        shared.hear(event("DELETED", "b", "True"));
        assert!(receiver.try_recv().is_err());
        shared.hear(event("DELETED", "a", "True"));
        assert!(receiver.try_recv().is_ok());
    }

    #[test]
    fn who_waits_learns_of_the_end() {
        let shared = Shared::new(Until::Ready);
        let (sender, mut receiver) = oneshot::channel();
        shared.waiting.lock().insert("a".to_owned(), sender);
        shared.end();
        assert_eq!(
            receiver.try_recv().unwrap_err(),
            oneshot::error::TryRecvError::Closed
        );
    }

    #[test]
    fn a_new_claim_has_no_status() {
        let claim = json!({"type": "ADDED", "object": {
            "metadata": {"name": "a", "resourceVersion": "7"},
        }});
        let event: WatchEvent<Seen> = serde_json::from_value(claim).unwrap();
        Shared::new(Until::Ready).hear(event);
    }
}
