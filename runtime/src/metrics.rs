//! The runtime's metrics, names in one place.

use agent_sandbox_service::metrics::Metrics;
use axum::http::Method;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
};
use tokio::time::Instant;

use crate::exec::{Cause, Exit, Outcome};

/// Handles of everything that is counted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeMetrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    commands: IntCounterVec,
    command_seconds: Histogram,
    running: IntGauge,
    omitted_bytes: IntCounter,
    uploaded_bytes: IntCounter,
}

const REQUEST_BUCKETS: [f64; 10] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0, 10.0, 60.0,
];
const COMMAND_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

impl RuntimeMetrics {
    /// Registers everything in `metrics`.
    ///
    /// # Errors
    /// When the registry already has a runtime's metrics.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let name =
            |name: &str, help: &str| Opts::new(format!("agent_sandbox_runtime_{name}"), help);
        let histogram =
            |opts: Opts, buckets: &[f64]| HistogramOpts::from(opts).buckets(buckets.to_vec());
        let this = Self {
            requests: IntCounterVec::new(
                name("requests_total", "Requests by route, method and status"),
                &["route", "method", "status"],
            )?,
            request_seconds: HistogramVec::new(
                histogram(
                    name("request_seconds", "Time until an answer begins, by route"),
                    &REQUEST_BUCKETS,
                ),
                &["route"],
            )?,
            commands: IntCounterVec::new(
                name(
                    "commands_total",
                    "Commands by outcome: exited, signaled, timed_out, cancelled, refused; and detached, those that \
                     were left to themselves",
                ),
                &["outcome"],
            )?,
            command_seconds: Histogram::with_opts(histogram(
                name("command_seconds", "Run time of commands that ended"),
                &COMMAND_BUCKETS,
            ))?,
            running: IntGauge::with_opts(name("commands_running", "Commands that run now"))?,
            omitted_bytes: IntCounter::with_opts(name(
                "command_output_omitted_bytes_total",
                "Output beyond the limit that answers left out",
            ))?,
            uploaded_bytes: IntCounter::with_opts(name(
                "uploaded_bytes_total",
                "Bytes of files stored",
            ))?,
        };
        let registry = metrics.registry();
        registry.register(Box::new(this.requests.clone()))?;
        registry.register(Box::new(this.request_seconds.clone()))?;
        registry.register(Box::new(this.commands.clone()))?;
        registry.register(Box::new(this.command_seconds.clone()))?;
        registry.register(Box::new(this.running.clone()))?;
        registry.register(Box::new(this.omitted_bytes.clone()))?;
        registry.register(Box::new(this.uploaded_bytes.clone()))?;
        Ok(this)
    }

    pub(crate) fn request(&self, route: &str, method: &Method, status: u16, seconds: f64) {
        // Method names are the client's; only known ones become series.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known,
            _ => "other",
        };
        self.requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
        self.request_seconds
            .with_label_values(&[route])
            .observe(seconds);
    }

    pub(crate) fn uploaded(&self, bytes: u64) {
        self.uploaded_bytes.inc_by(bytes);
    }

    /// A command that was left to itself.
    pub(crate) fn detached(&self) {
        self.commands.with_label_values(&["detached"]).inc();
    }

    /// A command that is about to start. Dropping the guard without a word counts it as cancelled.
    pub(crate) fn command(&self, began: Instant) -> RunningCommand {
        self.running.inc();
        RunningCommand {
            metrics: self.clone(),
            began,
            outcome: "cancelled",
        }
    }
}

/// Counts one command when it is dropped.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    metrics: RuntimeMetrics,
    began: Instant,
    outcome: &'static str,
}

impl RunningCommand {
    pub(crate) fn finished(&mut self, outcome: &Outcome) {
        self.outcome = match (outcome.timed_out, outcome.exit) {
            (true, _) => "timed_out",
            (false, Some(Exit::Signal(_))) => "signaled",
            (false, _) => "exited",
        };
        let omitted = outcome.stdout.omitted + outcome.stderr.omitted;
        self.metrics.omitted_bytes.inc_by(omitted);
    }

    /// A command whose output was streamed.
    pub(crate) fn ended(&mut self, exit: Exit, cause: Option<Cause>) {
        self.outcome = match (cause, exit) {
            (Some(Cause::TimedOut), _) => "timed_out",
            (Some(Cause::Cancelled), _) => "cancelled",
            (None, Exit::Signal(_)) => "signaled",
            (None, _) => "exited",
        };
    }

    pub(crate) fn refused(&mut self) {
        self.outcome = "refused";
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics
            .commands
            .with_label_values(&[self.outcome])
            .inc();
        if self.outcome != "refused" {
            let seconds = self.began.elapsed().as_secs_f64();
            self.metrics.command_seconds.observe(seconds);
        }
    }
}
