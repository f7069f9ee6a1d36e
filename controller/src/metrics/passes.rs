//! Passes of the controllers, under the names that every Kubernetes controller has.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

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

/// Passes of the controllers.
#[derive(Debug)]
pub struct PassMetrics {
    total: IntCounterVec,
    errors: IntCounterVec,
    panics: IntCounterVec,
    seconds: HistogramVec,
    most: IntGaugeVec,
    active: IntGaugeVec,
    waited: HistogramVec,
    worked: HistogramVec,
}

/// A pass that is being made.
#[derive(Debug)]
pub struct Pass<'a> {
    metrics: &'a PassMetrics,
    controller: &'static str,
}

impl PassMetrics {
    pub(super) fn register(new: &Registrar<'_>) -> prometheus::Result<Self> {
        let of_queue = ["name", "controller"];
        let metrics = Self {
            total: new.counters(
                "controller_runtime_reconcile_total",
                "Passes by controller and result.",
                &["controller", "result"],
            )?,
            errors: new.counters(
                "controller_runtime_reconcile_errors_total",
                "Passes that failed, by controller.",
                &["controller"],
            )?,
            panics: new.counters(
                "controller_runtime_reconcile_panics_total",
                "Passes that panicked, by controller.",
                &["controller"],
            )?,
            seconds: new.histogram(
                "controller_runtime_reconcile_time_seconds",
                "Time of a pass.",
                &["controller"],
                &PASS_BUCKETS,
            )?,
            most: new.gauges(
                "controller_runtime_max_concurrent_reconciles",
                "Passes that can be made at once, by controller.",
                &["controller"],
            )?,
            active: new.gauges(
                "controller_runtime_active_workers",
                "Passes being made, by controller.",
                &["controller"],
            )?,
            waited: new.histogram(
                "workqueue_queue_duration_seconds",
                "How long keys waited for a worker.",
                &of_queue,
                &QUEUE_BUCKETS,
            )?,
            worked: new.histogram(
                "workqueue_work_duration_seconds",
                "How long keys were worked on.",
                &of_queue,
                &QUEUE_BUCKETS,
            )?,
        };
        // Series that are there from the start can be told from series that are missing.
        for controller in CONTROLLERS {
            for result in RESULTS {
                metrics.total.with_label_values(&[controller, result]);
            }
            metrics.errors.with_label_values(&[controller]);
            metrics.panics.with_label_values(&[controller]);
            metrics.most.with_label_values(&[controller]);
            metrics.active.with_label_values(&[controller]);
            metrics.seconds.with_label_values(&[controller]);
            metrics.waited.with_label_values(&[controller, controller]);
            metrics.worked.with_label_values(&[controller, controller]);
        }
        Ok(metrics)
    }

    /// How many workers a controller has.
    pub fn workers(&self, controller: &str, count: usize) {
        self.most
            .with_label_values(&[controller])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A pass begins, over a key that waited this long for it.
    pub fn begin(&self, controller: &'static str, waited: Duration) -> Pass<'_> {
        self.waited
            .with_label_values(&[controller, controller])
            .observe(waited.as_secs_f64());
        self.active.with_label_values(&[controller]).inc();
        Pass {
            metrics: self,
            controller,
        }
    }

    /// A pass panicked.
    pub fn panicked(&self, controller: &str) {
        self.panics.with_label_values(&[controller]).inc();
    }
}

impl Pass<'_> {
    /// The pass has ended.
    pub fn end(self, result: &str, took: Duration) {
        let (metrics, name, took) = (self.metrics, self.controller, took.as_secs_f64());
        metrics.total.with_label_values(&[name, result]).inc();
        if result == "error" {
            metrics.errors.with_label_values(&[name]).inc();
        }
        metrics.seconds.with_label_values(&[name]).observe(took);
        metrics
            .worked
            .with_label_values(&[name, name])
            .observe(took);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.metrics
            .active
            .with_label_values(&[self.controller])
            .dec();
    }
}
