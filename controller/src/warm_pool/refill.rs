//! How fast a pool is refilled: a hold after members were taken, so that a burst of claims is not
//! slowed by its own refill, and a rate. Both are off by default. Pure but for the memory it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::PoolSettings;

/// What is remembered of one pool's refilling.
#[derive(Clone, Debug, Default)]
pub struct Refill {
    /// Members at the last look, own creations included.
    members: Option<usize>,
    hold_until: Option<Instant>,
    bucket: Option<Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// How many members may be created now, and when to look again for the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Members that may be created.
    pub members: usize,
    /// When more may be.
    pub again: Option<Duration>,
}

impl Refill {
    /// Asks for `wanted` members of a pool that has `members` and should have `desired`.
    pub fn ask(
        &mut self,
        wanted: usize,
        members: usize,
        desired: usize,
        settings: &PoolSettings,
        now: Instant,
    ) -> Grant {
        if let Some(left) = self.hold(members, desired, settings.replenish_delay, now) {
            return Grant {
                members: 0,
                again: Some(left),
            };
        }
        let wanted = wanted.min(settings.max_batch);
        let grant = self.take(wanted, settings.max_refill_rate, now);
        self.members = Some(members + grant.members);
        grant
    }

    /// Returns tokens for members that were not even tried.
    pub fn give_back(&mut self, members: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens += to_float(members);
        }
        self.members = self.members.map(|known| known.saturating_sub(members));
    }

    /// How much longer refilling is held back. A drop in members starts the hold anew; reaching the
    /// desired size ends it. The first look and a larger desired size are no drop.
    fn hold(
        &mut self,
        members: usize,
        desired: usize,
        delay: Duration,
        now: Instant,
    ) -> Option<Duration> {
        if delay.is_zero() {
            return None;
        }
        let dropped = self.members.is_some_and(|known| members < known);
        self.members = Some(members);
        if members >= desired {
            self.hold_until = None;
            return None;
        }
        if dropped {
            self.hold_until = Some(now + delay);
        }
        let left = self.hold_until?.saturating_duration_since(now);
        if left.is_zero() {
            self.hold_until = None;
            return None;
        }
        Some(left)
    }

    fn take(&mut self, wanted: usize, rate: f64, now: Instant) -> Grant {
        if rate <= 0.0 {
            return Grant {
                members: wanted,
                again: None,
            };
        }
        let capacity = rate.max(1.0);
        let bucket = self.bucket.get_or_insert(Bucket {
            tokens: capacity,
            filled_at: now,
        });
        let elapsed = now.saturating_duration_since(bucket.filled_at);
        bucket.tokens = (bucket.tokens + elapsed.as_secs_f64() * rate).min(capacity);
        bucket.filled_at = now;
        let members = to_whole(bucket.tokens).min(wanted);
        bucket.tokens -= to_float(members);
        let missing = 1.0 - bucket.tokens;
        let again = (members < wanted)
            .then(|| Duration::from_secs_f64((missing.max(0.0) / rate).clamp(0.001, 3600.0)));
        Grant { members, again }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of members are far below the precision of a float"
)]
fn to_float(members: usize) -> f64 {
    members as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens are not negative, and the cast saturates"
)]
fn to_whole(tokens: f64) -> usize {
    // A hair more, so that accrued fractions that add up to a whole count as one.
    (tokens + 1e-9).floor().max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(delay: u64, rate: f64) -> PoolSettings {
        PoolSettings {
            replenish_delay: Duration::from_secs(delay),
            max_refill_rate: rate,
            ..PoolSettings::default()
        }
    }

    fn granted(grant: Grant) -> usize {
        grant.members
    }

    #[tokio::test(start_paused = true)]
    async fn without_settings_everything_is_granted_up_to_the_batch() {
        let mut refill = Refill::default();
        let now = Instant::now();
        let grant = refill.ask(1000, 0, 1000, &settings(0, 0.0), now);
        assert_eq!((grant.members, grant.again), (300, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_holds_and_every_further_drop_starts_the_hold_anew() {
        let mut refill = Refill::default();
        let set = settings(10, 0.0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(granted(refill.ask(5, 0, 5, &set, at(0))), 5);
        assert_eq!(granted(refill.ask(1, 4, 5, &set, at(1))), 0);
        assert_eq!(granted(refill.ask(1, 4, 5, &set, at(10))), 0);
        let again = refill.ask(2, 3, 5, &set, at(10));
        assert_eq!(again.again, Some(Duration::from_secs(10)));
        assert_eq!(granted(refill.ask(2, 3, 5, &set, at(20))), 2);
        // A larger pool is no drop.
        assert_eq!(granted(refill.ask(5, 5, 10, &set, at(21))), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_starts_full_accrues_and_is_capped() {
        let mut refill = Refill::default();
        let set = settings(0, 2.0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = refill.ask(5, 0, 5, &set, at(0));
        assert_eq!(
            (first.members, first.again),
            (2, Some(Duration::from_millis(500)))
        );
        assert_eq!(granted(refill.ask(3, 2, 5, &set, at(1))), 2);
        assert_eq!(granted(refill.ask(9, 4, 13, &set, at(100))), 2);
        refill.give_back(2);
        assert_eq!(granted(refill.ask(9, 4, 13, &set, at(100))), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn fractional_and_huge_rates_work() {
        let mut slow = Refill::default();
        let start = Instant::now();
        let set = settings(0, 0.25);
        assert_eq!(granted(slow.ask(2, 0, 2, &set, start)), 1);
        assert_eq!(
            granted(slow.ask(1, 1, 2, &set, start + Duration::from_secs(3))),
            0
        );
        assert_eq!(
            granted(slow.ask(1, 1, 2, &set, start + Duration::from_secs(4))),
            1
        );
        let mut fast = Refill::default();
        assert_eq!(
            granted(fast.ask(300, 0, 300, &settings(0, 1e300), start)),
            300
        );
    }
}
