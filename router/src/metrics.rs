//! Every metric of the router, and the only place that knows their names.
//!
//! Labels are bounded by construction: a method outside the known set counts as `OTHER`, and a
//! namespace appears only once a sandbox in it was found, so that no caller can inflate the number of
//! series. Series are looked up once and kept.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_sandbox_service::metrics::Metrics;
use foldhash::fast::RandomState;
use http::Method;
use parking_lot::RwLock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Upper bounds of request durations, in seconds.
const DURATIONS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0,
];
/// Upper bounds of connect times, in seconds.
const CONNECTS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// The namespace label of requests that reached no known sandbox.
const NO_NAMESPACE: &str = "-";

/// The metrics of one router. Clones share them.
#[derive(Clone, Debug)]
pub struct RouterMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: IntCounterVec,
    duration: HistogramVec,
    inflight: IntGauge,
    upstream_errors: IntCounterVec,
    upstream_retries: IntCounterVec,
    upstream_connect: Histogram,
    cache_invalidations: IntCounterVec,
    authz_decisions: IntCounterVec,
    cert_reloads: IntCounterVec,
    bytes: [IntCounter; 2],
    upgrades: IntGauge,
    connections: IntGauge,
    parked: IntGauge,
    pooled: IntGauge,
    shared: IntGauge,
    hints: IntCounterVec,
    access_log_dropped: IntCounter,
    namespaces: RwLock<HashMap<Box<str>, Arc<PerNamespace>, RandomState>>,
}

/// The series of one namespace that every request counts in.
#[derive(Debug, Default)]
struct PerNamespace {
    /// By method and status.
    answers: RwLock<HashMap<(u8, u16), Arc<Series>, RandomState>>,
    allowed: OnceLock<IntCounter>,
    denied: OnceLock<IntCounter>,
}

#[derive(Debug)]
struct Series {
    requests: IntCounter,
    duration: Histogram,
}

