//! Upgraded connections: raw bytes both ways until both sides are done.
//!
//! The protocol inside is none of the router's business. Buffers exist only while bytes are under
//! way, so an idle tunnel costs its two sockets and little else. Tunnels end by themselves, when
//! nothing moves for too long, at the end of their allowed life, or when the router stops; a
//! WebSocket is then closed with a Close frame on both sides.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use bytes::Bytes;
use http::HeaderMap;
use http::header::UPGRADE;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use self::websocket::{Frames, GOING_AWAY};
use super::flow::Flow;
use super::record::Outcome;

mod websocket;

/// Bytes copied at once.
const BUFFER: usize = 32 * 1024;
/// Buffers a thread keeps for reuse.
const SPARE_BUFFERS: usize = 16;
/// How long a goodbye may take before the sockets are closed regardless.
const GOODBYE: Duration = Duration::from_secs(1);

/// When a tunnel ends without being asked to.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Nothing moves for so long.
    pub(crate) idle: Duration,
    /// It has lived so long.
    pub(crate) lifetime: Option<Duration>,
    /// The router stops.
    pub(crate) closing: Shutdown,
}

/// What travels in a tunnel, as far as its end is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// WebSocket, which has a way to say why it is closed.
    WebSocket,
    /// Anything else.
    Other,
}

impl Protocol {
    /// What the headers of an upgrade request ask for.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let websocket = headers
            .get(UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if websocket {
            Self::WebSocket
        } else {
            Self::Other
        }
    }
}

/// Carries bytes between `client` and `sandbox` until the tunnel ends. `first` is what the sandbox
/// sent together with its answer.
pub(crate) async fn carry<C, S>(
    mut client: C,
    mut sandbox: S,
    first: Bytes,
    protocol: Protocol,
    flow: &Flow,
    limits: &Limits,
) -> Outcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut inward = Pipe::new(protocol);
    let mut outward = Pipe::new(protocol);
    outward.pending = Some(Chunk::Given(first));
    let ends_at = limits.lifetime.map(|lifetime| Instant::now() + lifetime);
    let mut timer = pin!(tokio::time::sleep_until(next_look(flow, limits, ends_at)));
    let mut closing = pin!(limits.closing.triggered());
    let outcome = std::future::poll_fn(|cx| {
        let inward = inward.poll(cx, &mut client, &mut sandbox, |n| flow.received(n));
        let outward = outward.poll(cx, &mut sandbox, &mut client, |n| flow.sent(n));
        match (inward, outward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Outcome::Complete),
            (Poll::Ready(Err(Broken::Reader)), _) | (_, Poll::Ready(Err(Broken::Writer))) => {
                return Poll::Ready(Outcome::ClientGone);
            }
            (Poll::Ready(Err(Broken::Writer)), _) | (_, Poll::Ready(Err(Broken::Reader))) => {
                return Poll::Ready(Outcome::SandboxBroke);
            }
            _ => {}
        }
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Outcome::Closed("router is shutting down"));
        }
        poll_limits(cx, timer.as_mut(), flow, limits, ends_at).map(Outcome::Closed)
    })
    .await;
    if let Outcome::Closed(reason) = outcome {
        let goodbye = async {
            let to_client = outward.goodbye(&mut client, websocket::Peer::Client, reason);
            let to_sandbox = inward.goodbye(&mut sandbox, websocket::Peer::Sandbox, reason);
            tokio::join!(to_client, to_sandbox)
        };
        // Boxed, because a tunnel should not carry room for its end. Whoever does not take the goodbye in
        // time is closed without it.
        drop(Box::pin(tokio::time::timeout(GOODBYE, goodbye)).await);
    }
    outcome
}

fn next_look(flow: &Flow, limits: &Limits, ends_at: Option<Instant>) -> Instant {
    let quiet = flow.quiet_at(limits.idle);
    ends_at.map_or(quiet, |end| end.min(quiet))
}

