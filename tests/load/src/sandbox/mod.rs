//! A scripted sandbox: an HTTP server on a loopback address of its own that says in every answer who
//! it is, and otherwise does what the request asks of it.
//!
//! | path | what it does |
//! | --- | --- |
//! | `/bytes?n=N` | sends N bytes of the [pattern](crate::pattern); `&pace=B` at most B a second, `&chunked=1` without their length, `&break=M` breaks off after M |
//! | `/upload` | reads the body and answers how much it was and whether it was the pattern; `?pace=B` reads at most B bytes a second |
//! | `/echo` | sends the body back as it comes, with gRPC's trailer where the request is a call |
//! | `/events?n=N&every=MS` | sends N server-sent events (without end when not given), one every MS milliseconds |
//! | `/ws` | becomes a WebSocket that echoes |
//! | `/wait?ms=MS` | answers after so long |
//! | `/status?code=C` | answers with this status |
//! | any other | answers at once, with its identity as the body |
//!
//! Parameters may be combined where that means something. Used by the bench and the load suite, in
//! their own process or as the program `scripted-sandboxes`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_service::listen::{self, ListenError};
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

use self::body::{Answer, Events};
use self::identity::ANSWERED_BY;
use crate::pattern::{Check, PatternBody};
use crate::websocket::{self, End, Kind};

mod body;
mod identity;

pub use self::identity::{Identity, NoIdentity};

/// The port that the router dials when a request names none.
pub const PORT: u16 = 8888;

/// A running sandbox. Dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Sandbox {
    identity: Identity,
    address: SocketAddr,
    counts: Arc<Counts>,
    listening: Shutdown,
    listener: Tasks,
    connections: Tasks,
}

/// What a sandbox has seen.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

