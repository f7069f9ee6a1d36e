//! Every metric of the operator, its name, labels and buckets, in one place. The first block keeps
//! the names that dashboards and load tests already use; the second adds what those cannot show.
//! Sandboxes are counted when the metrics are read, from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::labels as keys;
use jiff::{SignedDuration, Timestamp};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::expiry::Deadlines;
use crate::objects::{ClaimRow, OwnerKind, SandboxRow};
use crate::store::{Queues, Store};

/// Buckets of claim latencies, in milliseconds.
const CLAIM_BUCKETS: [f64; 15] = [
    100.0, 250.0, 500.0, 750.0, 1000.0, 1250.0, 1500.0, 2000.0, 2500.0, 5000.0, 10000.0, 30000.0,
    60000.0, 120_000.0, 240_000.0,
];
/// Buckets of sandbox creation latencies, in milliseconds.
const CREATION_BUCKETS: [f64; 14] = [
    50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0, 120_000.0,
    240_000.0, 300_000.0, 600_000.0,
];
/// Buckets of the finer series, in seconds.
const FINE_BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// Counters of API calls; handed to [`crate::api::Api`].
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl ApiMetrics {
    /// Counts a call.
    pub fn count(&self, verb: &str, resource: &str, code: &str) {
        self.requests
            .with_label_values(&[verb, resource, code])
            .inc();
    }

    /// Records how long a call took.
    pub fn observe(&self, verb: &str, resource: &str, took: Duration) {
        self.seconds
            .with_label_values(&[verb, resource])
            .observe(took.as_secs_f64());
    }
}

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    claim_startup: HistogramVec,
    claim_controller_startup: HistogramVec,
    client_claim_startup: HistogramVec,
    creation: HistogramVec,
    claim_creations: IntCounterVec,
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_seconds: HistogramVec,
    leader: IntGaugeVec,
    /// Claim create (as observed) to Ready published, in seconds.
    claim_ready_seconds: HistogramVec,
    /// Bindings lost to somebody else and retried.
    pub bind_conflicts: IntCounter,
    /// Events dropped because too many were waiting.
    pub events_dropped: IntCounter,
    /// Watches opened anew, by kind and cause.
    pub watch_restarts: IntCounterVec,
    /// API calls.
    pub api: ApiMetrics,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When the registry already has one of the names.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let new = Registrar(registry);
        new.build_info()?;
        let by_launch = ["launch_type", "sandbox_template"];
        Ok(Arc::new(Self {
            claim_startup: new.histogram(
                "agent_sandbox_claim_startup_latency_ms",
                "From the webhook's first sight of a claim to its being Ready.",
                &by_launch,
                &CLAIM_BUCKETS,
            )?,
            claim_controller_startup: new.histogram(
                "agent_sandbox_claim_controller_startup_latency_ms",
                "From the controller's first sight of a claim to its being Ready.",
                &by_launch,
                &CLAIM_BUCKETS,
            )?,
            client_claim_startup: new.histogram(
                "agent_sandbox_client_claim_startup_latency_ms",
                "From the client's request to the claim's being Ready.",
                &by_launch,
                &CLAIM_BUCKETS,
            )?,
            creation: new.histogram(
                "agent_sandbox_creation_latency_ms",
                "From a sandbox's creation to its being Ready; for warm launches the time the pool took.",
                &["namespace", "launch_type", "sandbox_template"],
                &CREATION_BUCKETS,
            )?,
            claim_creations: new.counters(
                "agent_sandbox_claim_creation_total",
                "Claims given a sandbox.",
                &[
                    "namespace",
                    "sandbox_template",
                    "launch_type",
                    "warmpool_name",
                    "pod_condition",
                    "created_by",
                ],
            )?,
            reconciles: new.counters(
                "controller_runtime_reconcile_total",
                "Passes by controller and result.",
                &["controller", "result"],
            )?,
            reconcile_errors: new.counters(
                "controller_runtime_reconcile_errors_total",
                "Passes that failed, by controller.",
                &["controller"],
            )?,
            reconcile_seconds: new.histogram(
                "controller_runtime_reconcile_time_seconds",
                "Time of a pass.",
                &["controller"],
                &FINE_BUCKETS,
            )?,
            leader: new.gauges(
                "leader_election_master_status",
                "Whether this replica holds the lease.",
                &["name"],
            )?,
            claim_ready_seconds: new.histogram(
                "agent_sandbox_claim_ready_seconds",
                "From the controller's first sight of a claim to Ready being published.",
                &["launch_type"],
                &FINE_BUCKETS,
            )?,
            bind_conflicts: new.counter(
                "agent_sandbox_bind_conflicts_total",
                "Bindings that found their member changed and went on to another one.",
            )?,
            events_dropped: new.counter(
                "agent_sandbox_events_dropped_total",
                "Events not written because too many were waiting.",
            )?,
            watch_restarts: new.counters(
                "agent_sandbox_watch_restarts_total",
                "Watches opened anew, by kind and cause.",
                &["kind", "cause"],
            )?,
            api: ApiMetrics {
                requests: new.counters(
                    "agent_sandbox_api_requests_total",
                    "Calls to the API server by verb, resource and outcome.",
                    &["verb", "resource", "code"],
                )?,
                seconds: new.histogram(
                    "agent_sandbox_api_request_duration_seconds",
                    "Time to the headers of the API server's answer.",
                    &["verb", "resource"],
                    &FINE_BUCKETS,
                )?,
            },
        }))
    }

    /// Registers the metrics that are computed from the store and the queues when read.
    ///
    /// # Errors
    /// When the registry already has one of the names.
    pub fn register_computed(
        registry: &Registry,
        store: Store,
        queues: Queues,
        deadlines: Deadlines,
    ) -> prometheus::Result<()> {
        registry.register(Box::new(Computed::new(store, queues, deadlines)?))
    }

    /// Counts a pass.
    pub fn pass(&self, controller: &str, result: &str, took: Duration) {
        self.reconciles
            .with_label_values(&[controller, result])
            .inc();
        if result == "error" {
            self.reconcile_errors.with_label_values(&[controller]).inc();
        }
        self.reconcile_seconds
            .with_label_values(&[controller])
            .observe(took.as_secs_f64());
    }

    /// Says whether this replica leads.
    pub fn set_leader(&self, lease: &str, leads: bool) {
        self.leader
            .with_label_values(&[lease])
            .set(i64::from(leads));
    }

    /// Counts a claim that was given a sandbox.
    pub fn claim_created(&self, sandbox: &SandboxRow, created_by: &str, launch: &str, pool: &str) {
        let ready = if launch == keys::LAUNCH_TYPE_WARM && sandbox.is_ready() {
            "ready"
        } else {
            "not_ready"
        };
        self.claim_creations
            .with_label_values(&[
                &*sandbox.head.key.namespace,
                template_label(sandbox, "__unknown__"),
                launch,
                pool,
                ready,
                keys::normalised_creator(created_by),
            ])
            .inc();
    }

    /// Records the latencies of a claim that became Ready for the first time. Starts that are
    /// missing, malformed or in the future are skipped.
    pub fn claim_ready(
        &self,
        claim: &ClaimRow,
        sandbox: &SandboxRow,
        first_observed: Option<Timestamp>,
        now: Timestamp,
    ) {
        let launch = launch_type(sandbox);
        let template = template_label(sandbox, "__unknown__");
        let since = |text: &Option<crate::ident::Text>| {
            text.as_ref()
                .and_then(|text| text.parse::<Timestamp>().ok())
        };
        let observe = |histogram: &HistogramVec, start: Option<Timestamp>| {
            if let Some(ms) = start.and_then(|start| milliseconds(now.duration_since(start))) {
                histogram.with_label_values(&[launch, template]).observe(ms);
            }
        };
        observe(
            &self.claim_startup,
            since(&claim.annotations.webhook_observed),
        );
        let seen = since(&claim.annotations.controller_observed).or(first_observed);
        observe(&self.claim_controller_startup, seen);
        observe(
            &self.client_claim_startup,
            since(&claim.annotations.client_requested),
        );
        if let Some(start) = first_observed
            && let Some(ms) = milliseconds(now.duration_since(start))
        {
            self.claim_ready_seconds
                .with_label_values(&[launch])
                .observe(ms / 1000.0);
        }
        if let Some(ready) = sandbox.status.conditions.get(condition::READY)
            && let Some(ms) = milliseconds(ready.since.duration_since(sandbox.head.created))
        {
            self.creation
                .with_label_values(&[&*sandbox.head.key.namespace, launch, template])
                .observe(ms);
        }
    }
}

