//! `Expect: 100-continue`, end to end: the client's body is asked for only once the sandbox asks.
//!
//! The gate sits in front of the request body. It opens when the sandbox answers `100 Continue`, or
//! after [`PATIENCE`] for sandboxes that never do. A final answer that comes first leaves the body
//! unread, which is the point of the expectation.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode, Version};
use parking_lot::Mutex;
use tokio::time::Sleep;

/// How long a sandbox may take to say `100 Continue` before the body is sent anyway.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a request body back.
#[derive(Debug)]
pub(crate) struct Gate {
    latch: Arc<Latch>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Debug, Default)]
struct Latch {
    open: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

/// Opens a [`Gate`].
#[derive(Clone, Debug)]
pub(crate) struct Key(Arc<Latch>);

/// Whether the client waits for permission to send its body.
pub(crate) fn is_expected(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A closed gate and its key.
pub(crate) fn gate() -> (Gate, Key) {
    let latch = Arc::new(Latch::default());
    let gate = Gate {
        latch: latch.clone(),
        patience: Box::pin(tokio::time::sleep(PATIENCE)),
    };
    (gate, Key(latch))
}

impl Gate {
    /// Ready once the body may be read.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.latch.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.latch.waiting.lock() = Some(cx.waker().clone());
        if self.latch.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

impl Key {
    /// Opens the gate when the sandbox answers `100 Continue` to `request`.
    pub(crate) fn open_on_continue<B>(self, request: &mut Request<B>) {
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                self.0.open.store(true, Ordering::Release);
                if let Some(waker) = self.0.waiting.lock().take() {
                    waker.wake();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_sandbox_opens_the_gate_in_the_end() {
        let start = tokio::time::Instant::now();
        let (mut gate, _key) = gate();
        std::future::poll_fn(|cx| gate.poll_open(cx)).await;
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[test]
    fn only_http_1_1_waits_for_permission() {
        let mut headers = HeaderMap::new();
        assert!(!is_expected(Version::HTTP_11, &headers));
        headers.insert(EXPECT, HeaderValue::from_static("100-Continue"));
        assert!(is_expected(Version::HTTP_11, &headers));
        assert!(!is_expected(Version::HTTP_10, &headers));
        assert!(!is_expected(Version::HTTP_2, &headers));
    }
}
