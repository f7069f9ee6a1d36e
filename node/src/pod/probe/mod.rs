//! Probes: when to ask, what an answer means.
//!
//! Pure: [`Prober`] is a state machine over answers and times; [`ask`] asks. Thresholds, delays and
//! defaults are the kubelet's
//! (<https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>), with
//! one difference: until a readiness or startup probe has succeeded for the first time it is
//! repeated after tens of milliseconds instead of once per period, so that a container that starts
//! fast is ready fast. Failures during that time count as often as they would on any node: once
//! per period.

pub(crate) mod ask;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

/// How long impatient repetition goes on after a container's start.
const EAGER_FOR: SignedDuration = SignedDuration::from_secs(10);

/// First and longest pause of impatient repetition over the network.
const EAGER_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));

/// The same for probes that start a program.
const EAGER_EXEC_PAUSE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_millis(250));

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl Purpose {
    /// The purpose as events name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What one question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    Failure(String),
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As before.
    Unchanged,
    /// Now considered successful.
    Passed,
    /// Now considered failed.
    Failed,
}

/// The state of one probe of one running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prober {
    purpose: Purpose,
    period: SignedDuration,
    initial_delay: SignedDuration,
    success_threshold: u32,
    failure_threshold: u32,
    eager_pause: (Duration, Duration),
    started: Timestamp,
    /// Consecutive answers of the same kind.
    run: u32,
    last_success: Option<bool>,
    verdict: Option<bool>,
    attempts: u32,
    /// The period in which a failure was last counted, while eager.
    counted: Option<i64>,
}

impl Prober {
    /// A prober for a container that started at `started`.
    pub(crate) fn new(purpose: Purpose, probe: &Probe, started: Timestamp) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        let seconds = |value: u32| SignedDuration::from_secs(value.into());
        Self {
            purpose,
            period: seconds(positive(probe.period_seconds, 10)),
            initial_delay: seconds(positive(probe.initial_delay_seconds, 0)),
            success_threshold: positive(probe.success_threshold, 1),
            failure_threshold: positive(probe.failure_threshold, 3),
            eager_pause: if probe.exec.is_some() {
                EAGER_EXEC_PAUSE
            } else {
                EAGER_PAUSE
            },
            started,
            run: 0,
            last_success: None,
            verdict: None,
            attempts: 0,
            counted: None,
        }
    }

    /// What this probe is for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// How long to wait before the next question.
    pub(crate) fn pause(&self, now: Timestamp) -> Duration {
        let since_start = now.duration_since(self.started);
        if self.attempts == 0 {
            return (self.initial_delay - since_start)
                .max(SignedDuration::ZERO)
                .unsigned_abs();
        }
        if !self.is_eager(now) {
            return self.period.unsigned_abs();
        }
        let (first, longest) = self.eager_pause;
        let doubled = first.saturating_mul(1 << (self.attempts - 1).min(16));
        doubled.min(longest).min(self.period.unsigned_abs())
    }

    /// Takes an answer into account.
    pub(crate) fn observe(&mut self, answer: &Answer, now: Timestamp) -> Verdict {
        let success = *answer == Answer::Success;
        let eager = self.is_eager(now);
        self.attempts = self.attempts.saturating_add(1);
        if eager && !success {
            let period = now.duration_since(self.started).as_secs() / self.period.as_secs().max(1);
            if self.counted.replace(period) == Some(period) {
                return Verdict::Unchanged;
            }
        }
        if self.last_success == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last_success = Some(success);
            self.run = 1;
        }
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        // A readiness probe has failed until it first passed; saying so again changes nothing.
        if self.run < threshold || self.verdict == Some(success) {
            return Verdict::Unchanged;
        }
        self.verdict = Some(success);
        if success {
            Verdict::Passed
        } else {
            Verdict::Failed
        }
    }

    /// Whether a failure is worth an event: not while a container may simply still be starting.
    pub(crate) fn reports_failures(&self, now: Timestamp) -> bool {
        !self.is_eager(now)
    }

    fn is_eager(&self, now: Timestamp) -> bool {
        self.purpose != Purpose::Liveness
            && self.verdict != Some(true)
            && self.last_success != Some(true)
            && now.duration_since(self.started) < self.initial_delay + EAGER_FOR
    }
}

