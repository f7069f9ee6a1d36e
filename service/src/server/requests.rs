//! Which requests of a connection are under way, to find out that none is.
//!
//! The HTTP library ends a connection of HTTP/1.1 without requests by itself, but not one of HTTP/2, whose
//! clients need only answer pings to keep their place for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// So many bytes more than it was sent are no answer yet: pings, settings, a farewell.
const SMALL_TALK: u64 = 512;
/// An answer is handed on in pieces of this size at most. The library lets go of a body when it has taken
/// the last piece, however little of it the client wants to receive.
const PIECE: usize = 16 << 10;

/// The requests of one connection. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    open: watch::Sender<usize>,
    traffic: Arc<Traffic>,
}

/// What went over a connection, in bytes.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Traffic {
    /// How much more was sent than received. What a client sends without a request is answered by no more
    /// than it sent; the rest of an answer is not.
    fn answered(&self) -> u64 {
        let received = self.received.load(Ordering::Relaxed);
        self.sent.load(Ordering::Relaxed).saturating_sub(received)
    }
}

impl Requests {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            open: watch::Sender::new(0),
            traffic,
        }
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(&self) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    /// Completes when there was no request for `time` without a break, and no answer on its way to a client
    /// that takes it slowly.
    pub(super) async fn none_for(&self, time: Duration) {
        let mut changes = self.open.subscribe();
        loop {
            // Neither fails: the sender is here.
            if changes.wait_for(|open| *open == 0).await.is_err() {
                return;
            }
            let before = self.traffic.answered();
            let change = tokio::time::timeout(time, changes.changed()).await;
            if change.is_err() && self.traffic.answered() <= before + SMALL_TALK {
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
        response.map(|body| {
            Body::new(Answer {
                body,
                rest: Bytes::new(),
                has_begun: false,
                _open: self,
            })
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

struct Answer {
    body: Body,
    /// Of a piece that was too large.
    rest: Bytes,
    has_begun: bool,
    _open: Open,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            self.has_begun = true;
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Not to be asked again for the end would mean to be let go with the last piece.
    fn is_end_stream(&self) -> bool {
        !self.has_begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_end_of_the_last_request() {
        let requests = Requests::new(Arc::default());
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
        let requests = Requests::new(Arc::default());
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
        let requests = Requests::new(Arc::default());
        let response = requests
            .begin()
            .until_answered(Response::new("text".into()));
        assert_eq!(*requests.open.borrow(), 1);
        let (_, body) = response.into_parts();
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(4));
        assert_eq!(axum::body::to_bytes(body, 9).await.unwrap(), "text");
        assert_eq!(*requests.open.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_slowly_is_under_way_and_small_talk_is_not() {
        let traffic = Arc::<Traffic>::default();
        let requests = Requests::new(traffic.clone());
        let mut idle = Box::pin(requests.none_for(IDLE));
        let began = Instant::now();
        for _ in 0..5 {
            assert!((&mut idle).now_or_never().is_none());
            traffic.sent.fetch_add(SMALL_TALK + 1, Ordering::Relaxed);
            tokio::time::advance(IDLE).await;
        }
        assert!((&mut idle).now_or_never().is_none());
        // Who pings all the time gets as much back.
        traffic.sent.fetch_add(1 << 20, Ordering::Relaxed);
        traffic.received.fetch_add(1 << 20, Ordering::Relaxed);
        idle.await;
        assert_eq!(began.elapsed(), IDLE * 6);
    }

    #[tokio::test]
    async fn large_pieces_are_made_small_and_the_end_is_asked_for() {
        let requests = Requests::new(Arc::default());
        let text = Bytes::from(vec![b'x'; PIECE * 2 + 1]);
        let response = requests
            .begin()
            .until_answered(Response::new(text.clone().into()));
        let (_, mut body) = response.into_parts();
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            assert!(!hyper::body::Body::is_end_stream(&body));
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            got.extend_from_slice(&piece);
            let left = text.len() - got.len();
            let told = hyper::body::Body::size_hint(&body).exact();
            assert_eq!(told, u64::try_from(left).ok());
            assert_eq!(*requests.open.borrow(), 1);
        }
        assert_eq!(got, text);
    }
}
