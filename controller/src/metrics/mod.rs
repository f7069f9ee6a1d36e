//! Every metric of the operator, its name, labels and buckets, in one place. Names that dashboards and
//! load tests already use are kept to the letter, as are those that every Kubernetes controller has;
//! finer series are added beside them. What the process itself uses is measured by
//! [`agent_sandbox_service::process`].

mod build;
mod calls;
mod claims;
mod computed;
mod passes;
mod steps;

use std::sync::Arc;

use agent_sandbox_crds::labels as keys;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

pub use self::build::Build;
pub use self::calls::ApiMetrics;
use self::claims::ClaimMetrics;
pub use self::passes::{Pass, PassMetrics};
pub use self::steps::{Step, StepMetrics};
use crate::expiry::Deadlines;
use crate::objects::{ClaimRow, SandboxRow};
use crate::store::{Queues, Store};

/// Buckets of the finer series, in seconds.
const FINE_BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// The controllers, as metrics name them.
pub const CONTROLLERS: [&str; 4] = [
    "sandbox",
    "sandboxclaim",
    "sandboxtemplate",
    "sandboxwarmpool",
];

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    claims: ClaimMetrics,
    leader: IntGaugeVec,
    /// Passes of the controllers.
    pub passes: PassMetrics,
    /// Steps that somebody waits for.
    pub steps: StepMetrics,
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
        Build::of_this_program().register(&new)?;
        Ok(Arc::new(Self {
            claims: ClaimMetrics::register(&new)?,
            leader: new.gauges(
                "leader_election_master_status",
                "Whether this replica holds the lease.",
                &["name"],
            )?,
            passes: PassMetrics::register(&new)?,
            steps: StepMetrics::register(&new)?,
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
            api: ApiMetrics::register(&new)?,
        }))
    }

    /// Registers the metrics that are computed from the store and the queues when read.
    ///
    /// # Errors
    /// When the registry already has one of the names.
    pub fn register_computed(
        registry: &Registry,
        store: &Store,
        queues: Queues,
        deadlines: Deadlines,
    ) -> prometheus::Result<()> {
        let computed = computed::Computed::new(store.census(), queues, deadlines)?;
        registry.register(Box::new(computed))
    }

    /// Says whether this replica leads.
    pub fn set_leader(&self, lease: &str, leads: bool) {
        self.leader
            .with_label_values(&[lease])
            .set(i64::from(leads));
    }

    /// Counts a claim that was given a sandbox.
    pub fn claim_created(&self, sandbox: &SandboxRow, created_by: &str, launch: &str, pool: &str) {
        self.claims.created(sandbox, created_by, launch, pool);
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
        self.claims.ready(claim, sandbox, first_observed, now);
    }
}

/// The launch type of a sandbox, as labelled.
pub fn launch_type(sandbox: &SandboxRow) -> &'static str {
    match sandbox.labels.get(keys::LAUNCH_TYPE).map(|text| &**text) {
        Some(keys::LAUNCH_TYPE_WARM) => keys::LAUNCH_TYPE_WARM,
        _ => keys::LAUNCH_TYPE_COLD,
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

    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests;
