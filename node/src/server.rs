//! The node's HTTP routes, under the paths of the kubelet: logs, pods, health.
//!
//! An API server that serves `pods/log` forwards here. Nothing is authenticated: whoever mounts the
//! router decides who reaches it.

use std::io;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use bytes::Bytes;
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::process::logs::read::{LogOptions, send};
use crate::process::logs::{Log, Stream};
use crate::roster::{Entry, Roster};

/// Chunks of a log that wait for a slow reader.
const CHUNKS: usize = 4;

/// The routes of a node that runs the pods of `roster`.
pub(crate) fn router(roster: Roster, stopping: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route("/exec/{*target}", any(no_streams))
        .route("/attach/{*target}", any(no_streams))
        .route("/portForward/{*target}", any(no_streams))
        .with_state(Routes { roster, stopping })
}

#[derive(Clone)]
struct Routes {
    roster: Roster,
    /// Ends logs that are being followed.
    stopping: CancellationToken,
}

async fn pods(State(routes): State<Routes>) -> Response {
    let pods = routes.roster.pods();
    let items: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    Json(list).into_response()
}

/// Says what is not there, and what does the same.
async fn no_streams() -> Response {
    let message = "this node serves logs, but neither exec, attach nor port-forward; \
                   pods listen on their own address of this machine, see status.podIP";
    (StatusCode::NOT_IMPLEMENTED, message).into_response()
}

/// The query of `kubectl logs`, as the API server passes it on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    limit_bytes: Option<String>,
    stream: Option<String>,
}

/// A query parameter or a name that makes no sense.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("{name}: expected {expected}, got {value:?}")]
    Parameter {
        name: &'static str,
        expected: &'static str,
        value: String,
    },
    #[error("sinceSeconds and sinceTime exclude each other")]
    TwoSinces,
    #[error("pod {namespace}/{pod} is not on this node")]
    NoPod { namespace: String, pod: String },
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer { container: String, pod: String },
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        container: String,
        pod: String,
        reason: String,
    },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { container: String, pod: String },
}

impl IntoResponse for LogError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoPod { .. } | Self::NoContainer { .. } => StatusCode::NOT_FOUND,
            Self::Parameter { .. }
            | Self::TwoSinces
            | Self::Waiting { .. }
            | Self::NoPrevious { .. } => StatusCode::BAD_REQUEST,
        };
        (status, self.to_string()).into_response()
    }
}

