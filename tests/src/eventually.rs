//! Waiting for conditions instead of sleeping.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take. Generous: a slow machine must not fail a correct test.
const DEADLINE: Duration = Duration::from_secs(180);
/// How soon a condition is looked at again: soon at first, later seldom enough to leave the machine
/// to what is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// Polls until `probe` returns a value and returns it.
///
/// # Panics
/// After three minutes, with `what`.
#[allow(clippy::panic, reason = "a condition that never holds fails the test")]
pub async fn eventually<T, F, R>(what: &str, mut probe: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + DEADLINE;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
