//! Figures and labels; names and types are compared with a running operator in the operator's tests.

use serde_json::{Value, json};

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
fn claims_are_counted_and_timed() {
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
        "agent_sandbox_claim_creation_total{created_by=\"unknown\",launch_type=\"warm\",namespace=\"n\",pod_condition=\"ready\",sandbox_template=\"t\",warmpool_name=\"p\"} 1",
        "agent_sandbox_client_claim_startup_latency_ms_sum{launch_type=\"warm\",sandbox_template=\"t\"} 200",
        "agent_sandbox_claim_controller_startup_latency_ms_sum{launch_type=\"warm\",sandbox_template=\"t\"} 50",
        "agent_sandbox_creation_latency_ms_count{launch_type=\"warm\",namespace=\"n\",sandbox_template=\"t\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(
        !text.contains("agent_sandbox_claim_startup_latency_ms_count"),
        "malformed times are skipped"
    );
}

#[test]
fn a_sandbox_was_launched_cold_unless_its_label_says_warm() {
    for (labels, launched) in [
        (json!({"agents.x-k8s.io/launch-type": "warm"}), "warm"),
        (json!({"agents.x-k8s.io/launch-type": "cold"}), "cold"),
        (json!({"agents.x-k8s.io/launch-type": "other"}), "cold"),
        (json!({}), "cold"),
    ] {
        let sandbox: Arc<SandboxRow> = row(json!({"metadata": {"labels": labels}}));
        assert_eq!(launch_type(&sandbox), launched);
    }
}

#[test]
fn a_start_in_the_future_is_skipped() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let claim: Arc<ClaimRow> = row(json!({"metadata": {"annotations": {
        "agents.x-k8s.io/client-first-requested-at": "2026-01-01T00:00:02Z",
        "agents.x-k8s.io/webhook-first-observed-at": "2026-01-01T00:00:02Z",
    }}}));
    let sandbox: Arc<SandboxRow> = row(json!({
        "metadata": {"creationTimestamp": "2026-01-01T00:00:02Z"},
        "status": {"conditions": [condition("Ready", "True", "R")]},
    }));
    let ahead = Some(at("2026-01-01T00:00:02Z"));
    metrics.claim_ready(&claim, &sandbox, ahead, at("2026-01-01T00:00:01Z"));
    assert!(!text(&registry).contains("latency_ms_count"));
    assert!(!text(&registry).contains("claim_ready_seconds_count"));
}

/// What `agent_sandboxes` says of a sandbox.
fn sort_of(metadata: Value, status: Value) -> String {
    let registry = Registry::new();
    let (queues, deadlines) = (Queues::default(), Deadlines::new());
    let store = Store::new(queues.clone(), deadlines.clone());
    Metrics::register_computed(&registry, &store, queues, deadlines).unwrap();
    let mut object = json!({
        "metadata": {"name": "s", "namespace": "n", "uid": uid(1), "resourceVersion": "1"},
        "status": status,
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    let wire = serde_json::from_value(object).unwrap();
    store.observe::<SandboxRow>(wire, Seen::InWatch).unwrap();
    let text = text(&registry);
    let mut lines = text.lines().filter(|it| it.starts_with("agent_sandboxes{"));
    let line = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), None);
    line
}

#[test]
fn sandboxes_are_told_apart_by_state_and_origin() {
    let claim = owner("SandboxClaim", "c", &uid(2));
    let pool = owner("SandboxWarmPool", "p", &uid(2));
    let expired = json!({"conditions": [condition("Ready", "False", "SandboxExpired")]});
    let ready = json!({"conditions": [condition("Ready", "True", "DependenciesReady")]});
    for (metadata, status, labels) in [
        (
            json!({}),
            json!({}),
            "created_by=\"unknown\",expired=\"false\",launch_type=\"cold\",namespace=\"n\",owned_by=\"None\",ready_condition=\"Unknown\",sandbox_template=\"unknown\"",
        ),
        (
            json!({"ownerReferences": pool, "labels": {"agents.x-k8s.io/created-by": "controller"}}),
            expired,
            "created_by=\"controller\",expired=\"true\",launch_type=\"cold\",namespace=\"n\",owned_by=\"SandboxWarmPool\",ready_condition=\"False\",sandbox_template=\"unknown\"",
        ),
        (
            json!({
                "ownerReferences": claim,
                "labels": {
                    "agents.x-k8s.io/launch-type": "warm",
                    "agents.x-k8s.io/created-by": "python-client",
                },
                "annotations": {"agents.x-k8s.io/sandbox-template-ref": "t"},
            }),
            ready.clone(),
            "created_by=\"python-client\",expired=\"false\",launch_type=\"warm\",namespace=\"n\",owned_by=\"SandboxClaim\",ready_condition=\"True\",sandbox_template=\"t\"",
        ),
        (
            json!({"labels": {"agents.x-k8s.io/created-by": "anything\" else"}}),
            ready,
            "created_by=\"unknown\",expired=\"false\",launch_type=\"cold\",namespace=\"n\",owned_by=\"None\",ready_condition=\"True\",sandbox_template=\"unknown\"",
        ),
    ] {
        let line = sort_of(metadata, status);
        assert_eq!(line, format!("agent_sandboxes{{{labels}}} 1"));
    }
}

#[test]
fn the_census_follows_every_change() {
    let (queues, deadlines) = (Queues::default(), Deadlines::new());
    let store = Store::new(queues, deadlines);
    let object = |name: &str, revision: u64, ready: &str| {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": uid(revision % 2 + 1),
                "resourceVersion": revision.to_string()},
            "status": {"conditions": [condition("Ready", ready, "R")]},
        }))
        .unwrap()
    };
    let counts = || {
        let counts = store.census().counts();
        let pairs = counts.into_iter().map(|(sort, count)| (sort.ready, count));
        pairs.collect::<Vec<_>>()
    };
    let see = |wire| drop(store.observe::<SandboxRow>(wire, Seen::InWatch).unwrap());
    see(object("a", 2, "False"));
    see(object("b", 4, "False"));
    assert_eq!(counts(), [("False", 2)]);
    see(object("a", 6, "True"));
    assert_eq!(counts(), [("False", 1), ("True", 1)]);
    // Another object of the same name.
    see(object("b", 7, "True"));
    assert_eq!(counts(), [("True", 2)]);
    let gone = object("a", 8, "True");
    store.observe_deleted::<SandboxRow>(gone).unwrap();
    assert_eq!(counts(), [("True", 1)]);
    let nothing = std::collections::BTreeSet::new();
    store.finish_list::<SandboxRow>(crate::ident::Revision(9), &nothing);
    assert_eq!(counts(), []);
}

#[test]
fn two_operators_cannot_share_a_registry_unnoticed() {
    let registry = Registry::new();
    Metrics::register(&registry).unwrap();
    assert!(Metrics::register(&registry).is_err());
}
