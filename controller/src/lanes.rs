//! Right of way for claims. A client waits for its claim; nobody waits for a pool to be refilled or a
//! pod's labels to be tidied. Background writes therefore pause while claims are being served, for a
//! bounded time, and only a bounded number of them is in flight at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The lanes. Clones share them.
#[derive(Clone, Debug)]
pub struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    claims: AtomicUsize,
    free: Notify,
    background: Arc<Semaphore>,
    patience: Duration,
}

/// A claim being served; background writes yield while one exists.
#[derive(Debug)]
pub struct ClaimLane {
    inner: Arc<Inner>,
}

/// Permission for one background write at a time.
#[derive(Debug)]
pub struct BackgroundLane {
    _permit: Option<OwnedSemaphorePermit>,
}

/// What one pass holds of the background lane: nothing until its first background write, then one
/// permission to its end.
///
/// A pass that held one permission and waited for another would, beside enough passes that do the
/// same, wait for ever.
#[derive(Debug)]
pub struct Turn<'a> {
    lanes: &'a Lanes,
    lane: Option<BackgroundLane>,
}

impl Turn<'_> {
    /// Waits for the permission unless the pass has it.
    pub async fn take(&mut self) {
        if self.lane.is_none() {
            self.lane = Some(self.lanes.background().await);
        }
    }

    /// Waits for the permission for at most `limit`. What may not wait any longer goes on without.
    pub async fn take_within(&mut self, limit: Duration) {
        // Out of time is no failure: the write was only asked to stand back for so long.
        drop(tokio::time::timeout(limit, self.take()).await);
    }
}

impl Lanes {
    /// `width` background writes at once; each yields to claims for at most `patience`.
    pub fn new(width: usize, patience: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                claims: AtomicUsize::new(0),
                free: Notify::new(),
                background: Arc::new(Semaphore::new(width.max(1))),
                patience,
            }),
        }
    }

    /// Enters the claim lane; never waits.
    pub fn claim(&self) -> ClaimLane {
        self.inner.claims.fetch_add(1, Ordering::SeqCst);
        ClaimLane {
            inner: self.inner.clone(),
        }
    }

    /// Whether a claim is being served.
    pub fn is_busy(&self) -> bool {
        self.inner.claims.load(Ordering::SeqCst) > 0
    }

    /// How long background work yields at most.
    pub fn patience(&self) -> Duration {
        self.inner.patience
    }

    /// What a pass with several writes takes its permission through.
    pub fn turn(&self) -> Turn<'_> {
        Turn {
            lanes: self,
            lane: None,
        }
    }

    /// A permission of the background lane, for work that was due at `since`, if it can be had without
    /// waiting: not while claims are being served, unless it has yielded for long enough.
    pub fn try_background(&self, since: Instant) -> Option<BackgroundLane> {
        if self.is_busy() && since.elapsed() < self.inner.patience {
            return None;
        }
        let permit = self.inner.background.clone().try_acquire_owned().ok()?;
        Some(BackgroundLane {
            _permit: Some(permit),
        })
    }

    /// Waits for a permission of the background lane; for one write, see [`Lanes::turn`] for more.
    pub async fn background(&self) -> BackgroundLane {
        let deadline = Instant::now() + self.inner.patience;
        loop {
            let free = self.inner.free.notified();
            tokio::pin!(free);
            free.as_mut().enable();
            if self.inner.claims.load(Ordering::SeqCst) == 0 {
                break;
            }
            if tokio::time::timeout_at(deadline, free).await.is_err() {
                break;
            }
        }
        BackgroundLane {
            _permit: self.inner.background.clone().acquire_owned().await.ok(),
        }
    }
}

impl Drop for ClaimLane {
    fn drop(&mut self) {
        if self.inner.claims.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.inner.free.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn background_waits_for_claims_but_not_forever() {
        let lanes = Lanes::new(2, Duration::from_millis(250));
        let claim = lanes.claim();
        let start = Instant::now();
        let lane = lanes.background().await;
        assert_eq!(start.elapsed(), Duration::from_millis(250));
        drop((claim, lane));
        let start = Instant::now();
        lanes.background().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_claim_frees_the_lane() {
        let lanes = Lanes::new(1, Duration::from_secs(3600));
        let claims = [lanes.claim(), lanes.claim()];
        let waiting = lanes.background();
        let freeing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(claims);
        };
        let start = Instant::now();
        tokio::join!(waiting, freeing);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_lane_is_narrow() {
        let lanes = Lanes::new(1, Duration::ZERO);
        let held = lanes.background().await;
        let second = tokio::time::timeout(Duration::from_secs(1), lanes.background()).await;
        assert!(second.is_err());
        drop(held);
        lanes.background().await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cannot_wait_asks_again() {
        let lanes = Lanes::new(1, Duration::from_secs(1));
        let due = Instant::now();
        let claim = lanes.claim();
        assert!(lanes.try_background(due).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        let lane = lanes.try_background(due);
        assert!(lane.is_some(), "it has yielded for long enough");
        assert!(lanes.try_background(due).is_none(), "the lane is narrow");
        drop((claim, lane));
        assert!(lanes.try_background(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_may_not_wait_longer_goes_on_without() {
        let lanes = Lanes::new(1, Duration::from_secs(3600));
        let held = lanes.background().await;
        let _claim = lanes.claim();
        let mut turn = lanes.turn();
        let start = Instant::now();
        turn.take_within(Duration::from_millis(300)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(300));
        drop(held);
        // Nothing was taken, and nothing is left waiting in the way of others.
        drop(turn);
        assert_eq!(lanes.inner.background.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_takes_its_turn_once() {
        let lanes = Lanes::new(1, Duration::ZERO);
        let mut turn = lanes.turn();
        turn.take().await;
        turn.take().await;
        let other = tokio::time::timeout(Duration::from_secs(1), lanes.background()).await;
        assert!(other.is_err());
        drop(turn);
        lanes.background().await;
    }
}