/// Makes metrics that are registered.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(IntCounter::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// The label names are those of the earlier program, which dashboards join on.
    fn build_info(&self) -> prometheus::Result<()> {
        let info = self.gauges(
            "agent_sandbox_build_info",
            "The program that is running.",
            &[
                "git_version",
                "git_commit",
                "build_date",
                "go_version",
                "compiler",
                "platform",
            ],
        )?;
        info.with_label_values(&[
            concat!("v", env!("CARGO_PKG_VERSION")),
            "unknown",
            "unknown",
            "none",
            "rustc",
            &format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        ])
        .set(1);
        Ok(())
    }

    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a latency that loses precision as a float is 285,000 years long"
)]
fn milliseconds(span: SignedDuration) -> Option<f64> {
    (!span.is_negative()).then(|| span.as_micros() as f64 / 1000.0)
}

/// The launch type of a sandbox, as labelled.
pub fn launch_type(sandbox: &SandboxRow) -> &'static str {
    match sandbox.labels.get(keys::LAUNCH_TYPE).map(|text| &**text) {
        Some(keys::LAUNCH_TYPE_WARM) => keys::LAUNCH_TYPE_WARM,
        _ => keys::LAUNCH_TYPE_COLD,
    }
}

fn template_label<'a>(sandbox: &'a SandboxRow, unknown: &'a str) -> &'a str {
    sandbox.template_name().map_or(unknown, |text| &**text)
}

