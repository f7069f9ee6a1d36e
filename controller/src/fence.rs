//! Whether this replica may write. Held open by the lease, closed the moment the lease can no longer
//! be trusted; [`crate::api::Api`] asks before every write. Without leader election it is always
//! open.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::time::Instant;

/// A gate in front of every write. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence {
    until: Arc<RwLock<Open>>,
}

#[derive(Clone, Copy, Debug)]
enum Open {
    Always,
    Until(Instant),
    Never,
}

impl Fence {
    /// A gate nobody closes, for a single replica.
    pub fn open() -> Self {
        Self {
            until: Arc::new(RwLock::new(Open::Always)),
        }
    }

    /// A gate that stays closed until it is opened.
    pub fn closed() -> Self {
        Self {
            until: Arc::new(RwLock::new(Open::Never)),
        }
    }

    /// Whether writing is allowed right now.
    pub fn is_open(&self) -> bool {
        match *self.until.read() {
            Open::Always => true,
            Open::Until(end) => Instant::now() < end,
            Open::Never => false,
        }
    }

    /// Completes when writing is forbidden, or was never allowed.
    pub async fn closed_or_over(&self) {
        loop {
            let until = *self.until.read();
            match until {
                Open::Always => std::future::pending().await,
                Open::Never => return,
                Open::Until(end) if Instant::now() >= end => return,
                Open::Until(end) => tokio::time::sleep_until(end).await,
            }
        }
    }

    /// Allows writing until `end`, and not a moment longer unless extended.
    pub fn open_until(&self, end: Instant) {
        *self.until.write() = Open::Until(end);
    }

    /// Forbids writing.
    pub fn close(&self) {
        *self.until.write() = Open::Never;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gate_closes_by_itself_when_nobody_extends_it() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + Duration::from_secs(5));
        assert!(fence.is_open());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!fence.is_open());
        assert!(Fence::open().is_open());
    }
}
