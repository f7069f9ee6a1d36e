//! The steps of a claim's life that somebody waits for, finer than the older series can show.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec};

use super::{FINE_BUCKETS, Registrar};

/// A step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The patch that binds a sandbox to a claim.
    Bind,
    /// The write of a claim's status.
    Publish,
    /// The creation of a pool's member.
    Refill,
    /// From the pass that found a claimed pod with its pool's labels to their change, yielding to
    /// claims included.
    PodRelabel,
}

/// How long steps take.
#[derive(Debug)]
pub struct StepMetrics {
    bind: Histogram,
    publish: Histogram,
    refill: Histogram,
    pod_relabel: Histogram,
}

impl StepMetrics {
    pub(super) fn register(new: &Registrar<'_>) -> prometheus::Result<Self> {
        let all: HistogramVec = new.histogram(
            "agent_sandbox_step_duration_seconds",
            "Time of the steps of a claim's life.",
            &["step"],
            &FINE_BUCKETS,
        )?;
        let of = |step: &str| all.with_label_values(&[step]);
        Ok(Self {
            bind: of("bind"),
            publish: of("publish"),
            refill: of("refill"),
            pod_relabel: of("pod_relabel"),
        })
    }

    /// Records how long a step took.
    pub fn took(&self, step: Step, time: Duration) {
        let histogram = match step {
            Step::Bind => &self.bind,
            Step::Publish => &self.publish,
            Step::Refill => &self.refill,
            Step::PodRelabel => &self.pod_relabel,
        };
        histogram.observe(time.as_secs_f64());
    }
}
