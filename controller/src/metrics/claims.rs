//! Claims: how they came by their sandboxes, and how long it took.

use agent_sandbox_crds::{condition, labels as keys};
use jiff::{SignedDuration, Timestamp};
use prometheus::{HistogramVec, IntCounterVec};

use super::{FINE_BUCKETS, Registrar, launch_type};
use crate::ident::Text;
use crate::objects::{ClaimRow, SandboxRow};

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
/// What a sandbox that names no template is counted under.
const NO_TEMPLATE: &str = "__unknown__";

/// Claims.
#[derive(Debug)]
pub(super) struct ClaimMetrics {
    startup: HistogramVec,
    controller_startup: HistogramVec,
    client_startup: HistogramVec,
    creation: HistogramVec,
    creations: IntCounterVec,
    ready_seconds: HistogramVec,
}

impl ClaimMetrics {
    pub(super) fn register(new: &Registrar<'_>) -> prometheus::Result<Self> {
        let by_launch = ["launch_type", "sandbox_template"];
        Ok(Self {
            startup: new.histogram(
                "agent_sandbox_claim_startup_latency_ms",
                "From the webhook's first sight of a claim to its being Ready.",
                &by_launch,
                &CLAIM_BUCKETS,
            )?,
            controller_startup: new.histogram(
                "agent_sandbox_claim_controller_startup_latency_ms",
                "From the controller's first sight of a claim to its being Ready.",
                &by_launch,
                &CLAIM_BUCKETS,
            )?,
            client_startup: new.histogram(
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
            creations: new.counters(
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
            ready_seconds: new.histogram(
                "agent_sandbox_claim_ready_seconds",
                "From the controller's first sight of a claim to Ready being published.",
                &["launch_type"],
                &FINE_BUCKETS,
            )?,
        })
    }

    pub(super) fn created(&self, sandbox: &SandboxRow, created_by: &str, launch: &str, pool: &str) {
        let ready = if launch == keys::LAUNCH_TYPE_WARM && sandbox.is_ready() {
            "ready"
        } else {
            "not_ready"
        };
        self.creations
            .with_label_values(&[
                &*sandbox.head.key.namespace,
                template(sandbox),
                launch,
                pool,
                ready,
                keys::normalised_creator(created_by),
            ])
            .inc();
    }

    pub(super) fn ready(
        &self,
        claim: &ClaimRow,
        sandbox: &SandboxRow,
        first_observed: Option<Timestamp>,
        now: Timestamp,
    ) {
        let launch = launch_type(sandbox);
        let template = template(sandbox);
        let since = |text: &Option<Text>| {
            text.as_ref()
                .and_then(|text| text.parse::<Timestamp>().ok())
        };
        let observe = |histogram: &HistogramVec, start: Option<Timestamp>| {
            if let Some(ms) = start.and_then(|start| milliseconds(now.duration_since(start))) {
                histogram.with_label_values(&[launch, template]).observe(ms);
            }
        };
        let marks = &claim.annotations;
        observe(&self.startup, since(&marks.webhook_observed));
        let seen = since(&marks.controller_observed).or(first_observed);
        observe(&self.controller_startup, seen);
        observe(&self.client_startup, since(&marks.client_requested));
        if let Some(start) = first_observed
            && let Some(ms) = milliseconds(now.duration_since(start))
        {
            self.ready_seconds
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

#[allow(
    clippy::cast_precision_loss,
    reason = "a latency that loses precision as a float is 285,000 years long"
)]
fn milliseconds(span: SignedDuration) -> Option<f64> {
    (!span.is_negative()).then(|| span.as_micros() as f64 / 1000.0)
}

fn template(sandbox: &SandboxRow) -> &str {
    sandbox.template_name().map_or(NO_TEMPLATE, |text| &**text)
}
