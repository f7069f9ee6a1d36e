//! Request metrics, under the names a real API server uses.
//!
//! Counting writes exactly is what suites gate on, so every request is counted once, by what it did
//! and how it ended.

use std::time::Duration;

use http::StatusCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::request::ResourcePath;

/// Latency buckets in seconds: in-memory operations take microseconds, large lists milliseconds.
const BUCKETS: [f64; 10] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// The request metrics of one server.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    total: IntCounterVec,
    duration: HistogramVec,
    watches: IntGaugeVec,
}

/// Counts a watch while it lives.
#[derive(Debug)]
pub(super) struct WatchGuard {
    gauge: prometheus::IntGauge,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl RequestMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let total = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Requests by verb, group, version, resource, subresource and HTTP code.",
            ),
            &[
                "verb",
                "group",
                "version",
                "resource",
                "subresource",
                "code",
            ],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "Time from the request's head to the answer's head, without watches.",
            )
            .buckets(BUCKETS.to_vec()),
            &["verb", "resource"],
        )?;
        let watches = IntGaugeVec::new(
            Opts::new("apiserver_longrunning_requests", "Watches that are open."),
            &["group", "resource"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(watches.clone()))?;
        Ok(Self {
            total,
            duration,
            watches,
        })
    }

    pub(super) fn record(
        &self,
        verb: &str,
        path: &ResourcePath,
        code: StatusCode,
        elapsed: Duration,
    ) {
        let labels = [
            verb,
            &path.group,
            &path.version,
            &path.resource,
            &path.subresource,
            code.as_str(),
        ];
        self.total.with_label_values(&labels).inc();
        if verb != "WATCH" {
            let labels = [verb, path.resource.as_str()];
            self.duration
                .with_label_values(&labels)
                .observe(elapsed.as_secs_f64());
        }
    }

    pub(super) fn watch(&self, group: &str, resource: &str) -> WatchGuard {
        let gauge = self.watches.with_label_values(&[group, resource]);
        gauge.inc();
        WatchGuard { gauge }
    }
}
