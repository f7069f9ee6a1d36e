//! When a container may be started again.
//!
//! Pure: every function takes the time. The rules are the kubelet's: the first restart is
//! immediate, later ones wait 10 s, 20 s, ... up to 5 min after the end, and a container that ran
//! for 10 min starts afresh.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>

use jiff::{SignedDuration, Timestamp};

/// First delay.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay.
const MAXIMUM: SignedDuration = SignedDuration::from_mins(5);
/// A container that lived this long is forgiven.
const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What to do about a container that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// The policy of a pod; the API's default is Always.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this status is started again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The memory of one container's restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay: Option<SignedDuration>,
}

impl Backoff {
    /// Called when a container ended: the earliest time for the next start.
    pub(crate) fn after_end(&mut self, started: Timestamp, finished: Timestamp) -> Timestamp {
        if finished.duration_since(started) >= FORGIVEN_AFTER {
            self.delay = None;
        }
        let (wait, next) = match self.delay {
            None => (SignedDuration::ZERO, INITIAL),
            Some(delay) => (delay, (delay * 2).min(MAXIMUM)),
        };
        self.delay = Some(next);
        finished.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// The delay that the last call of [`Self::after_end`] imposed.
    pub(crate) fn describe(earliest: Timestamp, finished: Timestamp) -> String {
        let wait = earliest.duration_since(finished);
        let (minutes, seconds) = (wait.as_secs() / 60, wait.as_secs() % 60);
        if minutes > 0 {
            format!("{minutes}m{seconds}s")
        } else {
            format!("{seconds}s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn delays_double_to_five_minutes_after_a_free_first_restart() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let next = backoff.after_end(at(0), at(1));
            waits.push(next.duration_since(at(1)).as_secs());
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_life_are_a_fresh_start() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_end(at(0), at(1));
        }
        assert_eq!(backoff.after_end(at(100), at(699)), at(699 + 160));
        assert_eq!(backoff.after_end(at(1000), at(1600)), at(1600));
        assert_eq!(backoff.after_end(at(1600), at(1601)), at(1611));
    }

    #[test]
    fn policies_decide_by_exit_status() {
        for (policy, success, failure) in [
            (RestartPolicy::parse(None), true, true),
            (RestartPolicy::parse(Some("Always")), true, true),
            (RestartPolicy::parse(Some("OnFailure")), false, true),
            (RestartPolicy::parse(Some("Never")), false, false),
        ] {
            assert_eq!(policy.restarts(0), success, "{policy:?}");
            assert_eq!(policy.restarts(1), failure, "{policy:?}");
        }
    }

    #[test]
    fn delays_read_as_kubectl_shows_them() {
        assert_eq!(Backoff::describe(at(10), at(0)), "10s");
        assert_eq!(Backoff::describe(at(300), at(0)), "5m0s");
        assert_eq!(Backoff::describe(at(80), at(0)), "1m20s");
    }
}
