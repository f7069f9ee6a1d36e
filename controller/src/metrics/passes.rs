//! Passes of the controllers, under the names that every Kubernetes controller has.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{CONTROLLERS, Registrar};

/// Buckets of the time of a pass, in seconds: those of other controllers.
const PASS_BUCKETS: [f64; 40] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9,
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0,
    25.0, 30.0, 40.0, 50.0, 60.0,
];
/// Buckets of the times of queues, in seconds: those of other controllers.
const QUEUE_BUCKETS: [f64; 12] = [
    1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0,
];
/// What passes come to.
const RESULTS: [&str; 4] = ["success", "requeue", "requeue_after", "error"];

/// Passes of the controllers. Every series is looked up once, not with each pass: a claim takes about
/// twenty of them.
#[derive(Debug)]
pub struct PassMetrics {
    controllers: [(&'static str, Series); CONTROLLERS.len()],
}

/// The series of one controller.
#[derive(Debug)]
struct Series {
    results: [(&'static str, IntCounter); RESULTS.len()],
    errors: IntCounter,
    panics: IntCounter,
    seconds: Histogram,
    most: IntGauge,
    active: IntGauge,
    waited: Histogram,
    worked: Histogram,
}

/// A pass that is being made.
#[derive(Debug)]
pub struct Pass<'a>(Option<&'a Series>);

impl PassMetrics {
    pub(super) fn register(new: &Registrar<'_>) -> prometheus::Result<Self> {
        let of_queue = ["name", "controller"];
        let total = new.counters(
            "controller_runtime_reconcile_total",
            "Passes by controller and result.",
            &["controller", "result"],
        )?;
        let errors = new.counters(
            "controller_runtime_reconcile_errors_total",
            "Passes that failed, by controller.",
            &["controller"],
        )?;
        let panics = new.counters(
            "controller_runtime_reconcile_panics_total",
            "Passes that panicked, by controller.",
            &["controller"],
        )?;
        let seconds = new.histogram(
            "controller_runtime_reconcile_time_seconds",
            "Time of a pass.",
            &["controller"],
            &PASS_BUCKETS,
        )?;
        let most = new.gauges(
            "controller_runtime_max_concurrent_reconciles",
            "Passes that can be made at once, by controller.",
            &["controller"],
        )?;
        let active = new.gauges(
            "controller_runtime_active_workers",
            "Passes being made, by controller.",
            &["controller"],
        )?;
        let waited = new.histogram(
            "workqueue_queue_duration_seconds",
            "How long keys waited for a worker.",
            &of_queue,
            &QUEUE_BUCKETS,
        )?;
        let worked = new.histogram(
            "workqueue_work_duration_seconds",
            "How long keys were worked on.",
            &of_queue,
            &QUEUE_BUCKETS,
        )?;
        // Series that are there from the start can be told from series that are missing.
        let series = |name: &'static str| Series {
            results: RESULTS.map(|result| (result, total.with_label_values(&[name, result]))),
            errors: errors.with_label_values(&[name]),
            panics: panics.with_label_values(&[name]),
            seconds: seconds.with_label_values(&[name]),
            most: most.with_label_values(&[name]),
            active: active.with_label_values(&[name]),
            waited: waited.with_label_values(&[name, name]),
            worked: worked.with_label_values(&[name, name]),
        };
        Ok(Self {
            controllers: CONTROLLERS.map(|name| (name, series(name))),
        })
    }

    /// The series of a controller; `None` for a name that is not among [`CONTROLLERS`].
    fn of(&self, controller: &str) -> Option<&Series> {
        let mut all = self.controllers.iter();
        all.find(|(name, _)| *name == controller)
            .map(|(_, series)| series)
    }

    /// How many workers a controller has.
    pub fn workers(&self, controller: &str, count: usize) {
        if let Some(series) = self.of(controller) {
            series.most.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A pass begins, over a key that waited this long for it.
    pub fn begin(&self, controller: &str, waited: Duration) -> Pass<'_> {
        let series = self.of(controller);
        if let Some(series) = series {
            series.waited.observe(waited.as_secs_f64());
            series.active.inc();
        }
        Pass(series)
    }

    /// A pass panicked.
    pub fn panicked(&self, controller: &str) {
        if let Some(series) = self.of(controller) {
            series.panics.inc();
        }
    }
}

impl Pass<'_> {
    /// The pass has ended.
    pub fn end(self, result: &str, took: Duration) {
        let Some(series) = self.0 else {
            return;
        };
        if let Some((_, count)) = series.results.iter().find(|(name, _)| *name == result) {
            count.inc();
        }
        if result == "error" {
            series.errors.inc();
        }
        series.seconds.observe(took.as_secs_f64());
        series.worked.observe(took.as_secs_f64());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(series) = self.0 {
            series.active.dec();
        }
    }
}
