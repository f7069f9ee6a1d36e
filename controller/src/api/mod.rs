//! Every call to the API server goes through [`Api`]: it builds the request, checks that this
//! replica may write, applies the rate limit and a timeout, counts, and sorts the answer into
//! [`ApiError`]. Watches use a connection of their own, writes rotate over theirs. Only the `act`
//! files, the watch loop, the lease and the event recorder call it.

mod error;
mod limit;
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
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::fence::Fence;
use crate::ident::{Key, Revision, Uid};
use crate::metrics::ApiMetrics;

pub use error::ApiError;
pub use limit::RateLimit;
pub use resource::*;

/// The result of an API call.
pub type Result<T> = std::result::Result<T, ApiError>;

/// The API server as the operator sees it. Clones share everything.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    writers: Vec<Client>,
    watcher: Client,
    next: AtomicUsize,
    fence: Fence,
    limit: Option<RateLimit>,
    metrics: ApiMetrics,
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

/// What a delete requires of the object, and what becomes of its dependents.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// The object must have this UID.
    pub uid: Uid,
    /// The object must be at this revision, when given.
    pub revision: Option<Revision>,
    /// Wait for dependents.
    pub foreground: bool,
}

impl Delete {
    /// Deletes the object with this UID, whatever its revision.
    pub fn of(uid: Uid) -> Self {
        Self {
            uid,
            revision: None,
            foreground: false,
        }
    }

    /// Deletes the object only as it was seen.
    pub fn as_seen(uid: Uid, revision: Revision) -> Self {
        Self {
            revision: Some(revision),
            ..Self::of(uid)
        }
    }

    fn to_value(self) -> Value {
        let mut preconditions = json!({"uid": self.uid.to_string()});
        if let (Some(revision), Some(members)) = (self.revision, preconditions.as_object_mut()) {
            members.insert("resourceVersion".to_owned(), revision.to_string().into());
        }
        json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": if self.foreground { "Foreground" } else { "Background" },
        })
    }
}

/// What a delete left behind.
#[derive(Clone, Debug)]
pub enum Deleted<T> {
    /// The object is gone.
    Gone,
    /// The object is still there, being deleted.
    Pending(Box<T>),
}

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Page<T> {
    metadata: PageMetadata,
    /// The objects. Some servers write an empty list as null.
    #[serde(default = "Vec::new", deserialize_with = "null_as_empty")]
    pub items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl<T> Page<T> {
    /// The revision of the whole list.
    ///
    /// # Errors
    /// When it is no integer.
    pub fn revision(&self) -> Result<Revision> {
        Revision::parse(&self.metadata.resource_version).map_err(|_| {
            ApiError::Unreadable(format!(
                "list resourceVersion {:?} is not an integer",
                self.metadata.resource_version
            ))
        })
    }

    /// The token of the next page.
    pub fn next(&self) -> Option<&str> {
        Some(self.metadata.next.as_str()).filter(|token| !token.is_empty())
    }
}

/// One line of a watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum WatchEvent<T> {
    /// The object appeared, or came to match the selector.
    Added(T),
    /// The object changed.
    Modified(T),
    /// The object is gone, or no longer matches the selector.
    Deleted(T),
    /// Nothing happened up to this revision.
    Bookmark(Bookmark),
    /// The watch failed.
    Error(Value),
}

/// The object of a bookmark event.
#[derive(Clone, Debug, Deserialize)]
pub struct Bookmark {
    metadata: PageMetadata,
}

