//! Wall-clock time as a dependency, so that expiry can be tested without waiting.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use tokio::time::Instant;

/// Where a program reads the time. Clones share the source.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug, Default)]
enum Source {
    /// The operating system's clock.
    #[default]
    System,
    /// A hand that somebody moves.
    Manual(Arc<RwLock<Timestamp>>),
    /// A moment, and when it was on the runtime's own clock.
    Runtime(Timestamp, Instant),
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<RwLock<Timestamp>>);

impl Clock {
    /// The operating system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let time = Arc::new(RwLock::new(start));
        (
            Self {
                source: Source::Manual(time.clone()),
            },
            ManualClock(time),
        )
    }

    /// A clock that shows `start` now and from then on goes with the runtime's timers: where a test
    /// has paused those, it stands still and jumps with them.
    pub fn with_runtime(start: Timestamp) -> Self {
        Self {
            source: Source::Runtime(start, Instant::now()),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::System => Timestamp::now(),
            Source::Manual(time) => *time.read(),
            Source::Runtime(start, began) => SignedDuration::try_from(began.elapsed())
                .and_then(|passed| start.checked_add(passed))
                .unwrap_or(Timestamp::MAX),
        }
    }
}

impl ManualClock {
    /// Moves the clock forward (or back, when negative).
    pub fn advance(&self, by: SignedDuration) {
        let mut time = self.0.write();
        *time = time.saturating_add(by).unwrap_or(*time);
    }

    /// Sets the clock.
    pub fn set(&self, to: Timestamp) {
        *self.0.write() = to;
    }
}

/// Times in nanoseconds since 1970 of which no two are the same: for names that sort by time, as
/// those of Kubernetes Events do.
#[derive(Debug, Default)]
pub struct UniqueTimes {
    last: u64,
}

impl UniqueTimes {
    /// `now`, or the first moment after it that was not given out before. Times before 1970 count
    /// as 1970.
    pub fn next(&mut self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_nanosecond()).unwrap_or_default();
        self.last = now.max(self.last.saturating_add(1));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_times_follow_the_clock_and_never_repeat() {
        let at = |nanosecond| Timestamp::from_nanosecond(nanosecond).unwrap();
        let mut times = UniqueTimes::default();
        let given = [5, 5, 4, 100].map(|nanosecond| times.next(at(nanosecond)));
        assert_eq!(given, [5, 6, 7, 100]);
        assert_eq!(UniqueTimes::default().next(at(-3)), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_can_go_with_the_runtime() {
        let clock = Clock::with_runtime("2026-01-01T00:00:00Z".parse().unwrap());
        tokio::time::advance(std::time::Duration::from_millis(1500)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:01.5Z");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (clock, hand) = Clock::manual(start);
        assert_eq!(clock.now(), start);
        hand.advance(SignedDuration::from_secs(90));
        assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
        hand.set(start);
        assert_eq!(clock.now(), start);
    }
}