async fn logs(
    State(routes): State<Routes>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, LogError> {
    let (options, previous) = options(&query, Timestamp::now())?;
    let entry = routes
        .roster
        .get(&namespace, &pod)
        .ok_or_else(|| LogError::NoPod {
            namespace,
            pod: pod.clone(),
        })?;
    let log = find(&entry, &pod, &container, previous)?;
    let (out, chunks) = mpsc::channel(CHUNKS);
    let body = axum::body::Body::from_stream(reading(log, options, out, chunks, routes.stopping));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

/// The chunks of a log. Reading goes on only while the response is polled, so a client that leaves
/// ends it.
fn reading(
    log: Log,
    options: LogOptions,
    out: mpsc::Sender<io::Result<Bytes>>,
    mut chunks: mpsc::Receiver<io::Result<Bytes>>,
    stopping: CancellationToken,
) -> impl futures::Stream<Item = io::Result<Bytes>> {
    let reader = Box::pin(stopping.run_until_cancelled_owned(send(log, options, out)));
    let mut reader = Some(reader);
    futures::stream::poll_fn(move |context| {
        use std::task::Poll;
        if let Some(running) = &mut reader
            && running.as_mut().poll(context).is_ready()
        {
            reader = None;
        }
        match chunks.poll_recv(context) {
            // A chunk makes room for the next one, which the reader may be waiting for.
            Poll::Ready(Some(chunk)) => Poll::Ready(Some(chunk)),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
}

fn find(entry: &Entry, pod: &str, container: &str, previous: bool) -> Result<Log, LogError> {
    let object = entry.pod();
    let spec = object.spec.clone().unwrap_or_default();
    let known = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .any(|spec| spec.name == container);
    let (container, pod) = (container.to_owned(), pod.to_owned());
    if !known {
        return Err(LogError::NoContainer { container, pod });
    }
    let logs = entry.logs(&container).unwrap_or_default();
    if previous {
        return logs.previous.ok_or(LogError::NoPrevious { container, pod });
    }
    logs.current.ok_or_else(|| LogError::Waiting {
        reason: waiting_reason(&object, &container),
        container,
        pod,
    })
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let init = status.init_container_statuses.into_iter().flatten();
    let mut all = init.chain(status.container_statuses.into_iter().flatten());
    all.find(|status| status.name == container)
        .and_then(|status| status.state?.waiting?.reason)
        .unwrap_or_else(|| "ContainerCreating".into())
}

/// Parses the query; also says whether the previous run is meant.
fn options(query: &LogQuery, now: Timestamp) -> Result<(LogOptions, bool), LogError> {
    let seconds = number("sinceSeconds", query.since_seconds.as_deref())?;
    let time = match query.since_time.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| LogError::Parameter {
            name: "sinceTime",
            expected: "an RFC 3339 time",
            value: text.to_owned(),
        })?),
    };
    let since = match (seconds, time) {
        (Some(_), Some(_)) => return Err(LogError::TwoSinces),
        (Some(seconds), None) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.saturating_sub(ago).unwrap_or(Timestamp::MIN))
        }
        (None, time) => time,
    };
    let stream = match query.stream.as_deref() {
        None | Some("" | "All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => {
            return Err(LogError::Parameter {
                name: "stream",
                expected: "All, Stdout or Stderr",
                value: other.to_owned(),
            });
        }
    };
    let options = LogOptions {
        follow: flag("follow", query.follow.as_deref())?,
        tail_lines: number("tailLines", query.tail_lines.as_deref())?,
        timestamps: flag("timestamps", query.timestamps.as_deref())?,
        since,
        limit_bytes: number("limitBytes", query.limit_bytes.as_deref())?,
        stream,
    };
    Ok((options, flag("previous", query.previous.as_deref())?))
}

fn flag(name: &'static str, value: Option<&str>) -> Result<bool, LogError> {
    match value {
        None | Some("false" | "0") => Ok(false),
        // `?follow` without a value counts as set, as in every Kubernetes query.
        Some("" | "true" | "1") => Ok(true),
        Some(other) => Err(LogError::Parameter {
            name,
            expected: "true or false",
            value: other.to_owned(),
        }),
    }
}