impl Sandbox {
    /// Starts one at an address; port 0 picks a free port.
    ///
    /// # Errors
    /// When nobody may listen there.
    pub fn start(identity: Identity, address: SocketAddr) -> Result<Self, ListenError> {
        let listener = listen::bind(address)?;
        let sandbox = Self {
            address: listener.local_addr().unwrap_or(address),
            counts: Arc::default(),
            listening: Shutdown::new(),
            listener: Tasks::new("sandbox"),
            connections: Tasks::new("sandbox connections"),
            identity,
        };
        let accept = accept(
            listener,
            Script {
                identity: sandbox.identity.clone(),
                counts: sandbox.counts.clone(),
                tunnels: sandbox.connections.clone(),
            },
            sandbox.connections.clone(),
            sandbox.listening.clone(),
        );
        sandbox.listener.spawn("accept", accept);
        Ok(sandbox)
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made to it so far.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many connections to it are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// How many requests reached it so far.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Listens no longer, so that another may have the address. Open connections stay and are
    /// answered, as those of a pod that is about to end.
    pub async fn retire(&self) {
        self.listening.trigger();
        self.listener.shutdown(PATIENCE).await;
    }

    /// Ends at once, with every connection.
    pub async fn stop(self) {
        self.retire().await;
        self.connections.shutdown(Duration::ZERO).await;
    }
}

/// How long the listener may take to end; it waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

async fn accept(listener: TcpListener, script: Script, connections: Tasks, stop: Shutdown) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.triggered() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn("connection", serve(stream, script.clone()));
            }
            // Out of descriptors; the suite that asked for so many will notice.
            Err(error) => {
                tracing::warn!(%error, "a scripted sandbox cannot accept");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, script: Script) {
    let _open = Open::count(&script.counts);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let answer = service_fn(|request| {
        let script = script.clone();
        async move { Ok::<_, std::convert::Infallible>(script.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
    if let Err(error) = serving.await {
        // Clients break off, and so does the script.
        tracing::debug!(%error, "connection of a scripted sandbox ended");
    }
}

/// Counts a connection while it is held.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is done for one request.
#[derive(Clone, Debug)]
struct Script {
    identity: Identity,
    counts: Arc<Counts>,
    tunnels: Tasks,
}

impl Script {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let number = |name| parameter(&query, name);
        let mut response = match request.uri().path() {
            "/bytes" => bytes(&query),
            "/upload" => self.upload(request, number("pace")).await,
            "/echo" => echo(request),
            "/events" => self.events(&query),
            "/ws" => self.websocket(request),
            "/wait" => {
                tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or_default())).await;
                self.who()
            }
            "/status" => {
                let mut response = self.who();
                let code = number("code").and_then(|code| u16::try_from(code).ok());
                *response.status_mut() = code
                    .and_then(|code| StatusCode::from_u16(code).ok())
                    .unwrap_or(StatusCode::BAD_REQUEST);
                response
            }
            _ => self.who(),
        };
        if let Some(value) = self.identity.header() {
            response.headers_mut().insert(ANSWERED_BY, value);
        }
        response
    }

    fn who(&self) -> Response<Answer> {
        whole(self.identity.to_string())
    }

    fn events(&self, query: &str) -> Response<Answer> {
        let every = Duration::from_millis(parameter(query, "every").unwrap_or(1000));
        let data = Bytes::from(self.identity.to_string());
        let events = Events::new(every, parameter(query, "n"), data);
        let mut response = Response::new(Answer::Events(events));
        let stream = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, stream);
        response
    }

    async fn upload(&self, request: Request<Incoming>, pace: Option<u64>) -> Response<Answer> {
        let mut body = request.into_body();
        let mut check = Check::default();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let mut response = whole("the body broke off".to_owned());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return response;
            };
            if let Some(data) = frame.data_ref() {
                check.take(data);
                if let Some(pace) = pace {
                    let time = data.len() as u64 * 1000 / pace.max(1);
                    tokio::time::sleep(Duration::from_millis(time)).await;
                }
            }
        }
        let sound = if check.is_sound() { "sound" } else { "broken" };
        whole(format!("{} {sound}", check.bytes()))
    }

    fn websocket(&self, request: Request<Incoming>) -> Response<Answer> {
        let key = request.headers().get("sec-websocket-key");
        if key.map(HeaderValue::as_bytes) != Some(websocket::KEY.as_bytes()) {
            let mut response = whole(format!("the key must be {}", websocket::KEY));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
        // Ends with the sandbox, like every connection.
        let open = Open(self.counts.clone());
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        self.tunnels.spawn("websocket", async move {
            let _open = open;
            if let Err(error) = converse(request).await {
                tracing::debug!(%error, "WebSocket of a scripted sandbox ended");
            }
        });
        let mut response = whole(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(
            SEC_WEBSOCKET_ACCEPT,
            HeaderValue::from_static(websocket::ACCEPT),
        );
        response
    }
}

fn whole(text: String) -> Response<Answer> {
    Response::new(Answer::Whole(text.into()))
}

fn bytes(query: &str) -> Response<Answer> {
    let mut pattern = PatternBody::new(parameter(query, "n").unwrap_or_default());
    if let Some(pace) = parameter(query, "pace") {
        pattern = pattern.at_pace(pace);
    }
    if let Some(offset) = parameter(query, "break") {
        pattern = pattern.breaking_at(offset);
    }
    if parameter(query, "chunked") == Some(1) {
        pattern = pattern.without_length();
    }
    Response::new(Answer::Pattern(pattern))
}

fn echo(request: Request<Incoming>) -> Response<Answer> {
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let is_call = kind
        .as_ref()
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let mut response = Response::new(Answer::echo(request.into_body(), is_call));
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// Echoes messages until the client says goodbye or goes.
async fn converse(request: Request<Incoming>) -> anyhow::Result<()> {
    let mut stream = TokioIo::new(hyper::upgrade::on(request).await?);
    while let Some(message) = websocket::read(&mut stream, End::Client).await? {
        let kind = match message.kind {
            Kind::Ping => Kind::Pong,
            Kind::Pong => continue,
            kind => kind,
        };
        websocket::write(&mut stream, kind, &message.payload, End::Server).await?;
        if kind == Kind::Close {
            break;
        }
    }
    Ok(())
}

/// A number in a query.
fn parameter(query: &str, name: &str) -> Option<u64> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests;