impl Bookmark {
    /// The revision reached.
    pub fn revision(&self) -> Option<Revision> {
        Revision::parse(&self.metadata.resource_version).ok()
    }
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
                timeout: settings.timeout,
            }),
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
        path.push_str(match fields {
            Fields::Strict => concat!(
                "?fieldManager=sandbox-controller",
                "&fieldValidation=Strict"
            ),
            Fields::Lenient => "?fieldManager=sandbox-controller",
        });
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

    /// Replaces an object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub(crate) async fn replace<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        key: &Key,
        object: &Value,
    ) -> Result<T> {
        let body = serde_json::to_vec(object).map_err(unreadable)?;
        let path = object_path(resource, key);
        self.write_unfenced(
            "update",
            resource,
            Method::PUT,
            &path,
            "application/json",
            body,
        )
        .await
    }

    /// Creates an object although this replica does not lead; only the lease may do this.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub(crate) async fn create_unfenced<T: DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<T> {
        let body = serde_json::to_vec(object).map_err(unreadable)?;
        let path = resource.path(Some(namespace));
        self.write_unfenced(
            "create",
            resource,
            Method::POST,
            &path,
            "application/json",
            body,
        )
        .await
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
        let body = self
            .answer("list", resource, &self.inner.watcher, request)
            .await?;
        serde_json::from_slice(&body).or_else(|error| salvage(&body, &error))
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
        let response = self
            .send("watch", resource, &self.inner.watcher, request)
            .await?;
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
        if !self.inner.fence.is_open() {
            self.inner.metrics.count(verb, resource.plural, "fenced");
            return Err(ApiError::NotLeader);
        }
        self.write_unfenced(verb, resource, method, path, content_type, body)
            .await
    }

    async fn write_unfenced<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<T> {
        let request = request(method, path, Some(content_type), body)?;
        let body = self.answer(verb, resource, self.writer(), request).await?;
        serde_json::from_slice(&body).map_err(unreadable)
    }

    /// Sends a request and reads the whole answer, within the timeout.
    async fn answer(
        &self,
        verb: &'static str,
        resource: &'static Resource,
        client: &Client,
        request: Request<Body>,
    ) -> Result<Bytes> {
        if let Some(limit) = &self.inner.limit {
            limit.take().await;
        }
        let whole = async {
            let response = self.send(verb, resource, client, request).await?;
            collect(response).await
        };
        tokio::time::timeout(self.inner.timeout, whole)
            .await
            .unwrap_or_else(|_| {
                self.inner.metrics.count(verb, resource.plural, "timeout");
                Err(ApiError::Transport(format!(
                    "no answer within {:?}",
                    self.inner.timeout
                )))
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
        let outcome = client.send(request).await;
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
        self.inner.metrics.count(verb, resource.plural, class);
        self.inner
            .metrics
            .observe(verb, resource.plural, started.elapsed());
        result
    }

    /// The next connection in turn.
    fn writer(&self) -> &Client {
        let writers = &self.inner.writers;
        let index = self.inner.next.fetch_add(1, Ordering::Relaxed) % writers.len().max(1);
        writers.get(index).unwrap_or(&self.inner.watcher)
    }
}

fn object_path(resource: &Resource, key: &Key) -> String {
    let namespace = Some(&*key.namespace).filter(|namespace| !namespace.is_empty());
    format!("{}/{}", resource.path(namespace), key.name)
}

fn push_query(path: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        path.push('&');
        path.push_str(name);
        path.push('=');
        path.push_str(&encoded);
    }
}

fn request(
    method: Method,
    path: &str,
    content_type: Option<&'static str>,
    body: Vec<u8>,
) -> Result<Request<Body>> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    builder.body(Body::from(body)).map_err(unreadable)
}

async fn collect(response: Response<Body>) -> Result<Bytes> {
    response
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| ApiError::Transport(chain(&error)))
}

/// Reads what can be read of a page in which some object does not decode: one object must not hide
/// all others.
fn salvage<T: DeserializeOwned>(body: &[u8], first: &serde_json::Error) -> Result<Page<T>> {
    let raw: Page<Value> = serde_json::from_slice(body).map_err(|_| unreadable(first))?;
    let mut items = Vec::with_capacity(raw.items.len());
    for item in raw.items {
        let name = item.pointer("/metadata/name").cloned().unwrap_or_default();
        match serde_json::from_value(item) {
            Ok(item) => items.push(item),
            Err(error) => tracing::error!(%name, %error, "an object in a list was skipped"),
        }
    }
    Ok(Page {
        metadata: raw.metadata,
        items,
    })
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Unreadable(error.to_string())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_carry_their_preconditions() {
        let uid = Uid::parse("0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0");
        assert_eq!(
            Delete::as_seen(uid, Revision(7)).to_value()["preconditions"],
            json!({"uid": uid.to_string(), "resourceVersion": "7"})
        );
        assert_eq!(
            Delete::of(uid).to_value()["propagationPolicy"],
            "Background"
        );
    }

    #[test]
    fn watch_lines_and_pages_decode() {
        let event: WatchEvent<Value> = serde_json::from_str(
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}"#,
        )
        .unwrap();
        assert!(matches!(event, WatchEvent::Bookmark(b) if b.revision() == Some(Revision(12))));
        let event: WatchEvent<Value> =
            serde_json::from_str(r#"{"object":{"code":410},"type":"ERROR"}"#).unwrap();
        assert!(matches!(event, WatchEvent::Error(_)));
        let page: Page<Value> =
            serde_json::from_str(r#"{"metadata":{"resourceVersion":"3"},"items":null}"#).unwrap();
        assert_eq!(page.revision().unwrap(), Revision(3));
        assert_eq!(page.next(), None);
        assert!(page.items.is_empty());
    }

    #[test]
    fn queries_are_encoded() {
        let mut path = "/x?limit=1".to_owned();
        push_query(&mut path, "labelSelector", Some("a=b,c"));
        push_query(&mut path, "continue", None);
        assert_eq!(path, "/x?limit=1&labelSelector=a%3Db%2Cc");
    }
}