/// A registry that already has a metric of one of these names.
#[derive(Debug, thiserror::Error)]
#[error("cannot register the router's metrics")]
pub struct MetricsError(#[from] prometheus::Error);

impl RouterMetrics {
    /// Creates and registers every metric.
    ///
    /// # Errors
    /// When the registry already has one of the names.
    pub fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let new = Registrar(metrics.registry());
        new.build_info()?;
        let bytes = new.counters(
            "sandbox_router_bytes_total",
            "Body bytes carried to sandboxes (in) and to clients (out).",
            &["direction"],
        )?;
        Ok(Self(Arc::new(Inner {
            requests: new.counters(
                "sandbox_router_requests_total",
                "Requests by method, status and namespace.",
                &["method", "code", "sandbox_namespace"],
            )?,
            duration: new.histograms(
                "sandbox_router_request_duration_seconds",
                "Time from the head of a request to the end of its response; upgraded connections not included.",
                &DURATIONS,
                &["method", "code", "sandbox_namespace"],
            )?,
            inflight: new.gauge(
                "sandbox_router_inflight_requests",
                "Requests in flight, upgraded connections included.",
            )?,
            upstream_errors: new.counters(
                "sandbox_router_upstream_errors_total",
                "Requests that failed at or before the sandbox.",
                &["sandbox_namespace", "reason"],
            )?,
            upstream_retries: new.counters(
                "sandbox_router_upstream_retries_total",
                "Repeated attempts to connect to a sandbox.",
                &["sandbox_namespace"],
            )?,
            upstream_connect: new
                .histograms(
                    "sandbox_router_upstream_connect_seconds",
                    "Time of one successful attempt to connect to a sandbox.",
                    &CONNECTS,
                    &[],
                )?
                .with_label_values::<&str>(&[]),
            cache_invalidations: new.counters(
                "sandbox_router_cache_invalidations_total",
                "Addresses left alone for a while because they did not answer.",
                &["sandbox_namespace"],
            )?,
            authz_decisions: new.counters(
                "sandbox_router_authz_decisions_total",
                "Authorization decisions.",
                &["sandbox_namespace", "decision"],
            )?,
            cert_reloads: new.counters(
                "sandbox_router_cert_reloads_total",
                "Attempts to load the server certificate.",
                &["outcome"],
            )?,
            bytes: [
                bytes.with_label_values(&["in"]),
                bytes.with_label_values(&["out"]),
            ],
            upgrades: new.gauge(
                "sandbox_router_upgraded_connections",
                "Upgraded connections open.",
            )?,
            connections: new.gauge(
                "sandbox_router_client_connections",
                "Client connections open.",
            )?,
            parked: new.gauge(
                "sandbox_router_parked_connections",
                "Client connections that hold no buffers because they are idle.",
            )?,
            pooled: new.gauge(
                "sandbox_router_idle_upstream_connections",
                "Idle connections to sandboxes.",
            )?,
            shared: new.gauge(
                "sandbox_router_shared_upstream_connections",
                "HTTP/2 connections to sandboxes, each shared by many requests.",
            )?,
            hints: new.counters(
                "sandbox_router_pod_ip_hints_total",
                "Pod addresses sent by clients: agreed with the table, stale, or unverified.",
                &["outcome"],
            )?,
            access_log_dropped: new
                .counters(
                    "sandbox_router_access_log_dropped_total",
                    "Access log lines dropped because the log was read too slowly.",
                    &[],
                )?
                .with_label_values::<&str>(&[]),
            namespaces: RwLock::default(),
        })))
    }

    pub(crate) fn request_started(&self) {
        self.0.inflight.inc();
    }

    /// `namespace` is the one of the sandbox that was found.
    pub(crate) fn request_finished(
        &self,
        namespace: Option<&str>,
        method: &Method,
        status: u16,
        elapsed: Duration,
    ) {
        self.0.inflight.dec();
        let series = self.series(namespace.unwrap_or(NO_NAMESPACE), method, status);
        series.requests.inc();
        // The life of an upgraded connection says nothing about how quickly requests are answered.
        if status != 101 {
            series.duration.observe(elapsed.as_secs_f64());
        }
    }

    pub(crate) fn upstream_error(&self, namespace: Option<&str>, reason: &str) {
        self.0
            .upstream_errors
            .with_label_values(&[namespace.unwrap_or(NO_NAMESPACE), reason])
            .inc();
    }

    pub(crate) fn upstream_retry(&self, namespace: Option<&str>) {
        self.0
            .upstream_retries
            .with_label_values(&[namespace.unwrap_or(NO_NAMESPACE)])
            .inc();
    }

    pub(crate) fn invalidated(&self, namespace: &str) {
        self.0
            .cache_invalidations
            .with_label_values(&[namespace])
            .inc();
    }

    /// Counts a decision under its namespace if a sandbox was ever found there.
    pub(crate) fn authorized(&self, namespace: &str, allowed: bool) {
        let known = self.0.namespaces.read().get(namespace).cloned();
        let (per_namespace, namespace) = match known {
            Some(known) => (known, namespace),
            None => (self.namespace(NO_NAMESPACE), NO_NAMESPACE),
        };
        let (counter, decision) = if allowed {
            (&per_namespace.allowed, "allow")
        } else {
            (&per_namespace.denied, "deny")
        };
        counter
            .get_or_init(|| {
                let decisions = &self.0.authz_decisions;
                decisions.with_label_values(&[namespace, decision])
            })
            .inc();
    }

    pub(crate) fn connected(&self, elapsed: Duration, succeeded: bool) {
        if succeeded {
            self.0.upstream_connect.observe(elapsed.as_secs_f64());
        }
    }

    pub(crate) fn bytes(&self, received: u64, sent: u64) {
        let [inward, outward] = &self.0.bytes;
        if received > 0 {
            inward.inc_by(received);
        }
        if sent > 0 {
            outward.inc_by(sent);
        }
    }

    pub(crate) fn hint(&self, outcome: &str) {
        self.0.hints.with_label_values(&[outcome]).inc();
    }

    /// Counts an attempt to load the certificate.
    pub(crate) fn certificate_loaded(&self, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.0.cert_reloads.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn upgrades(&self) -> &IntGauge {
        &self.0.upgrades
    }

    pub(crate) fn connections(&self) -> &IntGauge {
        &self.0.connections
    }

    pub(crate) fn parked(&self) -> &IntGauge {
        &self.0.parked
    }

    pub(crate) fn access_log_dropped(&self) -> IntCounter {
        self.0.access_log_dropped.clone()
    }

    /// Idle connections to sandboxes.
    pub(crate) fn pooled(&self) -> &IntGauge {
        &self.0.pooled
    }

    /// HTTP/2 connections to sandboxes.
    pub(crate) fn shared(&self) -> &IntGauge {
        &self.0.shared
    }

    /// Registers a gauge whose value is read at every scrape.
    pub(crate) fn live(
        metrics: &Metrics,
        name: &str,
        help: &str,
        read: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let gauge = IntGauge::new(name, help)?;
        metrics.registry().register(Box::new(Live {
            gauge,
            read: Box::new(read),
        }))?;
        Ok(())
    }

    fn namespace(&self, namespace: &str) -> Arc<PerNamespace> {
        let known = self.0.namespaces.read().get(namespace).cloned();
        known.unwrap_or_else(|| {
            let mut namespaces = self.0.namespaces.write();
            namespaces.entry(namespace.into()).or_default().clone()
        })
    }

    fn series(&self, namespace: &str, method: &Method, status: u16) -> Arc<Series> {
        let (method_key, method_label) = label(method);
        let key = (method_key, status);
        let answers = &self.namespace(namespace).answers;
        if let Some(series) = answers.read().get(&key) {
            return series.clone();
        }
        let status_label = status.to_string();
        let labels = [method_label, status_label.as_str(), namespace];
        let series = Arc::new(Series {
            requests: self.0.requests.with_label_values(&labels),
            duration: self.0.duration.with_label_values(&labels),
        });
        answers.write().insert(key, series.clone());
        series
    }
}

/// Creates metrics in a registry.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn build_info(&self) -> Result<(), prometheus::Error> {
        let build = Opts::new(
            "sandbox_router_build_info",
            "Always 1; the labels tell the build.",
        );
        self.gauge_with(build.const_label("version", env!("CARGO_PKG_VERSION")))?
            .set(1);
        Ok(())
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, labels)?;
        self.0.register(Box::new(histograms.clone()))?;
        Ok(histograms)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.gauge_with(Opts::new(name, help))
    }

    fn gauge_with(&self, options: Opts) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::with_opts(options)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

