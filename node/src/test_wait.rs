//! How the tests of this crate wait: until something happened, and never for ever.

use std::time::Duration;

/// Longest a test waits for anything; reached only by a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a future.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline passed")
}

/// Waits until there is something to return.
pub(crate) async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}
