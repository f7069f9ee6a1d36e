//! Every call to the API server goes through [`Api`]: it builds the request, checks that this
//! replica may write, applies the rate limit and a timeout, counts, and sorts the answer into
//! [`ApiError`]. Watches use a connection of their own, writes rotate over theirs. Only the `act`
//! files, the watch loop, the lease and the event recorder call it.

mod delete;
mod error;
mod feed;
mod limit;
mod request;
mod resource;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::fence::Fence;
use crate::ident::{Key, Revision};
use crate::metrics::ApiMetrics;

pub use delete::{Delete, Deleted};
pub use error::ApiError;
pub(crate) use error::chain;
use error::unreadable;
pub use feed::{Bookmark, Page, WatchEvent};
pub use limit::RateLimit;
use request::{object_path, push_query, request};
pub use resource::*;

/// Objects per page of a list: enough to be quick, few enough for one answer.
pub const PAGE: usize = 500;

/// The result of an API call.
pub type Result<T> = std::result::Result<T, ApiError>;

/// The API server as the operator sees it. Clones share everything.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
    /// Set for the lease: its writes decide who may write, and must not wait behind those of workers.
    unhindered: Option<Duration>,
}

struct Inner {
    writers: Vec<Client>,
    watcher: Client,
    next: AtomicUsize,
    fence: Fence,
    limit: Option<RateLimit>,
    metrics: ApiMetrics,
    host: String,
    timeout: Duration,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("writers", &self.inner.writers.len())
            .finish_non_exhaustive()
    }
}

/// Which part of an object a patch addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Everything but the status.
    Object,
    /// The status subresource.
    Status,
}

/// How strictly the server checks the fields of a new object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fields {
    /// Unknown and duplicate fields are refused.
    Strict,
    /// The server's default.
    Lenient,
}

/// How the calls are made.
#[derive(Debug)]
pub struct Settings {
    /// Gate for writes.
    pub fence: Fence,
    /// Overall rate limit of writes and reads, watches aside.
    pub limit: Option<RateLimit>,
    /// Counters.
    pub metrics: ApiMetrics,
    /// What the API server is called in them.
    pub host: String,
    /// How long one call may take.
    pub timeout: Duration,
}

