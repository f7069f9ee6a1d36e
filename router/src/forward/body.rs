//! Bodies on their way through: counted, limited and watched, never collected.
//!
//! A [`ClientBody`] goes to the sandbox as a [`RequestBody`]; a [`ResponseBody`] goes to the client as
//! an [`Answer`], as do bodies that the router makes itself. Frames pass as they are,
//! trailers included; back-pressure passes because a body is only polled when the other side can
//! take more.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body as RouterBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::expect::Gate;
use super::flow::{Flow, Looks, Timer, Upload};
use super::record::{Outcome, Record};
use crate::pool::{Http1, Pool};
use crate::server::State;

/// A request body as it comes from the client.
pub(crate) struct ClientBody {
    incoming: Option<Incoming>,
    /// The connection that wants to know when the body has been read.
    reader: Option<Arc<State>>,
}

impl ClientBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self {
            incoming: None,
            reader: None,
        }
    }

    /// The body of a stream.
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            reader: None,
        }
    }

    /// The body of a request on a connection that is told when it has been read.
    pub(crate) fn noted(incoming: Incoming, reader: &Arc<State>) -> Self {
        let body = Self::new(incoming);
        Self {
            reader: body.incoming.is_some().then(|| reader.clone()),
            ..body
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if (frame.is_none() || incoming.is_end_stream())
            && let Some(reader) = this.reader.take()
        {
            reader.body_read();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The client's body on its way to the sandbox.
pub(crate) struct RequestBody {
    inner: ClientBody,
    flow: Arc<Flow>,
    limit: Option<u64>,
    gate: Option<Gate>,
}

/// Why a request body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// It is larger than allowed.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// The client broke off.
    #[error("the client broke off its request body")]
    Client(#[source] hyper::Error),
}

impl RequestBody {
    pub(crate) fn new(
        inner: ClientBody,
        flow: Arc<Flow>,
        limit: Option<u64>,
        gate: Option<Gate>,
    ) -> Self {
        flow.set_upload(if inner.is_end_stream() {
            Upload::Done
        } else {
            Upload::Open
        });
        Self {
            inner,
            flow,
            limit,
            gate,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            if gate.poll_open(cx).is_pending() {
                return Poll::Pending;
            }
            this.gate = None;
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.flow.received(data.len());
                    if let Some(limit) = this.limit
                        && this.flow.bytes_in() > limit
                    {
                        this.flow.set_upload(Upload::TooLarge);
                        return Poll::Ready(Some(Err(RequestBodyError::TooLarge(limit))));
                    }
                }
                this.flow.set_upload(if this.inner.is_end_stream() {
                    Upload::Done
                } else {
                    Upload::Open
                });
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.flow.set_upload(Upload::Broken);
                Poll::Ready(Some(Err(RequestBodyError::Client(error))))
            }
            Poll::Ready(None) => {
                this.flow.set_upload(Upload::Done);
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.flow.set_upload(Upload::Starved);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// What carries a response: the connection that must be driven for it, if it has no task.
pub(crate) enum Carrier {
    /// An HTTP/1.1 connection, to be given back to its pool afterwards.
    Http1(Box<Http1>, Arc<Pool>),
    /// A stream of a shared HTTP/2 connection.
    Http2,
}

/// The sandbox's body on its way to the client.
pub(crate) struct ResponseBody {
    inner: Incoming,
    carrier: Option<Carrier>,
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
    Sandbox(#[source] hyper::Error),
    /// Nothing moved for too long.
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
    /// The response took too long as a whole.
    #[error("the response took longer than it may")]
    Deadline,
}

impl ResponseBody {
    /// `sized` tells whether the response has a `Content-Length`.
    pub(crate) fn new(
        inner: Incoming,
        carrier: Carrier,
        record: Box<Record>,
        limits: Limits,
        sized: bool,
    ) -> Self {
        let flow = record.flow().clone();
        let mut body = Self {
            inner,
            carrier: Some(carrier),
            record: Some(record),
            flow,
            limits,
            timer: Timer::new(limits.looks),
            sized,
            failure: None,
        };
        if body.inner.is_end_stream() {
            body.finish();
        }
        body
    }

    /// The last frame has passed: the connection is free and the exchange is over.
    fn finish(&mut self) {
        if let Some(Carrier::Http1(connection, pool)) = self.carrier.take() {
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
        self.carrier = None;
        self.timer.clear();
        if let Some(record) = self.record.take() {
            record.finish(outcome);
        }
        self.failure = Some(error);
        cx.waker().wake_by_ref();
    }

    /// The next frame of the sandbox, driving its connection as needed.
    fn poll_sandbox(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asking first tells the connection that its body is wanted.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Some(Carrier::Http1(connection, _)) = &mut self.carrier {
            connection.drive(cx);
            return Pin::new(&mut self.inner).poll_frame(cx);
        }
        Poll::Pending
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
        match this.poll_sandbox(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.flow.sent(data.len());
                }
                if this.inner.is_end_stream() {
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
        self.failure.is_none() && (self.record.is_none() || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.inner.size_hint();
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

/// A response body as it goes to the client.
pub(crate) enum Answer {
    /// The sandbox's.
    Sandbox(ResponseBody),
    /// The router's own.
    Router(RouterBody),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Sandbox(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Router(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Sandbox(body) => body.is_end_stream(),
            Self::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Sandbox(body) => body.size_hint(),
            Self::Router(body) => body.size_hint(),
        }
    }
}
