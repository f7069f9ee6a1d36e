//! A model of the API server that the router watches: pods and Sandboxes, lists, watches that resume
//! where they broke, and a history that is sometimes lost.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use agent_sandbox_service::listen;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How many events can be caught up with.
const HISTORY: usize = 4096;

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    _serving: Tasks,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Pods,
    Sandboxes,
    Pools,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    kinds: BTreeMap<Kind, Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    by_uid: BTreeMap<String, Value>,
    history: VecDeque<(u64, Bytes)>,
    forgotten: u64,
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    Events(mpsc::UnboundedReceiver<Bytes>),
}

impl Cluster {
    /// Starts one without objects.
    pub(super) fn start() -> Result<Self> {
        let listener = listen::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let tasks = Tasks::new("model API server");
        let cluster = Self {
            state: Arc::default(),
            address: listener.local_addr()?,
            _serving: tasks.clone(),
        };
        // Owned by the handle alone: the tasks end with its last clone.
        let (state, connections) = (cluster.state.clone(), Tasks::new("API connections"));
        tasks.spawn("accept", accept(listener, state, connections));
        Ok(cluster)
    }

    /// A file that leads the router here.
    pub(super) fn kubeconfig(&self, directory: &Path) -> Result<PathBuf> {
        let server = format!("http://{}", self.address);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "model",
            "clusters": [{"name": "model", "cluster": {"server": server}}],
            "users": [{"name": "model", "user": {}}],
            "contexts": [{"name": "model", "context": {"cluster": "model", "user": "model"}}],
        });
        let path = directory.join("kubeconfig");
        std::fs::write(&path, config.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Creates or replaces an object, and tells.
    pub(super) fn apply(&self, kind: Kind, uid: &str, mut object: Value) {
        let mut state = self.state.lock();
        let (version, objects) = state.next(kind);
        set_version(&mut object, version);
        let existed = objects.by_uid.insert(uid.to_owned(), object.clone());
        let event = if existed.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        objects.tell(version, event, &object);
    }

    /// Deletes an object, and tells.
    pub(super) fn delete(&self, kind: Kind, uid: &str) {
        let mut state = self.state.lock();
        let (version, objects) = state.next(kind);
        if let Some(mut object) = objects.by_uid.remove(uid) {
            set_version(&mut object, version);
            objects.tell(version, "DELETED", &object);
        }
    }

    /// Breaks every watch; they can be resumed, unless the history is lost.
    pub(super) fn interrupt(&self, lose_history: bool) {
        let mut state = self.state.lock();
        let version = state.version;
        for objects in state.kinds.values_mut() {
            objects.watchers.clear();
            if lose_history {
                objects.history.clear();
                objects.forgotten = version;
            }
        }
    }
}

fn set_version(object: &mut Value, version: u64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), version.to_string().into());
    }
}

impl State {
    fn next(&mut self, kind: Kind) -> (u64, &mut Objects) {
        self.version += 1;
        (self.version, self.kinds.entry(kind).or_default())
    }
}

impl Objects {
    fn tell(&mut self, version: u64, event: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": event, "object": object})));
        self.watchers
            .retain(|watcher| watcher.send(line.clone()).is_ok());
        self.history.push_back((version, line));
        while self.history.len() > HISTORY {
            if let Some((version, _)) = self.history.pop_front() {
                self.forgotten = version;
            }
        }
    }

    /// What happened since a version, and then what happens; that it is forgotten, if it is, in the
    /// stream as real API servers do.
    fn watch(&mut self, since: u64) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let expired = (since < self.forgotten).then(|| {
            let status = failure(StatusCode::GONE, "Expired");
            Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
        });
        let missed = self.history.iter().filter(|(version, _)| *version > since);
        let lines = missed.map(|(_, line)| line.clone());
        let is_expired = expired.is_some();
        // The receiver is at hand, so it takes everything.
        let told = match expired {
            Some(line) => sender.send(line).is_ok(),
            None => lines.map(|line| sender.send(line)).all(|sent| sent.is_ok()),
        };
        if told && !is_expired {
            self.watchers.push(sender);
        }
        receiver
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, connections: Tasks) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let state = state.clone();
        connections.spawn("connection", async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let response = answer(&mut state.lock(), &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let serving = builder.serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "connection of the model API server ended");
            }
        });
    }
}

fn answer(state: &mut State, request: &Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let version = state.version;
    let kind = if path.ends_with("/pods") {
        Kind::Pods
    } else if path.ends_with("/sandboxes") {
        Kind::Sandboxes
    } else if path.ends_with("/sandboxwarmpools") {
        Kind::Pools
    } else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    let objects = state.kinds.entry(kind).or_default();
    if !query
        .split('&')
        .any(|it| it == "watch=true" || it == "watch=1")
    {
        let items: Vec<&Value> = objects.by_uid.values().collect();
        let list = json!({"metadata": {"resourceVersion": version.to_string()}, "items": items});
        return Response::new(Answer::Whole(Some(list.to_string().into())));
    }
    let since = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("resourceVersion="))
        .and_then(|version| version.parse().ok())
        .unwrap_or_default();
    Response::new(Answer::Events(objects.watch(since)))
}

fn failure(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": reason,
    })
}

fn status(code: StatusCode, reason: &str) -> Response<Answer> {
    let text = failure(code, reason).to_string();
    let mut response = Response::new(Answer::Whole(Some(text.into())));
    *response.status_mut() = code;
    response
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Events(events) => events
                .poll_recv(cx)
                .map(|it| it.map(|it| Ok(Frame::data(it)))),
        }
    }
}