/// Gauges computed when they are read.
#[derive(Debug)]
struct Computed {
    store: Store,
    queues: Queues,
    deadlines: Deadlines,
    sandboxes: IntGaugeVec,
    armed: IntGauge,
    depth: IntGaugeVec,
    adds: IntGaugeVec,
    retries: IntGaugeVec,
    running: IntGaugeVec,
}

impl Computed {
    fn new(store: Store, queues: Queues, deadlines: Deadlines) -> prometheus::Result<Self> {
        let queue = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["name"]);
        Ok(Self {
            store,
            queues,
            deadlines,
            armed: IntGauge::new(
                "agent_sandbox_deadlines",
                "Claims and sandboxes with a time to expire.",
            )?,
            sandboxes: IntGaugeVec::new(
                Opts::new("agent_sandboxes", "Sandboxes by state and origin."),
                &[
                    "namespace",
                    "ready_condition",
                    "expired",
                    "launch_type",
                    "sandbox_template",
                    "owned_by",
                    "created_by",
                ],
            )?,
            depth: queue("workqueue_depth", "Keys waiting for a worker.")?,
            adds: queue("workqueue_adds_total", "Keys added.")?,
            retries: queue("workqueue_retries_total", "Retries.")?,
            running: queue("workqueue_running", "Keys being worked on.")?,
        })
    }

    fn gauges(&self) -> [&IntGaugeVec; 5] {
        [
            &self.sandboxes,
            &self.depth,
            &self.adds,
            &self.retries,
            &self.running,
        ]
    }

    fn count(&self) -> BTreeMap<[String; 7], i64> {
        let mut counts = BTreeMap::new();
        self.store.read(|state| {
            for row in state.sandboxes() {
                let ready = row.status.conditions.get(condition::READY);
                let owner = row.head.owner.as_ref().map(|owner| owner.kind);
                let creator = row.labels.get(keys::CREATED_BY).map_or("", |text| &**text);
                let key = [
                    row.head.key.namespace.to_string(),
                    ready.map_or("Unknown", |it| it.status.as_str()).to_owned(),
                    ready
                        .is_some_and(|it| &*it.reason == reason::SANDBOX_EXPIRED)
                        .to_string(),
                    launch_type(row).to_owned(),
                    template_label(row, "unknown").to_owned(),
                    match owner {
                        Some(OwnerKind::Claim) => "SandboxClaim",
                        Some(OwnerKind::Pool) => "SandboxWarmPool",
                        _ => "None",
                    }
                    .to_owned(),
                    keys::normalised_creator(creator).to_owned(),
                ];
                *counts.entry(key).or_insert(0) += 1;
            }
        });
        counts
    }
}