fn number(name: &'static str, value: Option<&str>) -> Result<Option<usize>, LogError> {
    match value {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| LogError::Parameter {
            name,
            expected: "a whole number that is not negative",
            value: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_sandbox_service::clock::Clock;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::process::logs::LogWriter;

    struct Fixture {
        router: Router,
        entry: Arc<Entry>,
        directory: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let roster = Roster::default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "p"},
            "spec": {"containers": [{"name": "main"}, {"name": "idle"}]},
            "status": {"containerStatuses": [{
                "name": "idle", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            }]},
        }))
        .unwrap();
        let entry = roster.add(Arc::new(pod));
        Fixture {
            router: router(roster, CancellationToken::new()),
            entry,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    impl Fixture {
        async fn log(&self, run: u32, lines: &str) {
            let path = self.directory.path().join(run.to_string());
            let (writer, log) = LogWriter::create(&path, Clock::system()).unwrap();
            let (reader, mut pipe) = io::pipe().unwrap();
            let (none, _) = io::pipe().unwrap();
            io::Write::write_all(&mut pipe, lines.as_bytes()).unwrap();
            drop(pipe);
            writer.collect(reader.into(), none.into()).await;
            self.entry.begin_log("main", log);
        }

        async fn get(&self, path: &str) -> (StatusCode, String) {
            let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(bytes.to_vec()).unwrap())
        }
    }

    #[tokio::test]
    async fn logs_are_found_by_run_and_option() {
        let fixture = fixture();
        fixture.log(1, "first\n").await;
        let path = "/containerLogs/ns/p/main";
        let none = fixture.get(&format!("{path}?previous=true")).await;
        assert_eq!(none.0, StatusCode::BAD_REQUEST);
        assert!(
            none.1.contains("previous terminated container"),
            "{}",
            none.1
        );
        fixture.log(2, "one\ntwo\nthree\n").await;
        for (query, expected) in [
            ("", "one\ntwo\nthree\n"),
            ("?tailLines=1", "three\n"),
            ("?limitBytes=5", "one\nt"),
            ("?previous", "first\n"),
            ("?follow=true&tailLines=2", "two\nthree\n"),
            ("?sinceTime=2999-01-01T00:00:00Z", ""),
            ("?sinceSeconds=3600", "one\ntwo\nthree\n"),
            ("?stream=Stderr", ""),
        ] {
            let answer = fixture.get(&format!("{path}{query}")).await;
            assert_eq!(answer, (StatusCode::OK, expected.to_owned()), "{query}");
        }
        let (_, text) = fixture
            .get(&format!("{path}?timestamps=true&tailLines=1"))
            .await;
        let (time, line) = text.split_once(' ').unwrap();
        time.parse::<Timestamp>().unwrap();
        assert_eq!(line, "three\n");
    }

    #[tokio::test]
    async fn a_long_log_is_streamed_whole() {
        let fixture = fixture();
        let lines: Vec<String> = (0..50_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        let lines = lines.concat();
        let path = fixture.directory.path().join("long");
        let (writer, log) = LogWriter::create(&path, Clock::system()).unwrap();
        let (reader, mut pipe) = io::pipe().unwrap();
        let (none, _) = io::pipe().unwrap();
        let text = lines.clone();
        let feed = std::thread::spawn(move || io::Write::write_all(&mut pipe, text.as_bytes()));
        writer.collect(reader.into(), none.into()).await;
        feed.join().unwrap().unwrap();
        fixture.entry.begin_log("main", log);
        let (status, answer) = fixture.get("/containerLogs/ns/p/main").await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer == lines, "{} bytes of {}", answer.len(), lines.len());
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let fixture = fixture();
        for (path, status, text) in [
            ("ns/absent/main", 404, "pod ns/absent"),
            (
                "ns/p/absent",
                404,
                "container absent is not valid for pod p",
            ),
            ("ns/p/main", 400, "waiting to start: ContainerCreating"),
            ("ns/p/idle", 400, "waiting to start: CrashLoopBackOff"),
            ("ns/p/main?tailLines=-1", 400, "tailLines"),
            ("ns/p/main?follow=maybe", 400, "follow"),
            ("ns/p/main?sinceTime=yesterday", 400, "sinceTime"),
            ("ns/p/main?stream=Both", 400, "stream"),
            (
                "ns/p/main?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                400,
                "exclude",
            ),
        ] {
            let answer = fixture.get(&format!("/containerLogs/{path}")).await;
            assert_eq!(answer.0, status, "{path}");
            assert!(answer.1.contains(text), "{path}: {}", answer.1);
        }
        for path in ["exec/ns/p/main", "attach/ns/p/main", "portForward/ns/p"] {
            let answer = fixture.get(&format!("/{path}")).await;
            assert_eq!(answer.0, StatusCode::NOT_IMPLEMENTED, "{path}");
            assert!(answer.1.contains("status.podIP"), "{}", answer.1);
        }
        let (_, pods) = fixture.get("/pods").await;
        assert!(pods.contains("PodList") && pods.contains("\"p\""), "{pods}");
        assert_eq!(fixture.get("/healthz").await.1, "ok");
    }
}
