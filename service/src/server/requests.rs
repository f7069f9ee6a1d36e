//! Which requests of a connection are under way, to find out that none is.
//!
//! The HTTP library ends a connection of HTTP/1.1 without requests by itself, but not one of HTTP/2, whose
//! clients need only answer pings to keep their place for ever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// The requests of one connection. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    open: watch::Sender<usize>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            open: watch::Sender::new(0),
        }
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(&self) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    /// Completes when there was no request for `time` without a break.
    pub(super) async fn none_for(&self, time: Duration) {
        let mut changes = self.open.subscribe();
        loop {
            // Neither fails: the sender is here.
            if changes.wait_for(|open| *open == 0).await.is_err() {
                return;
            }
            if tokio::time::timeout(time, changes.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Open(Requests);

impl Open {
    /// Leaves it under way until the answer is whole or given up.
    pub(super) fn until_answered(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Body::new(Answer { body, _open: self }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

struct Answer {
    body: Body,
    _open: Open,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_end_of_the_last_request() {
        let requests = Requests::new();
        let began = Instant::now();
        requests.none_for(IDLE).await;
        assert_eq!(began.elapsed(), IDLE);
        let (one, other) = (requests.begin(), requests.begin());
        let mut idle = Box::pin(requests.none_for(IDLE));
        for open in [one, other] {
            tokio::time::advance(IDLE * 2).await;
            assert!((&mut idle).now_or_never().is_none(), "one is under way");
            drop(open);
        }
        let began = Instant::now();
        idle.await;
        assert_eq!(began.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_short_counts_too() {
        let requests = Requests::new();
        let mut idle = Box::pin(requests.none_for(IDLE));
        assert!((&mut idle).now_or_never().is_none());
        tokio::time::advance(IDLE / 2).await;
        drop(requests.begin());
        let began = Instant::now();
        idle.await;
        assert_eq!(began.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_is_under_way() {
        let requests = Requests::new();
        let response = requests
            .begin()
            .until_answered(Response::new("text".into()));
        assert_eq!(*requests.open.borrow(), 1);
        let (_, body) = response.into_parts();
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(4));
        assert_eq!(axum::body::to_bytes(body, 9).await.unwrap(), "text");
        assert_eq!(*requests.open.borrow(), 0);
    }
}
