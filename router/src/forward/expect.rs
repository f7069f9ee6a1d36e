//! `Expect: 100-continue`, end to end: the client's body is asked for only once the sandbox asks.
//!
//! A [`Gate`] in front of the request body is taken away when the sandbox answers `100 Continue`, and
//! opens by itself after [`PATIENCE`] for sandboxes that never do. A final answer that comes first leaves
//! the body unread, which is the point of the expectation.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Version};
use tokio::time::Sleep;

/// How long a sandbox may take to say `100 Continue` before the body is sent anyway.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a request body back for a while.
#[derive(Debug)]
pub(crate) struct Gate(Pin<Box<Sleep>>);

/// Whether the client waits for permission to send its body.
pub(crate) fn is_expected(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(PATIENCE)))
    }

    /// Ready once the body may be read although nobody asked for it.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_sandbox_opens_the_gate_in_the_end() {
        let start = tokio::time::Instant::now();
        let mut gate = Gate::new();
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
