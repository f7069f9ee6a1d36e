//! The plain client: calls by path, without caches, retries or types. It connects as the operator
//! does, over HTTP/2, writes in turn over two connections and watches over a third.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_sandbox_controller::kubeconfig::Connection;
use anyhow::{Context, Result, bail};
use http::{Method, Request};
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::Version;

/// A kind of object that the bench touches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `SandboxClaim`
    Claim,
    /// `SandboxTemplate`
    Template,
    /// `SandboxWarmPool`
    Pool,
    /// `Sandbox`
    Sandbox,
    /// `Pod`
    Pod,
}

impl Kind {
    fn collection(self) -> (&'static str, &'static str) {
        match self {
            Self::Claim => ("/apis/extensions.agents.x-k8s.io/v1beta1", "sandboxclaims"),
            Self::Template => (
                "/apis/extensions.agents.x-k8s.io/v1beta1",
                "sandboxtemplates",
            ),
            Self::Pool => (
                "/apis/extensions.agents.x-k8s.io/v1beta1",
                "sandboxwarmpools",
            ),
            Self::Sandbox => ("/apis/agents.x-k8s.io/v1beta1", "sandboxes"),
            Self::Pod => ("/api/v1", "pods"),
        }
    }
}

/// The client, bound to the namespace of the run.
pub struct Plain {
    writers: Vec<Client>,
    watcher: Client,
    next: AtomicUsize,
    namespace: String,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.collection().1)
    }
}

impl Plain {
    /// Connects, and makes sure that somebody answers.
    pub async fn connect(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let connection = Connection::find(Some(kubeconfig)).await?;
        let plain = Self {
            writers: vec![connection.client()?, connection.client()?],
            watcher: connection.client()?,
            next: AtomicUsize::new(0),
            namespace: namespace.to_owned(),
        };
        plain
            .text("/readyz")
            .await
            .context("the cluster that KUBECONFIG names does not answer; check it with `kubectl get --raw /readyz`")?;
        Ok(plain)
    }

    /// The client for watches.
    pub fn watcher(&self) -> &Client {
        &self.watcher
    }

    /// The path of a kind's objects in the namespace.
    pub fn path(&self, kind: Kind) -> String {
        let (group, plural) = kind.collection();
        format!("{group}/namespaces/{}/{plural}", self.namespace)
    }

    fn object(&self, kind: Kind, name: &str) -> String {
        format!("{}/{name}", self.path(kind))
    }

    /// A text from the server.
    pub async fn text(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        Ok(self.watcher.request_text(request).await?)
    }

    /// Reads what a path names.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = Request::get(path).body(Vec::new())?;
        Ok(self.watcher.request(request).await?)
    }

    /// Reads an object.
    pub async fn read(&self, kind: Kind, name: &str) -> Result<Value> {
        self.get(&self.object(kind, name)).await
    }

    /// Creates an object.
    pub async fn create(&self, kind: Kind, body: &Value) -> Result<Value> {
        self.write(Method::POST, &self.path(kind), JSON, body).await
    }

    /// Merges a patch into an object.
    pub async fn patch(&self, kind: Kind, name: &str, body: &Value) -> Result<Value> {
        self.write(Method::PATCH, &self.object(kind, name), MERGE, body)
            .await
    }

    /// Merges a patch into an object's status.
    pub async fn patch_status(&self, kind: Kind, name: &str, body: &Value) -> Result<Value> {
        let path = format!("{}/status", self.object(kind, name));
        self.write(Method::PATCH, &path, MERGE, body).await
    }

    /// Creates an object, and says which version it is.
    pub async fn made(&self, kind: Kind, body: Value) -> Result<Version> {
        version(&self.create(kind, &body).await?)
    }

    /// Merges a patch into an object, and says which version it is then.
    pub async fn patched(&self, kind: Kind, name: &str, patch: Value) -> Result<Version> {
        version(&self.patch(kind, name, &patch).await?)
    }

    /// Merges a patch into an object's status, and says which version it is then.
    pub async fn patched_status(&self, kind: Kind, name: &str, patch: Value) -> Result<Version> {
        version(&self.patch_status(kind, name, &patch).await?)
    }

    /// Deletes an object; one that is gone is as good.
    pub async fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        self.delete_path(&self.object(kind, name)).await
    }

    /// Deletes all objects of a kind in the namespace.
    ///
    /// The API server cuts a request off after a minute, which is too short for thousands of objects.
    /// What is left is asked for again, as long as it becomes less.
    pub async fn delete_all(&self, kind: Kind) -> Result<()> {
        let path = format!("{}?gracePeriodSeconds=0", self.path(kind));
        let mut left = self.count(kind).await?;
        while let Err(error) = self.delete_path(&path).await {
            let before = std::mem::replace(&mut left, self.count(kind).await?);
            if left >= before {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes what a path names.
    pub async fn delete_path(&self, path: &str) -> Result<()> {
        let request = Request::delete(path).body(Vec::new())?;
        match self.writer().request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("DELETE {path}")),
        }
    }

    /// How many objects of a kind there are, without reading them.
    pub async fn count(&self, kind: Kind) -> Result<usize> {
        let page: Value = self.get(&format!("{}?limit=1", self.path(kind))).await?;
        let here = page.pointer("/items").and_then(Value::as_array);
        let Some(here) = here else {
            bail!("the list of {kind} has no items");
        };
        let more = page
            .pointer("/metadata/remainingItemCount")
            .and_then(Value::as_u64);
        Ok(here.len() + usize::try_from(more.unwrap_or_default())?)
    }

    /// Reads all objects of a kind by pages, as a watch begins, and drops them.
    pub async fn read_all(&self, kind: Kind) -> Result<()> {
        let first = format!("{}?limit={PAGE}", self.path(kind));
        let mut path = first.clone();
        loop {
            let request = Request::get(&path).body(Vec::new())?;
            let text = self.watcher.request_text(request).await?;
            let page: Page = serde_json::from_str(&text)?;
            let next = page.metadata.next;
            if next.is_empty() {
                return Ok(());
            }
            // The token is made for URLs.
            path = format!("{first}&continue={next}");
        }
    }

    async fn write(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(serde_json::to_vec(body)?)?;
        self.writer()
            .request(request)
            .await
            .with_context(|| format!("{method} {path}"))
    }

    fn writer(&self) -> &Client {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len().max(1);
        self.writers.get(turn).unwrap_or(&self.watcher)
    }
}

fn version(object: &Value) -> Result<Version> {
    Version::of(object).context("the answer is no object")
}

/// What follows a page of a list.
#[derive(Deserialize)]
struct Page {
    metadata: Continuation,
}

#[derive(Deserialize)]
struct Continuation {
    #[serde(rename = "continue", default)]
    next: String,
}

/// Objects per page of a list, as the operator asks for them.
const PAGE: usize = 500;
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
