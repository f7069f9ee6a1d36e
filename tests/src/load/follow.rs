//! Following the objects of one kind through a watch that goes on where it was when the server ends it.

use std::sync::Arc;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, anyhow};
use futures::{Stream, TryStreamExt as _};
use http::Request;
use http::header::ACCEPT;
use kube::Client;
use kube::core::WatchEvent;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Kind, Plain};

/// As little of an object as the bench looks at.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// What it is called.
    pub metadata: Metadata,
    /// How it is.
    #[serde(default)]
    pub status: Status,
}

/// What an object is called, and which version of it this is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its version.
    pub resource_version: String,
}

/// How a claim or a sandbox is.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    /// The sandbox of a claim.
    pub sandbox: Option<Bound>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The sandbox of a claim.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

impl Seen {
    /// Whether it says that it is Ready.
    pub fn is_ready(&self) -> bool {
        let conditions = &self.status.conditions;
        conditions
            .iter()
            .any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// Whoever wants to know.
pub trait Audience: Send + Sync + 'static {
    /// Whether it asks for more than names and versions.
    fn needs_status(&self) -> bool;
    /// Something happened.
    fn hear(&self, event: WatchEvent<Seen>);
    /// Nothing will be heard any more.
    fn end(&self);
}

/// A watch that is being followed. Ends with its value.
#[derive(Debug)]
pub struct Follower {
    kind: Kind,
    trouble: Arc<Mutex<Option<String>>>,
    _tasks: Tasks,
}

impl Follower {
    /// Follows what happens from now on.
    pub async fn start<A: Audience>(plain: &Plain, kind: Kind, audience: Arc<A>) -> Result<Self> {
        let page: Value = plain.get(&format!("{}?limit=1", plain.path(kind))).await?;
        let revision = page
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .with_context(|| format!("the list of {kind} has no version"))?;
        Self::since(plain, kind, revision.to_owned(), audience).await
    }

    /// Follows what happens after a version.
    pub async fn since<A: Audience>(
        plain: &Plain,
        kind: Kind,
        revision: String,
        audience: Arc<A>,
    ) -> Result<Self> {
        let mut place = Place {
            client: plain.watcher().clone(),
            path: plain.path(kind),
            accept: if audience.needs_status() {
                JSON
            } else {
                PARTIAL
            },
            revision,
        };
        // The first one must be open before anything is created.
        let mut events = Box::pin(place.watch().await?);
        let trouble = Arc::new(Mutex::default());
        let tasks = Tasks::new("follower");
        let theirs = Arc::clone(&trouble);
        tasks.spawn("watch", async move {
            let end = loop {
                match events.try_next().await {
                    Ok(Some(event)) => {
                        place.note(&event);
                        audience.hear(event);
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
            *theirs.lock() = Some(end);
            // Whoever waits learns of it.
            audience.end();
        });
        Ok(Self {
            kind,
            trouble,
            _tasks: tasks,
        })
    }

    /// What went wrong when the audience was told of the end.
    pub fn trouble(&self) -> anyhow::Error {
        let trouble = self.trouble.lock().clone();
        let kind = self.kind;
        anyhow!("the watch on {kind} ended: {}", trouble.unwrap_or_default())
    }
}

/// Where a watch goes on when it is opened again.
struct Place {
    client: Client,
    path: String,
    accept: &'static str,
    revision: String,
}

impl Place {
    async fn watch(
        &self,
    ) -> kube::Result<impl Stream<Item = kube::Result<WatchEvent<Seen>>> + Send + use<>> {
        let request = Request::get(format!(
            "{}?watch=true&resourceVersion={}&timeoutSeconds=7200",
            self.path, self.revision
        ));
        let request = request
            .header(ACCEPT, self.accept)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        self.client.request_events::<Seen>(request).await
    }

    fn note(&mut self, event: &WatchEvent<Seen>) {
        if let WatchEvent::Added(seen) | WatchEvent::Modified(seen) | WatchEvent::Deleted(seen) =
            event
        {
            self.revision.clone_from(&seen.metadata.resource_version);
        }
    }
}

const JSON: &str = "application/json";
/// Names and versions alone.
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