impl Collector for Computed {
    fn desc(&self) -> Vec<&Desc> {
        let mut all: Vec<&Desc> = self
            .gauges()
            .into_iter()
            .flat_map(Collector::desc)
            .collect();
        all.extend(self.armed.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.sandboxes.reset();
        for (labels, count) in self.count() {
            self.sandboxes
                .with_label_values(&labels.each_ref().map(String::as_str))
                .set(count);
        }
        let queues = [
            ("sandbox", &self.queues.sandboxes),
            ("sandboxclaim", &self.queues.claims),
            ("sandboxtemplate", &self.queues.templates),
            ("sandboxwarmpool", &self.queues.pools),
        ];
        for (name, queue) in queues {
            let depth = queue.depth();
            let set = |gauge: &IntGaugeVec, value: usize| {
                gauge
                    .with_label_values(&[name])
                    .set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.depth, depth.ready);
            set(&self.running, depth.running);
            set(
                &self.adds,
                usize::try_from(depth.added).unwrap_or(usize::MAX),
            );
            set(
                &self.retries,
                usize::try_from(depth.retries).unwrap_or(usize::MAX),
            );
        }
        let armed = i64::try_from(self.deadlines.len()).unwrap_or(i64::MAX);
        self.armed.set(armed);
        let mut all: Vec<MetricFamily> = self
            .gauges()
            .into_iter()
            .flat_map(Collector::collect)
            .collect();
        all.extend(self.armed.collect());
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{at, condition, owner, row, uid};
    use crate::store::Seen;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus::TextEncoder::new()
            .encode_utf8(&registry.gather(), &mut text)
            .unwrap();
        text
    }

    #[test]
    fn names_that_dashboards_know_are_kept() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let claim: Arc<ClaimRow> = row(json!({"metadata": {"annotations": {
            "agents.x-k8s.io/client-first-requested-at": "2026-01-01T00:00:00.250000+00:00",
            "agents.x-k8s.io/webhook-first-observed-at": "not a time",
        }}}));
        let sandbox: Arc<SandboxRow> = row(json!({
            "metadata": {"labels": {"agents.x-k8s.io/launch-type": "warm"},
                "annotations": {"agents.x-k8s.io/sandbox-template-ref": "t"}},
            "status": {"conditions": [condition("Ready", "True", "R")]},
        }));
        metrics.claim_created(&sandbox, "curl", "warm", "p");
        let seen = Some(at("2026-01-01T00:00:00.4Z"));
        metrics.claim_ready(&claim, &sandbox, seen, at("2026-01-01T00:00:00.45Z"));
        let text = text(&registry);
        for line in [
            "agent_sandbox_claim_creation_total{created_by=\"unknown\",namespace=\"n\",pod_condition=\"ready\",sandbox_template=\"t\",launch_type=\"warm\",warmpool_name=\"p\"} 1",
            "agent_sandbox_client_claim_startup_latency_ms_sum{launch_type=\"warm\",sandbox_template=\"t\"} 200",
            "agent_sandbox_claim_controller_startup_latency_ms_sum{launch_type=\"warm\",sandbox_template=\"t\"} 50",
            "agent_sandbox_creation_latency_ms_count{launch_type=\"warm\",namespace=\"n\",sandbox_template=\"t\"} 1",
        ] {
            let (name, rest) = line.split_once('{').unwrap();
            let (_, value) = rest.split_once("} ").unwrap();
            let found = text.lines().find(|it| it.starts_with(&format!("{name}{{")));
            assert!(
                found.is_some_and(|it| it.ends_with(&format!("}} {value}"))),
                "{line}: {found:?}"
            );
        }
        assert!(
            !text.contains("agent_sandbox_claim_startup_latency_ms_count"),
            "malformed times are skipped"
        );
        assert!(text.contains("agent_sandbox_build_info{"));
    }

    #[test]
    fn sandboxes_are_counted_when_read() {
        let registry = Registry::new();
        let (queues, deadlines) = (Queues::default(), Deadlines::new());
        let store = Store::new(queues.clone(), deadlines.clone());
        Metrics::register_computed(&registry, store.clone(), queues, deadlines).unwrap();
        let object = json!({
            "metadata": {"name": "s", "namespace": "n", "uid": uid(1), "resourceVersion": "1",
                "ownerReferences": owner("SandboxWarmPool", "p", &uid(2))},
            "status": {"conditions": [condition("Ready", "False", "SandboxExpired")]},
        });
        let wire = serde_json::from_value(object).unwrap();
        store.observe::<SandboxRow>(wire, Seen::InWatch).unwrap();
        let text = text(&registry);
        let line = text
            .lines()
            .find(|it| it.starts_with("agent_sandboxes{"))
            .unwrap();
        for label in [
            "expired=\"true\"",
            "owned_by=\"SandboxWarmPool\"",
            "launch_type=\"cold\"",
            "sandbox_template=\"unknown\"",
            "ready_condition=\"False\"",
        ] {
            assert!(line.contains(label), "{line}");
        }
    }

    #[test]
    fn two_operators_cannot_share_a_registry_unnoticed() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        assert!(Metrics::register(&registry).is_err());
    }
}
