//! One client connection while something happens on it: HTTP/1.1 or HTTP/2.
//!
//! ```text
//!            first byte: which protocol?
//! accepted ------------------------------> HTTP/2 (until it ends)
//!    |  ^
//!    v  |            byte
//! parked -----------------------------> HTTP/1.1 --> ended, or upgraded
//!    ^                                     |
//!    `------- idle for a while ------------'
//! ```
//!
//! Deadlines are watched by one timer that ticks while a connection is active, so a request costs no
//! timer operation here. A connection keeps its HTTP state until a tick finds it idle.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::io_state::{State, Stream, Watched};
use super::{Client, Idle, Peer, Settings, Shared, TICK};
use crate::forward::body::{Answer, ClientBody};

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Protocol name of HTTP/2 in TLS.
const ALPN_H2: &[u8] = b"h2";
/// Largest HTTP/1.1 read buffer, unless the head of a request may be larger.
const MAX_READ_BUFFER: usize = 256 * 1024;
/// Flow-control windows of HTTP/2 clients: how much of an upload may be under way to a slow sandbox.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const MAX_STREAMS: u32 = 250;

enum Protocol {
    Http1,
    Http2,
}

/// What became of an active connection.
enum Activity {
    /// It has nothing to do. Bytes that came too early to be looked at are kept.
    Idle(Stream, Bytes),
    /// It ended, or now belongs to a tunnel.
    Over,
}

/// Serves a connection that has something to say until it ends, or is idle.
pub(super) async fn serve(shared: &Arc<Shared>, client: Client) -> io::Result<Option<Idle>> {
    let Client {
        mut stream,
        address,
        is_http1,
        place,
    } = client;
    let peer = Arc::new(Peer::new(address, matches!(stream, Stream::Tls(_))));
    let mut first = Bytes::new();
    if !is_http1 {
        let Some((protocol, read)) = tell_in_time(shared, &mut stream).await? else {
            return Ok(None);
        };
        first = read;
        if let Protocol::Http2 = protocol {
            Box::pin(http2(shared, stream, first, peer)).await?;
            return Ok(None);
        }
    }
    loop {
        let activity = Box::pin(http1(shared, stream, first, peer.clone()));
        match activity.await? {
            Activity::Over => return Ok(None),
            Activity::Idle(idle, early) if early.is_empty() => {
                let client = Client {
                    stream: idle,
                    address,
                    is_http1: true,
                    place,
                };
                let until = Instant::now() + shared.settings.keep_alive;
                return Ok(Some(Idle { client, until }));
            }
            Activity::Idle(idle, early) => (stream, first) = (idle, early),
        }
    }
}

/// The same as [`tell`], unless there is no point in waiting longer. That a byte was promised need not
/// hold.
async fn tell_in_time(
    shared: &Shared,
    stream: &mut Stream,
) -> io::Result<Option<(Protocol, Bytes)>> {
    tokio::select! {
        told = tell(stream) => told.map(Some),
        () = shared.stopping.triggered() => Ok(None),
        () = tokio::time::sleep(shared.settings.header_timeout) => Ok(None),
    }
}

/// Which protocol the client speaks, and what had to be read to tell.
async fn tell(stream: &mut Stream) -> io::Result<(Protocol, Bytes)> {
    let mut read = BytesMut::new();
    match stream {
        Stream::Tls(stream) => {
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(ALPN_H2) => Protocol::Http2,
                _ => Protocol::Http1,
            };
            Ok((protocol, Bytes::new()))
        }
        Stream::Plain(stream) => loop {
            // Almost every request is told apart by its first bytes, without taking them.
            let mut seen = [0; PREFACE.len()];
            let left = PREFACE.len() - read.len();
            let n = stream
                .peek(seen.get_mut(..left).unwrap_or_default())
                .await?;
            let expected = PREFACE.get(read.len()..).unwrap_or_default();
            let matches = expected.starts_with(seen.get(..n).unwrap_or_default());
            if n == 0 || !matches {
                return Ok((Protocol::Http1, read.freeze()));
            }
            if n == left {
                return Ok((Protocol::Http2, read.freeze()));
            }
            // Part of the preface: take it, or the next look would return at once.
            let mut part = stream.take(n as u64);
            part.read_buf(&mut read).await?;
        },
    }
}

