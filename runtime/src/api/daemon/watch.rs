//! `GET /v1/fs/watch`: changes below a directory, as lines of JSON that end when the client goes away.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Response, StatusCode, Uri};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::files::query;
use super::{method_not_allowed, reply};
use crate::api::{App, body};
use crate::exec::Processes;
use crate::files::{Caller, Change, Depth, Drained, FileError, Waiting, Watch};
use crate::sys::readiness::Readiness;

pub(super) async fn watch(State(app): State<App>, request: Request) -> Response<Body> {
    if request.method() != Method::GET {
        body::drain(&mut request.into_body().into_data_stream()).await;
        return method_not_allowed("GET");
    }
    let (head, _) = request.into_parts();
    begin(&app, &head.uri).await
}

async fn begin(app: &App, uri: &Uri) -> Response<Body> {
    let depth = match query(uri, "recursive").as_deref() {
        None | Some("false") => Depth::Entries,
        Some("true") => Depth::Recursive,
        Some(other) => {
            return reply::invalid(format!("recursive is {other:?}; expected true or false"));
        }
    };
    let (root, path) = (app.root.clone(), query(uri, "path").unwrap_or_default());
    let (caller, waiting) = Caller::new();
    let begun = spawn_blocking(move || {
        let path = root.parse_absolute(path.as_ref())?;
        root.watch(&path, depth, &caller)
    });
    let watch = match begun.await {
        Ok(Ok(watch)) => watch,
        Ok(Err(error)) => return reply::file(&error),
        Err(error) => return reply::stuck(&error),
    };
    match Watching::new(watch, app.processes.clone(), waiting) {
        Ok(watching) => lines(watching),
        Err(error) => reply::file(&error),
    }
}

/// A watch while its client listens. Between changes it costs no thread.
struct Watching {
    watch: Option<Watch>,
    ready: Readiness,
    /// Told when the watch begins.
    first: Option<Value>,
    /// Whether there may be changes that need no waiting.
    more: bool,
    processes: Processes,
    _waiting: Waiting,
}

/// How often a watch without changes looks whether the runtime ends.
const GLANCE: Duration = Duration::from_secs(1);
/// After how long without a change an empty line is sent. A client that is gone is noticed by it, and
/// those on the way see that the stream is in use.
const QUIET: Duration = Duration::from_secs(15);

impl Watching {
    fn new(watch: Watch, processes: Processes, waiting: Waiting) -> Result<Self, FileError> {
        let ready = watch
            .descriptor()
            .and_then(Readiness::new)
            .map_err(|error| FileError::System {
                context: "watching the directory",
                source: error,
            })?;
        Ok(Self {
            first: Some(json!({"event": "ready", "directories": watch.directories()})),
            watch: Some(watch),
            ready,
            more: false,
            processes,
            _waiting: waiting,
        })
    }

    /// Waits for a change, or until it has been quiet for long, which is `false`. `None` when the runtime
    /// ends, from which a listener must not keep it.
    async fn wait(&self, began: Instant) -> Option<bool> {
        loop {
            let ready = tokio::select! {
                ready = self.ready.wait() => Some(ready.ok()?),
                () = tokio::time::sleep(GLANCE) => None,
            };
            if self.processes.is_closing() {
                return None;
            }
            if ready.is_some() || began.elapsed() >= QUIET {
                return Some(ready.is_some());
            }
        }
    }

    /// The next lines; `None` when there will be no more.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(format!("{first}\n").into());
        }
        let began = Instant::now();
        loop {
            self.watch.as_ref()?;
            if !self.more && !self.wait(began).await? {
                return Some(Bytes::from_static(b"\n"));
            }
            let mut watch = self.watch.take()?;
            let drained = spawn_blocking(move || {
                let mut changes = Vec::new();
                let drained = watch.drain(&mut changes);
                (watch, changes, drained)
            });
            let (watch, changes, drained) = drained.await.ok()?;
            match drained {
                Ok(Drained::Ended) => {}
                Ok(drained) => {
                    self.more = drained == Drained::More;
                    self.watch = Some(watch);
                }
                Err(error) => {
                    tracing::warn!(error = reply::text(&error), "a watch was broken off");
                    return None;
                }
            }
            if !changes.is_empty() {
                let mut lines = String::new();
                for change in &changes {
                    lines.push_str(&told(change).to_string());
                    lines.push('\n');
                }
                return Some(lines.into());
            }
        }
    }
}

fn lines(watching: Watching) -> Response<Body> {
    let lines = stream::unfold(watching, |mut watching| async move {
        let lines = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(lines), watching))
    });
    let mut response = Response::new(Body::from_stream(lines));
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn told(change: &Change) -> Value {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    match change {
        Change::Created { path, directory } => json!({
            "event": "created",
            "path": text(path),
            "directory": directory,
        }),
        Change::Modified(path) => json!({"event": "modified", "path": text(path)}),
        Change::Removed(path) => json!({"event": "removed", "path": text(path)}),
        Change::Moved { from, path } => json!({
            "event": "moved",
            "from": text(from),
            "path": text(path),
        }),
        Change::Attributes(path) => json!({"event": "attributes", "path": text(path)}),
        Change::Overflow(reason) => json!({"event": "overflow", "reason": reason}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Root;
    use crate::{Config, Runtime};

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_sends_empty_lines_and_changes_as_before() {
        let outer = tempfile::tempdir().unwrap();
        let config = Config::new(outer.path().join("root"));
        let runtime = Runtime::builder(config).build().unwrap();
        let root = Root::open(outer.path().join("root")).unwrap();
        let (caller, waiting) = Caller::new();
        let path = root.parse_absolute("".as_ref()).unwrap();
        let watch = root.watch(&path, Depth::Entries, &caller).unwrap();
        let processes = runtime.processes().clone();
        let mut watching = Watching::new(watch, processes, waiting).unwrap();
        assert!(
            watching
                .next()
                .await
                .unwrap()
                .starts_with(b"{\"event\":\"ready\"")
        );
        let began = Instant::now();
        for _ in 0..2 {
            assert_eq!(watching.next().await.unwrap(), "\n");
        }
        assert!(began.elapsed() >= 2 * QUIET);
        std::fs::create_dir(root.path().join("d")).unwrap();
        let line = "{\"event\":\"created\",\"path\":\"d\",\"directory\":true}\n";
        loop {
            let lines = watching.next().await.unwrap();
            if lines != "\n" {
                assert_eq!(lines, line);
                break;
            }
        }
    }
}