/// A gauge that asks for its value when it is scraped.
struct Live {
    gauge: IntGauge,
    read: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.read)());
        self.gauge.collect()
    }
}

/// A bounded label for a method; the number stands for it.
fn label(method: &Method) -> (u8, &'static str) {
    match *method {
        Method::GET => (0, "GET"),
        Method::POST => (1, "POST"),
        Method::PUT => (2, "PUT"),
        Method::DELETE => (3, "DELETE"),
        Method::HEAD => (4, "HEAD"),
        Method::OPTIONS => (5, "OPTIONS"),
        Method::PATCH => (6, "PATCH"),
        Method::CONNECT => (7, "CONNECT"),
        Method::TRACE => (8, "TRACE"),
        _ => (9, "OTHER"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_inflate_labels() {
        let metrics = Metrics::new();
        let router = RouterMetrics::register(&metrics).unwrap();
        for n in 0..50 {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            router.request_started();
            router.request_finished(None, &method, 404, Duration::ZERO);
            router.authorized(&format!("ns-{n}"), false);
        }
        let text = metrics.encode();
        let series = |name: &str| {
            text.lines()
                .filter(|line| line.starts_with(&format!("{name}{{")))
                .count()
        };
        assert_eq!(series("sandbox_router_requests_total"), 1);
        assert_eq!(series("sandbox_router_authz_decisions_total"), 1);
        assert!(
            text.contains(r#"method="OTHER",sandbox_namespace="-"} 50"#),
            "{text}"
        );
    }

    #[test]
    fn an_upgraded_connection_is_counted_but_not_timed() {
        let metrics = Metrics::new();
        let router = RouterMetrics::register(&metrics).unwrap();
        router.request_started();
        router.request_finished(Some("ns"), &Method::GET, 101, Duration::from_secs(9999));
        let text = metrics.encode();
        assert!(
            text.contains(r#"requests_total{code="101",method="GET",sandbox_namespace="ns"} 1"#)
        );
        assert!(text.contains(
            r#"duration_seconds_count{code="101",method="GET",sandbox_namespace="ns"} 0"#
        ));
        assert!(text.contains("sandbox_router_inflight_requests 0"));
    }
}