impl Api {
    /// Calls through `writers` in turn, and watches through `watcher`.
    pub fn new(writers: Vec<Client>, watcher: Client, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                writers,
                watcher,
                next: AtomicUsize::new(0),
                fence: settings.fence,
                limit: settings.limit,
                metrics: settings.metrics,
                host: settings.host,
                timeout: settings.timeout,
            }),
            unhindered: None,
        }
    }

    /// The same API server for the lease alone: past the fence and the rate limit, and with a timeout
    /// of its own, so that a call that hangs leaves time for another.
    pub(crate) fn unhindered(&self, timeout: Duration) -> Self {
        Self {
            inner: self.inner.clone(),
            unhindered: Some(timeout.min(self.inner.timeout)),
        }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: &Value,
        fields: Fields,
    ) -> Result<T> {
        let mut path = resource.path(Some(namespace));
        path.push_str("?fieldManager=");
        path.push_str(resource.creator());
        if fields == Fields::Strict {
            path.push_str("&fieldValidation=Strict");
        }
        let body = serde_json::to_vec(object).map_err(unreadable)?;
        self.write(
            "create",
            resource,
            Method::POST,
            &path,
            "application/json",
            body,
        )
        .await
    }

    /// Applies a JSON merge patch (RFC 7386). Preconditions go into `metadata` of the patch.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        key: &Key,
        part: Part,
        patch: &Value,
    ) -> Result<T> {
        let mut url = object_path(resource, key);
        url.push_str(match part {
            Part::Object => "?fieldManager=agent-sandbox-controller",
            Part::Status => "/status?fieldManager=agent-sandbox-controller",
        });
        let verb = match part {
            Part::Object => "patch",
            Part::Status => "patch_status",
        };
        let body = serde_json::to_vec(patch).map_err(unreadable)?;
        self.write(
            verb,
            resource,
            Method::PATCH,
            &url,
            "application/merge-patch+json",
            body,
        )
        .await
    }

    /// Deletes an object; one that is already gone counts as deleted.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Conflict`] when a precondition does not hold.
    pub async fn delete<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        key: &Key,
        delete: Delete,
    ) -> Result<Deleted<T>> {
        let body = serde_json::to_vec(&delete.to_value()).map_err(unreadable)?;
        let path = object_path(resource, key);
        let answer: Result<Value> = self
            .write(
                "delete",
                resource,
                Method::DELETE,
                &path,
                "application/json",
                body,
            )
            .await;
        match answer {
            Ok(status) if status.get("kind").and_then(Value::as_str) == Some("Status") => {
                Ok(Deleted::Gone)
            }
            Ok(object) => serde_json::from_value(object)
                .map(|object| Deleted::Pending(Box::new(object)))
                .map_err(unreadable),
            Err(ApiError::NotFound(_)) => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    /// Reads an object past every cache; `None` when it does not exist.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        key: &Key,
    ) -> Result<Option<T>> {
        let path = object_path(resource, key);
        let request = request(Method::GET, &path, None, Vec::new())?;
        self.wait_for_turn().await;
        match self.answer("get", resource, self.writer(), request).await {
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(unreadable),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads one page of a list from the server's newest state.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Expired`] when `token` is too old.
    pub async fn list<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        selector: Option<&str>,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Page<T>> {
        let mut path = format!("{}?limit={limit}", resource.path(namespace));
        push_query(&mut path, "labelSelector", selector);
        push_query(&mut path, "continue", token);
        let request = request(Method::GET, &path, None, Vec::new())?;
        self.wait_for_turn().await;
        let body = self
            .answer("list", resource, &self.inner.watcher, request)
            .await?;
        serde_json::from_slice(&body).or_else(|error| Page::salvage(&body, &error))
    }

    /// Reads a whole list by pages of [`PAGE`], from the server's newest state. Of objects that are watched a watch
    /// does so itself.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Expired`] when the server has forgotten the list between two pages.
    pub async fn list_all<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.list(resource, namespace, Some(selector), PAGE, token.as_deref());
            let page: Page<T> = page.await?;
            token = page.next().map(ToOwned::to_owned);
            items.extend(page.items);
            if token.is_none() {
                return Ok(items);
            }
        }
    }

    /// Opens a watch after `revision`. The stream ends when the server closes it.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Expired`] when `revision` is too old.
    pub async fn watch<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        selector: Option<&str>,
        revision: Revision,
        timeout: Duration,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>>> + Send + use<T>> {
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}&timeoutSeconds={}",
            resource.path(namespace),
            timeout.as_secs()
        );
        push_query(&mut path, "labelSelector", selector);
        let mut request = request(Method::GET, &path, None, Vec::new())?;
        // Events arrive one by one; compressing them delays them and gains nothing.
        request.headers_mut().insert(
            header::ACCEPT_ENCODING,
            header::HeaderValue::from_static("identity"),
        );
        let opening = self.send("watch", resource, &self.inner.watcher, request);
        let response = self.in_time("watch", resource, opening).await?;
        let bytes = response
            .into_body()
            .into_data_stream()
            .map(|chunk| chunk.map_err(std::io::Error::other));
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new());
        Ok(lines.filter_map(|line| async move {
            match line {
                Ok(line) if line.trim().is_empty() => None,
                Ok(line) => Some(serde_json::from_str(&line).map_err(unreadable)),
                Err(error) => Some(Err(ApiError::Transport(error.to_string()))),
            }
        }))
    }

    async fn write<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<T> {
        let request = request(method, path, Some(content_type), body)?;
        self.wait_for_turn().await;
        // Asked last: while the call waited for its turn, the lease may have been lost.
        if self.unhindered.is_none() && !self.inner.fence.is_open() {
            self.inner.metrics.count(verb, resource.plural, "fenced");
            return Err(ApiError::NotLeader);
        }
        let body = self.answer(verb, resource, self.writer(), request).await?;
        serde_json::from_slice(&body).map_err(unreadable)
    }

    /// Waits as long as the rate limit says. This does not count towards a call's timeout, which is for
    /// servers that do not answer.
    async fn wait_for_turn(&self) {
        if let (Some(limit), None) = (&self.inner.limit, self.unhindered) {
            limit.take().await;
        }
    }

    /// Sends a request and reads the whole answer, within the timeout.
    async fn answer(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        client: &Client,
        request: Request<Body>,
    ) -> Result<Bytes> {
        let whole = async {
            let response = self.send(verb, resource, client, request).await?;
            collect(response).await
        };
        self.in_time(verb, resource, whole).await
    }

    /// The outcome of a call, or an error when it takes too long.
    async fn in_time<T>(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Inner {
            timeout, metrics, ..
        } = &*self.inner;
        let timeout = self.unhindered.unwrap_or(*timeout);
        tokio::time::timeout(timeout, call)
            .await
            .unwrap_or_else(|_| {
                metrics.count(verb, resource.plural, "timeout");
                Err(ApiError::Transport(format!("no answer within {timeout:?}")))
            })
    }

    /// Sends a request and sorts an error answer.
    async fn send(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        client: &Client,
        request: Request<Body>,
    ) -> Result<Response<Body>> {
        let started = tokio::time::Instant::now();
        let method = request.method().clone();
        let outcome = client.send(request).await;
        let code = outcome
            .as_ref()
            .map_or(0, |answer| answer.status().as_u16());
        let Inner { metrics, host, .. } = &*self.inner;
        metrics.sent(method.as_str(), host, code);
        let result = match outcome {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => {
                let code = response.status().as_u16();
                let retry_after = response
                    .headers()
                    .get(header::RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map(Duration::from_secs);
                let body = collect(response).await.unwrap_or_default();
                Err(ApiError::from_answer(code, retry_after, &body))
            }
            Err(error) => Err(ApiError::Transport(chain(&error))),
        };
        let class = result.as_ref().err().map_or("2xx", ApiError::class);
        metrics.count(verb, resource.plural, class);
        metrics.observe(verb, resource.plural, started.elapsed());
        result
    }

    /// The next connection in turn.
    fn writer(&self) -> &Client {
        let writers = &self.inner.writers;
        let index = self.inner.next.fetch_add(1, Ordering::Relaxed) % writers.len().max(1);
        writers.get(index).unwrap_or(&self.inner.watcher)
    }
}

async fn collect(response: Response<Body>) -> Result<Bytes> {
    response
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| ApiError::Transport(chain(&error)))
}

#[cfg(test)]
mod tests;
