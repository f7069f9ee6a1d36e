//! One attempt to send a request over one connection and to get the head of its response.
//!
//! The HTTP/1.1 connection is driven from here, so request, response and connection share the
//! client's task. Whether anything was sent is known exactly: the request comes back when not.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;

use super::body::RequestBody;
use super::flow::{Flow, Looks, Timer, Upload};
use crate::upstream::{Head, Http1, Http1Error};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection had ended before anything was written; the request is returned.
    #[error("the connection ended before the request was sent")]
    NotSent(Box<Request<RequestBody>>),
    /// The sandbox broke off, or answered with something that is not HTTP.
    #[error("the sandbox broke off before it answered")]
    Broken(#[source] BoxError),
    /// No response in time.
    #[error("the sandbox did not answer in time")]
    TimedOut,
    /// The client stopped sending its body.
    #[error("the request body stopped arriving")]
    Stalled,
}

impl From<Http1Error> for ExchangeError {
    fn from(error: Http1Error) -> Self {
        match error {
            Http1Error::NotSent(request) => Self::NotSent(request),
            error => Self::Broken(error.into()),
        }
    }
}

/// The wait for the head of a response: bounded from the last byte of the request on.
pub(crate) struct Patience {
    flow: Arc<Flow>,
    limit: Duration,
    looks: Looks,
}

impl Patience {
    pub(crate) fn new(flow: Arc<Flow>, limit: Duration, looks: Looks) -> Self {
        Self { flow, limit, looks }
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Ready when nothing has moved for too long.
    fn poll(&self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
        timer.poll(cx, self.flow.quiet_at(self.limit))
    }

    fn verdict(&self) -> ExchangeError {
        if self.flow.upload() == Upload::Starved {
            ExchangeError::Stalled
        } else {
            ExchangeError::TimedOut
        }
    }
}

/// Sends `request` to `path` over an HTTP/1.1 connection, up to the head of the answer.
pub(crate) async fn over_http1(
    connection: &mut Http1,
    request: Box<Request<RequestBody>>,
    path: &str,
    patience: &Patience,
) -> Result<Head, ExchangeError> {
    connection.begin(request, path);
    let mut timer = Timer::new(patience.looks);
    std::future::poll_fn(|cx| match connection.poll_head(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome.map_err(ExchangeError::from)),
        Poll::Pending => {
            let late = patience.poll(&mut timer, cx);
            late.map(|()| Err(patience.verdict()))
        }
    })
    .await
}

/// Sends over a shared HTTP/2 connection.
pub(crate) async fn over_http2(
    sender: &mut http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
    patience: &Patience,
) -> Result<Response<Incoming>, ExchangeError> {
    let mut response = pin!(sender.try_send_request(request));
    let mut timer = Timer::new(patience.looks);
    let outcome = std::future::poll_fn(|cx| match response.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => patience.poll(&mut timer, cx).map(|()| None),
    })
    .await;
    match outcome {
        Some(Ok(response)) => Ok(response),
        None => Err(patience.verdict()),
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(request) => ExchangeError::NotSent(Box::new(request)),
            None => ExchangeError::Broken(error.into_error().into()),
        }),
    }
}
