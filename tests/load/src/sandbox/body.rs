//! What a scripted sandbox sends: made as it is read, so that size costs no memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Interval};

use crate::pattern;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// These bytes.
    Whole(Bytes),
    /// Bytes of the pattern.
    Pattern(Pattern),
    /// Server-sent events.
    Events(Events),
    /// What the client sends, with trailers where it is a call.
    Echo {
        incoming: Incoming,
        trailers: Option<HeaderMap>,
    },
}

/// Bytes of the pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    sent: u64,
    length: u64,
    breaks: Option<Break>,
    pace: Option<Pace>,
    sized: bool,
}

/// Where the connection breaks, and when: what was sent before is on its way by then.
#[derive(Debug)]
struct Break {
    offset: u64,
    pause: Interval,
}

/// So many bytes at every tick.
#[derive(Debug)]
struct Pace {
    ticks: Interval,
    step: u64,
    left: u64,
}

/// Events at every tick.
#[derive(Debug)]
pub(super) struct Events {
    ticks: Interval,
    next: u64,
    last: Option<u64>,
    data: Bytes,
}

/// How a sandbox breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the script says to break off here")]
pub(super) struct BreaksOff;

/// How often a bounded pace sends.
const TICK: Duration = Duration::from_millis(20);

impl Pattern {
    pub(super) fn new(length: u64) -> Self {
        Self {
            sent: 0,
            length,
            breaks: None,
            pace: None,
            sized: true,
        }
    }

    /// Sends at most this many bytes in a second.
    pub(super) fn at_pace(mut self, per_second: u64) -> Self {
        let ticks_per_second = 1000 / TICK.as_millis();
        let step = per_second / u64::try_from(ticks_per_second).unwrap_or(1);
        self.pace = Some(Pace {
            ticks: tokio::time::interval(TICK),
            step: step.max(1),
            left: 0,
        });
        self
    }

    /// Breaks the connection after this many bytes.
    pub(super) fn breaking_at(mut self, offset: u64) -> Self {
        self.breaks = Some(Break {
            offset,
            pause: tokio::time::interval_at(Instant::now() + TICK, TICK),
        });
        self
    }

    /// Does not say its length beforehand.
    pub(super) fn unsized_(mut self) -> Self {
        self.sized = false;
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BreaksOff>>> {
        let left = self.length - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let limit = match &mut self.breaks {
            Some(it) if it.offset <= self.sent => {
                ready!(it.pause.poll_tick(cx));
                return Poll::Ready(Some(Err(BreaksOff)));
            }
            Some(it) => left.min(it.offset - self.sent),
            None => left,
        };
        let limit = match &mut self.pace {
            Some(pace) => {
                if pace.left == 0 {
                    ready!(pace.ticks.poll_tick(cx));
                    pace.left = pace.step;
                }
                limit.min(pace.left)
            }
            None => limit,
        };
        let chunk = pattern::chunk(self.sent, limit);
        let length = chunk.len() as u64;
        self.sent += length;
        if let Some(pace) = &mut self.pace {
            pace.left -= length;
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl Events {
    /// Events with this text every so often: so many, or without end.
    pub(super) fn new(every: Duration, count: Option<u64>, data: Bytes) -> Self {
        Self {
            ticks: tokio::time::interval(every.max(Duration::from_millis(1))),
            next: 0,
            last: count,
            data,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.last == Some(self.next) {
            return Poll::Ready(None);
        }
        ready!(self.ticks.poll_tick(cx));
        let mut event = format!("id: {}\ndata: ", self.next).into_bytes();
        event.extend_from_slice(&self.data);
        event.extend_from_slice(b"\n\n");
        self.next += 1;
        Poll::Ready(Some(event.into()))
    }
}

impl Answer {
    /// Sends back what comes; a call ends with a status.
    pub(super) fn echo(incoming: Incoming, is_call: bool) -> Self {
        let trailers =
            is_call.then(|| HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]));
        Self::Echo { incoming, trailers }
    }
}

const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pattern(pattern) => pattern
                .poll(cx)
                .map(|part| part.map(|part| part.map(Frame::data).map_err(Into::into))),
            Self::Events(events) => events.poll(cx).map(|event| Some(Ok(Frame::data(event?)))),
            Self::Echo { incoming, trailers } => match ready!(Pin::new(incoming).poll_frame(cx)) {
                Some(frame) => Poll::Ready(Some(frame.map_err(Into::into))),
                None => Poll::Ready(trailers.take().map(|it| Ok(Frame::trailers(it)))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pattern(pattern) => pattern.sent == pattern.length,
            Self::Events(_) => false,
            Self::Echo { incoming, trailers } => trailers.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pattern(pattern) if pattern.sized => {
                SizeHint::with_exact(pattern.length - pattern.sent)
            }
            _ => SizeHint::default(),
        }
    }
}
