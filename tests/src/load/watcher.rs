//! Seeing claims become ready, as a user's client does: through a watch.

use std::collections::HashMap;
use std::sync::Arc;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, anyhow};
use futures::{Stream, TryStreamExt as _};
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Kind, Plain};

/// When a claim was seen to be ready, and with which sandbox.
#[derive(Clone, Debug)]
pub struct Ready {
    /// When.
    pub at: Instant,
    /// Its sandbox.
    pub sandbox: String,
}

/// A watch on the claims of the namespace. Ends with its value.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    _tasks: Tasks,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<String, oneshot::Sender<Ready>>>,
    trouble: Mutex<Option<String>>,
}

/// As little of a claim as decides.
#[derive(Clone, Debug, Deserialize)]
struct Claim {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    sandbox: Option<Bound>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Bound {
    #[serde(default)]
    name: String,
}

impl Watcher {
    /// Starts to watch. Claims created from now on are seen.
    pub async fn start(plain: &Plain) -> Result<Self> {
        let path = plain.path(Kind::Claim);
        let page: Value = plain.get(&format!("{path}?limit=1")).await?;
        let revision = page
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .context("the list of claims has no version")?;
        let mut place = Place {
            client: plain.watcher().clone(),
            path,
            revision: revision.to_owned(),
        };
        // The first one must be open before anything is created.
        let mut events = Box::pin(place.watch().await?);
        let shared = Arc::new(Shared::default());
        let tasks = Tasks::new("watcher");
        let theirs = Arc::clone(&shared);
        tasks.spawn("claims", async move {
            let end = loop {
                match events.try_next().await {
                    Ok(Some(event)) => {
                        place.note(&event);
                        theirs.note(event);
                    }
                    // A server ends watches as it likes, such as one that cannot keep up in a burst;
                    // clients go on where they were.
                    Ok(None) => match place.watch().await {
                        Ok(next) => events = Box::pin(next),
                        Err(error) => break error.to_string(),
                    },
                    Err(error) => break error.to_string(),
                }
            };
            *theirs.trouble.lock() = Some(end);
            // Whoever waits learns of it.
            theirs.waiting.lock().clear();
        });
        Ok(Self {
            shared,
            _tasks: tasks,
        })
    }

    /// Asks to be told when a claim is ready. To be called before the claim is created.
    pub fn expect(&self, name: &str) -> oneshot::Receiver<Ready> {
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(name.to_owned(), sender);
        receiver
    }

    /// What went wrong when a promise of [`Watcher::expect`] was broken.
    pub fn trouble(&self) -> anyhow::Error {
        let trouble = self.shared.trouble.lock().clone();
        anyhow!("the watch on claims ended: {}", trouble.unwrap_or_default())
    }
}

/// Where a watch goes on when it is opened again.
struct Place {
    client: Client,
    path: String,
    revision: String,
}

impl Place {
    async fn watch(
        &self,
    ) -> kube::Result<impl Stream<Item = kube::Result<WatchEvent<Claim>>> + Send + use<>> {
        let request = Request::get(format!(
            "{}?watch=true&resourceVersion={}&timeoutSeconds=7200",
            self.path, self.revision
        ));
        let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
        let events = self.client.request_events::<Claim>(request).await?;
        Ok(events)
    }

    fn note(&mut self, event: &WatchEvent<Claim>) {
        if let WatchEvent::Added(claim) | WatchEvent::Modified(claim) | WatchEvent::Deleted(claim) =
            event
        {
            self.revision.clone_from(&claim.metadata.resource_version);
        }
    }
}

impl Shared {
    fn note(&self, event: WatchEvent<Claim>) {
        let at = Instant::now();
        let (WatchEvent::Added(claim) | WatchEvent::Modified(claim)) = event else {
            return;
        };
        let conditions = &claim.status.conditions;
        let ready = conditions
            .iter()
            .any(|condition| condition.kind == "Ready" && condition.status == "True");
        if !ready {
            return;
        }
        if let Some(sender) = self.waiting.lock().remove(&claim.metadata.name) {
            let sandbox = claim.status.sandbox.map(|bound| bound.name);
            // Nobody waits any more after a failure elsewhere.
            drop(sender.send(Ready {
                at,
                sandbox: sandbox.unwrap_or_default(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, name: &str, ready: &str) -> WatchEvent<Claim> {
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
        let shared = Shared::default();
        let (sender, mut receiver) = oneshot::channel();
        shared.waiting.lock().insert("a".to_owned(), sender);
        shared.note(event("MODIFIED", "b", "True"));
        shared.note(event("ADDED", "a", "False"));
        shared.note(event("DELETED", "a", "True"));
        assert!(receiver.try_recv().is_err());
        shared.note(event("MODIFIED", "a", "True"));
        assert_eq!(receiver.try_recv().unwrap().sandbox, "s");
        shared.note(event("MODIFIED", "a", "True"));
        assert!(shared.waiting.lock().is_empty());
    }

    #[test]
    fn a_new_claim_has_no_status() {
        let claim = json!({"type": "ADDED", "object": {
            "metadata": {"name": "a", "resourceVersion": "7"},
        }});
        let event: WatchEvent<Claim> = serde_json::from_value(claim).unwrap();
        Shared::default().note(event);
    }
}
