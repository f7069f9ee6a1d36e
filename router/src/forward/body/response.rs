//! From the sandbox to the client.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::forward::flow::{Flow, Looks, Timer};
use crate::forward::headers;
use crate::forward::record::{Outcome, Record};
use crate::upstream::{Http1, Pool};

/// Where the sandbox's body comes from.
pub(crate) enum Source {
    /// An HTTP/1.1 connection, to be given back to its pool afterwards.
    Http1(Box<Http1>, Arc<Pool>),
    /// A stream of a shared HTTP/2 connection.
    Http2(Incoming),
    /// Nowhere any more.
    Ended,
}

/// The sandbox's body on its way to the client.
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
    flow: Arc<Flow>,
    limits: Limits,
    timer: Timer,
    /// Whether an empty body says anything about the length of the response.
    sized: bool,
    /// Why the response ends early, to be told once what came before has been sent.
    failure: Option<ResponseBodyError>,
}

/// How long a response may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// As a whole.
    pub deadline: Option<Instant>,
    /// How often the body is polled anyway.
    pub looks: Looks,
}

/// Why a response ends early. The client sees its connection or stream broken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseBodyError {
    /// The sandbox broke off.
    #[error("the sandbox broke off its response")]
    Sandbox(#[source] BoxError),
    /// Nothing moved for too long.
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
    /// The response took too long as a whole.
    #[error("the response took longer than it may")]
    Deadline,
}

impl ResponseBody {
    /// `sized` tells whether the response has a `Content-Length`.
    pub(crate) fn new(source: Source, record: Box<Record>, limits: Limits, sized: bool) -> Self {
        let flow = record.flow().clone();
        let mut body = Self {
            source,
            record: Some(record),
            flow,
            limits,
            timer: Timer::new(limits.looks),
            sized,
            failure: None,
        };
        if body.source.is_end() {
            body.finish();
        }
        body
    }

    /// The last frame has passed: the connection is free and the exchange is over.
    fn finish(&mut self) {
        if let Source::Http1(connection, pool) = std::mem::replace(&mut self.source, Source::Ended)
        {
            pool.put(connection);
        }
        self.timer.clear();
        if let Some(record) = self.record.take() {
            record.finish(Outcome::Complete);
        }
    }

    /// The response ends early. A connection that is told so drops what it has not sent yet, so it is
    /// given one turn to send that first.
    fn fail(&mut self, cx: &mut Context<'_>, outcome: Outcome, error: ResponseBodyError) {
        self.source = Source::Ended;
        self.timer.clear();
        if let Some(record) = self.record.take() {
            record.finish(outcome);
        }
        self.failure = Some(error);
        cx.waker().wake_by_ref();
    }

    /// Nothing to send: has it been so for too long?
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<ResponseBodyError> {
        let quiet = self.flow.quiet_at(self.limits.idle);
        let deadline = self.limits.deadline;
        let at = deadline.map_or(quiet, |deadline| deadline.min(quiet));
        self.timer.poll(cx, at).map(|()| match deadline {
            Some(deadline) if deadline <= quiet => ResponseBodyError::Deadline,
            _ => ResponseBodyError::Idle(self.limits.idle),
        })
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Http1(connection, _) => connection.poll_body(cx).map_err(Into::into),
            Self::Http2(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Self::Ended => Poll::Ready(None),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Http1(connection, _) => connection.is_answered(),
            Self::Http2(incoming) => incoming.is_end_stream(),
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection, _) => connection.size_hint(),
            Self::Http2(incoming) => incoming.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = &mut *self;
        if let Some(error) = this.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.record.is_none() {
            return Poll::Ready(None);
        }
        match this.source.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers_to_client(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    this.flow.sent(data.len());
                }
                if this.source.is_end() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = ResponseBodyError::Sandbox(error);
                this.fail(cx, Outcome::SandboxBroke, error);
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match this.poll_limits(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(error) => {
                    this.fail(cx, Outcome::TimedOut, error);
                    Poll::Pending
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && (self.record.is_none() || self.source.is_end())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.source.size_hint();
        // A response without a body (HEAD, 204, 304) must not gain a `Content-Length: 0`.
        if self.sized || hint.exact() != Some(0) {
            hint
        } else {
            SizeHint::default()
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
