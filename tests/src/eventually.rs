//! Waiting for conditions instead of sleeping.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take. Generous: a slow machine must not fail a correct test.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Polls until `probe` returns a value and returns it.
///
/// # Panics
/// After a minute, with `what`.
#[allow(clippy::panic, reason = "a condition that never holds fails the test")]
pub async fn eventually<T, F, R>(what: &str, mut probe: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}