/// The probes of a container by purpose.
pub(crate) fn of(container: &Container) -> impl Iterator<Item = (Purpose, &Probe)> {
    [
        (Purpose::Startup, container.startup_probe.as_ref()),
        (Purpose::Readiness, container.readiness_probe.as_ref()),
        (Purpose::Liveness, container.liveness_probe.as_ref()),
    ]
    .into_iter()
    .filter_map(|(purpose, probe)| probe.map(|probe| (purpose, probe)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn prober(purpose: Purpose, edit: impl FnOnce(&mut Probe)) -> Prober {
        let mut probe = Probe::default();
        edit(&mut probe);
        Prober::new(purpose, &probe, at(0))
    }

    fn failure() -> Answer {
        Answer::Failure("no".into())
    }

    #[test]
    fn thresholds_count_consecutive_answers() {
        use Verdict::{Failed, Passed, Unchanged};
        let mut prober = prober(Purpose::Liveness, |probe| {
            probe.success_threshold = Some(2);
            probe.failure_threshold = Some(3);
        });
        let mut verdicts = Vec::new();
        let answers = [
            true, true, true, false, false, true, false, false, false, false, true, true,
        ];
        for (second, success) in (0..).zip(answers) {
            let answer = if success { Answer::Success } else { failure() };
            verdicts.push(prober.observe(&answer, at(second * 10_000)));
        }
        assert_eq!(
            verdicts,
            [
                Unchanged, Passed, Unchanged, Unchanged, Unchanged, Unchanged, Unchanged,
                Unchanged, Failed, Unchanged, Unchanged, Passed
            ]
        );
    }

    #[test]
    fn readiness_is_asked_at_once_and_often_until_it_first_succeeds() {
        let mut prober = prober(Purpose::Readiness, |_| {});
        assert_eq!(prober.pause(at(0)), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            prober.observe(&failure(), at(1));
            pauses.push(prober.pause(at(1)).as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 50, 50]);
        assert_eq!(prober.observe(&Answer::Success, at(200)), Verdict::Passed);
        assert_eq!(prober.pause(at(200)), Duration::from_secs(10));
        // Once it has been ready, a failure is looked at with the period only.
        prober.observe(&failure(), at(5_000));
        assert_eq!(prober.pause(at(5_000)), Duration::from_secs(10));
    }

    #[test]
    fn impatience_ends_and_never_fails_a_container_early() {
        let mut prober = prober(Purpose::Startup, |probe| {
            probe.period_seconds = Some(2);
            probe.failure_threshold = Some(3);
        });
        let mut failed = Vec::new();
        for millisecond in (0..9_000).step_by(50) {
            if prober.observe(&failure(), at(millisecond)) == Verdict::Failed {
                failed.push(millisecond);
            }
        }
        // Periods begin at 0, 2 and 4 s: the third counted failure is the one that decides.
        assert_eq!(failed, [4_000]);
        assert_eq!(prober.pause(at(10_000)), Duration::from_secs(2));
        assert!(prober.reports_failures(at(10_000)) && !prober.reports_failures(at(9_999)));
    }

    #[test]
    fn liveness_keeps_to_its_delay_and_period() {
        let mut prober = prober(Purpose::Liveness, |probe| {
            probe.initial_delay_seconds = Some(5);
            probe.period_seconds = Some(7);
            probe.failure_threshold = Some(1);
        });
        assert_eq!(prober.pause(at(1_000)), Duration::from_secs(4));
        assert_eq!(prober.observe(&failure(), at(5_000)), Verdict::Failed);
        assert_eq!(prober.pause(at(5_000)), Duration::from_secs(7));
    }

    #[test]
    fn eager_programs_are_started_less_often() {
        let mut prober = prober(Purpose::Readiness, |probe| {
            probe.exec = Some(k8s_openapi::api::core::v1::ExecAction::default());
            probe.initial_delay_seconds = Some(1);
        });
        assert_eq!(prober.pause(at(0)), Duration::from_secs(1));
        prober.observe(&failure(), at(1_000));
        assert_eq!(prober.pause(at(1_000)), Duration::from_millis(100));
    }
}
