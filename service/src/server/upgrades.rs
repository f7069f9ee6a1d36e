//! Connections that go on after their answer, in another protocol: the HTTP library hands them to whoever
//! upgraded them, and neither it nor the connection loop knows of them any more.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How much of a drain is left to say goodbye in.
const FAREWELL: Duration = Duration::from_secs(1);

/// In the extensions of every request that asks for an upgrade. Who upgrades the connection holds it for as
/// long as the connection is used: the server then waits for that at its end.
#[derive(Clone, Debug)]
pub struct Upgrade {
    over: CancellationToken,
    _held: TaskTrackerToken,
}

impl Upgrade {
    /// Completes when the server will wait no longer than a moment: the time to say goodbye.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// The upgraded connections of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgrades {
    over: CancellationToken,
    held: TaskTracker,
}

impl Upgrades {
    pub(super) fn expect(&self) -> Upgrade {
        Upgrade {
            over: self.over.clone(),
            _held: self.held.token(),
        }
    }

    /// Waits for all until `deadline`; a moment before it they are told.
    pub(super) async fn finish(&self, deadline: Instant) {
        self.held.close();
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.saturating_sub(FAREWELL.min(left / 2));
        if tokio::time::timeout(patience, self.held.wait())
            .await
            .is_ok()
        {
            return;
        }
        self.over.cancel();
        let gone = tokio::time::timeout_at(deadline, self.held.wait()).await;
        if gone.is_err() {
            let late = self.held.len();
            tracing::warn!(late, "upgraded connections outlived the deadline");
        }
    }
}
