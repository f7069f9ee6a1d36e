//! An optional limit on API calls per second, for installations that must not use the server's own
//! fairness (`--kube-api-qps`, `--kube-api-burst`).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A token bucket that hands out its tokens in order of arrival.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full again if nobody took anything.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// `per_second` calls on average, `burst` at once. `None` when the rate is not positive.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        (per_second.is_finite() && per_second > 0.0).then(|| Self {
            interval: Duration::from_secs_f64((1.0 / per_second).min(3600.0)),
            burst: burst.max(1),
            full_at: Mutex::new(None),
        })
    }

    /// Waits for the next token.
    pub async fn take(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token now and says how long its holder must wait.
    fn reserve(&self, now: Instant) -> Duration {
        let mut full_at = self.full_at.lock();
        let start = full_at.map_or(now, |at| at.max(now));
        let next = start + self.interval;
        *full_at = Some(next);
        let credit = self.interval * self.burst;
        next.saturating_duration_since(now).saturating_sub(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate_holds() {
        let limit = RateLimit::new(10.0, 3).unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            limit.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..5 {
            limit.take().await;
        }
        assert_eq!(start.elapsed().as_millis() / 10, 50);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let later = Instant::now();
        for _ in 0..3 {
            limit.take().await;
        }
        assert_eq!(later.elapsed(), Duration::ZERO);
    }

    #[test]
    fn no_rate_means_no_limit() {
        assert!(RateLimit::new(-1.0, 10).is_none());
        assert!(RateLimit::new(0.0, 10).is_none());
        assert!(RateLimit::new(f64::NAN, 10).is_none());
    }
}
