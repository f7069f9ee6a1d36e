//! One attempt to send a request over one connection and to get the head of its response.
//!
//! The HTTP/1.1 connection is driven from here, so request, response and connection share the
//! client's task. Whether anything was sent is known exactly: the request comes back when not.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;

use super::body::RequestBody;
use super::flow::{Flow, Looks, Timer, Upload};
use crate::pool::Http1;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection had ended before anything was written; the request is returned.
    #[error("the connection ended before the request was sent")]
    NotSent(Box<Request<RequestBody>>),
    /// The sandbox broke off, or answered with something that is not HTTP.
    #[error("the sandbox broke off before it answered")]
    Broken(#[source] hyper::Error),
    /// No response in time.
    #[error("the sandbox did not answer in time")]
    TimedOut,
    /// The client stopped sending its body.
    #[error("the request body stopped arriving")]
    Stalled,
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

/// Sends over an HTTP/1.1 connection and returns it with the response.
pub(crate) async fn over_http1(
    mut connection: Box<Http1>,
    request: Request<RequestBody>,
    patience: &Patience,
) -> Result<(Response<Incoming>, Box<Http1>), ExchangeError> {
    let mut response = pin!(connection.sender().try_send_request(request));
    let mut timer = Timer::new(patience.looks);
    let mut connection = Some(connection);
    let outcome = std::future::poll_fn(|cx| {
        if let Some(active) = &mut connection
            && active.drive(cx)
        {
            // An ended connection hands back what it did not send only when it is dropped, but one
            // that switched protocols is still needed.
            if let Poll::Ready(outcome) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            connection = None;
        }
        if let Poll::Ready(outcome) = response.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        patience.poll(&mut timer, cx).map(|()| None)
    })
    .await;
    match (outcome, connection) {
        (Some(Ok(response)), Some(connection)) => Ok((response, connection)),
        (Some(Ok(_)), None) | (None, _) => Err(patience.verdict()),
        (Some(Err(mut error)), _) => Err(match error.take_message() {
            Some(request) => ExchangeError::NotSent(Box::new(request)),
            None => ExchangeError::Broken(error.into_error()),
        }),
    }
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
            None => ExchangeError::Broken(error.into_error()),
        }),
    }
}
