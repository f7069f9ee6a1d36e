//! Giving up request bodies that stall: a client that announces a body and then sends nothing of it would
//! keep a connection, and perhaps a file that nobody sees, for as long as it lives.
//!
//! A body may take as long as it takes while it moves. Time runs only while somebody waits for it: a slow
//! disk is not the client's fault.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Response, StatusCode, Version};
use axum::middleware::Next;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::grpc;

/// Routes whose bodies are conversations: what is typed into a command, and questions as they come up.
const CONVERSATIONS: [&str; 3] = [
    "/v1/processes/{id}/stdin",
    "/grpc.reflection.v1.ServerReflection/{method}",
    "/grpc.reflection.v1alpha.ServerReflection/{method}",
];

/// A body of which nothing came for too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("No byte of the request body came for {} seconds", .time.as_secs_f64())]
pub(crate) struct Stalled {
    time: Duration,
}

/// Whether, and how, this is why a body could not be read.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> Option<Stalled> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(stalled) = error.downcast_ref() {
            return Some(*stalled);
        }
        next = error.source();
    }
    None
}

/// Makes bodies fail with [`Stalled`] of which nothing comes for `time`; those of gRPC with a status.
pub(crate) async fn watch(
    State(time): State<Duration>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>();
    let is_conversation = route.is_some_and(|route| CONVERSATIONS.contains(&route.as_str()));
    if is_conversation || http_body::Body::is_end_stream(request.body()) {
        return next.run(request).await;
    }
    let version = request.version();
    let is_call = grpc::is_call(request.headers());
    let request = request.map(|body| {
        Body::new(Watched {
            body,
            time,
            moved: true,
            timer: None,
            is_call,
        })
    });
    let mut response = next.run(request).await;
    if response.status() == StatusCode::REQUEST_TIMEOUT && version <= Version::HTTP_11 {
        // What may still come is no next request.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

struct Watched {
    body: Body,
    time: Duration,
    /// Whether something came since the timer was set.
    moved: bool,
    /// Made when something has to be waited for: most bodies come with their request.
    timer: Option<Pin<Box<Sleep>>>,
    is_call: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            // Pieces of nothing can be sent for ever.
            let is_empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            this.moved |= !matches!(&frame, Some(Ok(frame)) if is_empty(frame));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.time)));
        if std::mem::take(&mut this.moved) {
            timer.as_mut().reset(Instant::now() + this.time);
        }
        ready!(timer.as_mut().poll(cx));
        // What comes later is not asked for.
        this.body = Body::empty();
        let stalled = Stalled { time: this.time };
        Poll::Ready(Some(Err(if this.is_call {
            Status::deadline_exceeded(stalled.to_string()).into()
        } else {
            stalled.into()
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt, channel::mpsc};

    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    /// A body, and what sends its pieces.
    fn body(is_call: bool) -> (mpsc::Sender<Result<Bytes, BoxError>>, Body) {
        let (sender, pieces) = mpsc::channel(0);
        let watched = Watched {
            body: Body::from_stream(pieces),
            time: TIME,
            moved: true,
            timer: None,
            is_call,
        };
        (sender, Body::new(watched))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_may_take_for_ever() {
        let (mut sender, body) = body(false);
        let slow = async move {
            for _ in 0..1000 {
                sleep(TIME * 59 / 60).await;
                sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
            }
        };
        let ((), bytes) = tokio::join!(slow, axum::body::to_bytes(body, 2000));
        assert_eq!(bytes.unwrap().len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up_also_when_pieces_of_nothing_come() {
        for nothing in [false, true] {
            let (mut sender, body) = body(false);
            let mut body = body.into_data_stream();
            let began = Instant::now();
            let client = async move {
                sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
                while nothing && sender.send(Ok(Bytes::new())).await.is_ok() {
                    sleep(TIME / 10).await;
                }
                std::future::pending::<()>().await;
            };
            let read = async {
                assert_eq!(body.next().await.unwrap().unwrap(), "x");
                loop {
                    match body.next().await.unwrap() {
                        Ok(bytes) => assert!(bytes.is_empty()),
                        Err(error) => return error,
                    }
                }
            };
            let error = tokio::select! {
                error = read => error,
                () = client => unreachable!(),
            };
            assert_eq!(cause(&error), Some(Stalled { time: TIME }));
            assert_eq!(began.elapsed(), TIME);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_only_while_the_body_is_waited_for() {
        let (mut sender, body) = body(false);
        let mut body = body.into_data_stream();
        for piece in ["x", "y"] {
            let send = async {
                sleep(TIME / 2).await;
                sender.send(Ok(piece.into())).await.unwrap();
            };
            let (received, ()) = tokio::join!(body.next(), send);
            assert_eq!(received.unwrap().unwrap(), piece);
            // The disk is slow.
            tokio::time::advance(TIME * 10).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_fails_with_a_status() {
        let (_sender, body) = body(true);
        let error = body.into_data_stream().next().await.unwrap().unwrap_err();
        let status = Status::from_error(error.into());
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(
            status.message(),
            "No byte of the request body came for 60 seconds"
        );
    }
}
