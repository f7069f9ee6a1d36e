//! What a scripted sandbox sends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Interval;

use crate::pattern::PatternBody;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// These bytes.
    Whole(Bytes),
    /// Bytes of the pattern.
    Pattern(PatternBody),
    /// Server-sent events.
    Events(Events),
    /// What the client sends, with trailers where it is a call.
    Echo {
        incoming: Incoming,
        trailers: Option<HeaderMap>,
    },
}

/// Events at every tick.
#[derive(Debug)]
pub(super) struct Events {
    ticks: Interval,
    next: u64,
    last: Option<u64>,
    data: Bytes,
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

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

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
            Self::Pattern(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
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
            Self::Pattern(body) => body.is_end_stream(),
            Self::Events(_) => false,
            Self::Echo { incoming, trailers } => trailers.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pattern(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