async fn http2(
    shared: &Arc<Shared>,
    stream: Stream,
    first: Bytes,
    peer: Arc<Peer>,
) -> io::Result<()> {
    let state = Arc::new(State::default());
    let io = TokioIo::new(Watched::new(stream, first, state));
    let service = service_fn(|request: Request<Incoming>| {
        let (app, peer) = (shared.app.load_full(), peer.clone());
        async move {
            let request = request.map(ClientBody::new);
            Ok::<_, Infallible>(app.answer(request, &peer).await)
        }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(shared.settings.head).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .serve_connection(io, service)
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shared.stopping.triggered() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    outcome.map_err(io::Error::other)
}

async fn http1(
    shared: &Arc<Shared>,
    stream: Stream,
    first: Bytes,
    peer: Arc<Peer>,
) -> io::Result<Activity> {
    let state = Arc::new(State::default());
    let io = TokioIo::new(Watched::new(stream, first, state.clone()));
    let app = shared.app.load_full();
    // One exchange at a time, noted in the connection's state.
    let service = service_fn(|request: Request<Incoming>| {
        state.request(!request.body().is_end_stream());
        let busy = Busy(state.clone());
        let (app, peer) = (app.clone(), peer.clone());
        async move {
            let request = request.map(|body| ClientBody::noted(body, &busy.0));
            let response = app.answer(request, &peer).await;
            Ok::<_, Infallible>(response.map(|body| Held { body, _busy: busy }))
        }
    });
    let settings = &shared.settings;
    let mut connection = http1::Builder::new()
        // Deadlines are watched here instead, without a timer per request.
        .header_read_timeout(None)
        .max_buf_size(MAX_READ_BUFFER.max(settings.head))
        .max_header_size(settings.head)
        .serve_connection(io, service)
        .with_upgrades();
    let mut watch = Watch::new(settings, state.clone());
    let mut stopped = false;
    let idle = std::future::poll_fn(|cx| {
        // Found out at the next tick at the latest, which saves every request from waiting for it too.
        if !stopped && shared.stopped.load(Ordering::Relaxed) {
            stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(false)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
            Poll::Pending => watch.poll(cx),
        }
    })
    .await?;
    if !idle {
        return Ok(Activity::Over);
    }
    let Some(parts) = connection.into_parts() else {
        return Ok(Activity::Over);
    };
    // The beginning of a request that came while the one before was being answered.
    let early = parts.read_buf;
    Ok(Activity::Idle(parts.io.into_inner().into_stream(), early))
}

/// Watches the deadlines of an active connection.
struct Watch {
    state: Arc<State>,
    ticks: Interval,
    header_timeout: Duration,
    write_stall: Duration,
    requests: u64,
    head_since: Option<Instant>,
    stalled_since: Option<(u64, Instant)>,
}

impl Watch {
    fn new(settings: &Settings, state: Arc<State>) -> Self {
        let period = TICK
            .min(settings.header_timeout)
            .min(settings.write_stall)
            .max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            state,
            ticks,
            header_timeout: settings.header_timeout,
            write_stall: settings.write_stall,
            requests: 0,
            head_since: None,
            stalled_since: None,
        }
    }

    /// Ready with `true` when the connection should be parked, with an error when it must go.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Poll::Ready(now) = self.ticks.poll_tick(cx) {
            let late = |what| io::Error::new(io::ErrorKind::TimedOut, what);
            if self.state.has_partial_head() {
                let since = *self.head_since.get_or_insert(now);
                if now.duration_since(since) >= self.header_timeout {
                    return Poll::Ready(Err(late("the request head did not arrive in time")));
                }
            } else {
                self.head_since = None;
            }
            self.stalled_since = match (self.state.stalled_at(), self.stalled_since) {
                (Some(at), Some((before, since))) if at == before => {
                    if now.duration_since(since) >= self.write_stall {
                        return Poll::Ready(Err(late("the client takes no bytes")));
                    }
                    Some((at, since))
                }
                (Some(at), _) => Some((at, now)),
                (None, _) => None,
            };
            let requests = self.state.requests();
            if self.state.is_idle() && requests == self.requests {
                return Poll::Ready(Ok(true));
            }
            self.requests = requests;
        }
        Poll::Pending
    }
}

/// Marks a connection as busy until dropped.
struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// A response body during which the connection is busy.
struct Held {
    body: Answer,
    _busy: Busy,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