fn poll_limits(
    cx: &mut Context<'_>,
    mut timer: Pin<&mut Sleep>,
    flow: &Flow,
    limits: &Limits,
    ends_at: Option<Instant>,
) -> Poll<&'static str> {
    while timer.as_mut().poll(cx).is_ready() {
        let now = Instant::now();
        if ends_at.is_some_and(|end| end <= now) {
            return Poll::Ready("max lifetime exceeded");
        }
        if flow.quiet_at(limits.idle) <= now {
            return Poll::Ready("idle timeout exceeded");
        }
        timer.as_mut().reset(next_look(flow, limits, ends_at));
    }
    Poll::Pending
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    pending: Option<Chunk>,
    frames: Option<Frames>,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    /// The reader has ended; the writer is being told.
    Ending,
    Ended,
}

/// Which end of a direction failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    Reader,
    Writer,
}

/// Bytes that were read and not yet written.
#[derive(Debug)]
enum Chunk {
    Given(Bytes),
    Read {
        buffer: Box<[u8]>,
        start: usize,
        end: usize,
    },
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Read { buffer, start, end } => buffer.get(*start..*end).unwrap_or_default(),
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Given(bytes) => drop(bytes.split_to(n.min(bytes.len()))),
            Self::Read { start, .. } => *start += n,
        }
    }
}

impl Pipe {
    fn new(protocol: Protocol) -> Self {
        Self {
            pending: None,
            frames: (protocol == Protocol::WebSocket).then(Frames::default),
            state: State::Open,
        }
    }

    /// Moves what can be moved. Ready when the reader has ended and the writer knows.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        moved: impl Fn(usize),
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    // A peer that is already gone need not be told.
                    drop(std::task::ready!(Pin::new(&mut *writer).poll_shutdown(cx)));
                    self.state = State::Ended;
                }
                State::Open if self.is_pending() => {
                    moved(std::task::ready!(self.poll_write(cx, writer))?);
                }
                State::Open => {
                    if std::task::ready!(self.poll_read(cx, reader, writer))? == 0 {
                        self.state = State::Ending;
                    }
                }
            }
        }
    }

    fn is_pending(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|chunk| !chunk.bytes().is_empty())
    }

    /// Writes some of what is pending.
    fn poll_write<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<Result<usize, Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        let Some(chunk) = &mut self.pending else {
            return Poll::Ready(Ok(0));
        };
        let written = std::task::ready!(Pin::new(writer).poll_write(cx, chunk.bytes()));
        let n = written.ok().filter(|n| *n > 0).ok_or(Broken::Writer)?;
        if let Some(frames) = &mut self.frames {
            frames.pass(chunk.bytes().get(..n).unwrap_or_default());
        }
        chunk.advance(n);
        if chunk.bytes().is_empty() {
            self.release();
        }
        Poll::Ready(Ok(n))
    }

    /// Reads what comes next; 0 at the end. A buffer is held only if bytes came.
    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<usize, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.release();
        // What was written must not wait in a layer below while the reader is silent.
        if let Poll::Ready(Err(_)) = Pin::new(writer).poll_flush(cx) {
            return Poll::Ready(Err(Broken::Writer));
        }
        let mut buffer = take_buffer();
        let mut read = ReadBuf::new(&mut buffer);
        let outcome = Pin::new(reader).poll_read(cx, &mut read);
        let end = read.filled().len();
        match outcome {
            Poll::Ready(Ok(())) if end > 0 => {
                self.pending = Some(Chunk::Read {
                    buffer,
                    start: 0,
                    end,
                });
                Poll::Ready(Ok(end))
            }
            outcome => {
                give_buffer(buffer);
                outcome.map_ok(|()| 0).map_err(|_| Broken::Reader)
            }
        }
    }

    fn release(&mut self) {
        if let Some(Chunk::Read { buffer, .. }) = self.pending.take() {
            give_buffer(buffer);
        }
    }

    /// Finishes a WebSocket with a Close frame if one fits here, and closes the side.
    async fn goodbye<W>(&mut self, writer: &mut W, to: websocket::Peer, reason: &str)
    where
        W: AsyncWrite + Unpin,
    {
        let between = self.pending.is_none()
            && self.state == State::Open
            && self.frames.as_ref().is_some_and(Frames::is_between);
        if between {
            let frame = websocket::close_frame(to, GOING_AWAY, reason);
            if let Err(error) = writer.write_all(&frame).await {
                tracing::debug!(%error, "cannot say goodbye");
            }
        }
        if let Err(error) = writer.shutdown().await {
            tracing::debug!(%error, "cannot close an upgraded connection");
        }
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Box<[u8]> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
}

fn give_buffer(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}
