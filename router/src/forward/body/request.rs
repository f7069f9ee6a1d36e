//! From the client to the sandbox.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::forward::expect::Gate;
use crate::forward::flow::{Flow, Upload};
use crate::forward::headers;
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
        // Whoever reads trailers knows that nothing follows, and does not ask.
        let last = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) => false,
        };
        if (last || incoming.is_end_stream())
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
    /// What was taken and given back.
    returned: Bytes,
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
            returned: Bytes::new(),
        }
    }

    /// Stops holding the body back.
    pub(crate) fn go_on(&mut self) {
        self.gate = None;
    }

    /// Gives back what was taken last and sent nowhere.
    pub(crate) fn put_back(&mut self, data: Bytes) {
        self.returned = data;
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
        if !this.returned.is_empty() {
            let data = std::mem::take(&mut this.returned);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(gate) = &mut this.gate {
            if gate.poll_open(cx).is_pending() {
                return Poll::Pending;
            }
            this.gate = None;
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers_to_sandbox(trailers);
                }
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
        self.returned.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.inner.size_hint();
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + self.returned.len() as u64),
            None => rest,
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
