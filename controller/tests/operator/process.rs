//! The operator as a process: what it serves to those who watch over it, what it leaves alone, and how
//! it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::{admin, process};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::harness::{Harness, claim, ready};
use crate::model::{Link, Mischief};

/// What an endpoint answers.
async fn ask(router: axum::Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn is_ready(readiness: &Readiness) -> (StatusCode, String) {
    let live = ask(admin::health_router(readiness.clone()), "/livez").await;
    assert_eq!(live.0, StatusCode::OK, "alive, ready or not");
    ask(admin::health_router(readiness.clone()), "/readyz").await
}

fn replica(identity: &str) -> Config {
    Config {
        leader_election: Some(LeaderElection::new("n", identity)),
        ..Config::default()
    }
}

/// Fails calls that `matches` selects until the switch is turned off.
fn failing(
    harness: &Harness,
    matches: impl Fn(&crate::model::Call) -> bool + Send + 'static,
) -> Arc<AtomicBool> {
    let failing = Arc::new(AtomicBool::new(true));
    let on = failing.clone();
    harness.model.disturb(move |call| {
        (matches(call) && on.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(500, "InternalError", "out of order".to_owned()))
    });
    failing
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_ready_once_everything_has_been_listed() {
    let mut harness = Harness::new();
    let unlisted = failing(&harness, |call| {
        call.verb == "list" && call.resource == "pods"
    });
    let readiness = Readiness::new();
    harness.run_with(harness.model.client(), Config::default(), |builder| {
        builder.readiness(&readiness)
    });
    harness.settle().await;
    let (status, why) = is_ready(&readiness).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        why.contains("caches: waiting for the first list of Pod"),
        "{why}"
    );
    unlisted.store(false, Ordering::SeqCst);
    harness.pass(Duration::from_secs(60)).await;
    assert_eq!(is_ready(&readiness).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_ready_and_a_leader_without_its_lease_is_not() {
    let mut harness = Harness::new();
    let (first, second) = (Readiness::new(), Readiness::new());
    harness.run_with(harness.model.client(), replica("first"), |builder| {
        builder.readiness(&first)
    });
    harness.settle().await;
    harness.run_with(harness.model.client(), replica("second"), |builder| {
        builder.readiness(&second)
    });
    harness.settle().await;
    assert_eq!(is_ready(&first).await.0, StatusCode::OK);
    assert_eq!(is_ready(&second).await.0, StatusCode::OK);
    failing(&harness, |call| call.resource == "leases");
    harness.pass(Duration::from_secs(11)).await;
    let (status, why) = is_ready(&first).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("leadership: the lease was lost"), "{why}");
    assert!(
        harness.ended().await.is_err(),
        "a process that lost its lease ends"
    );
    assert_eq!(
        is_ready(&second).await.0,
        StatusCode::OK,
        "it only stands by"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_hears_nothing_for_long_is_not_ready() {
    let mut harness = Harness::new();
    let readiness = Readiness::new();
    harness.run_with(harness.model.client(), Config::default(), |builder| {
        builder.readiness(&readiness)
    });
    harness.settle().await;
    // Silence in an open watch is no news, and so good news.
    harness.pass(Duration::from_secs(3600)).await;
    assert_eq!(is_ready(&readiness).await.0, StatusCode::OK);
    harness.model.cut_watches(true);
    harness.pass(Duration::from_secs(30)).await;
    assert_eq!(
        is_ready(&readiness).await.0,
        StatusCode::OK,
        "servers restart"
    );
    harness.pass(Duration::from_secs(60)).await;
    let (status, why) = is_ready(&readiness).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("caches: no list or watch of "), "{why}");
    harness.model.cut_watches(false);
    harness.pass(Duration::from_secs(60)).await;
    assert_eq!(is_ready(&readiness).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn calls_take_turns_on_their_connections_and_watches_have_one_of_their_own() {
    let mut harness = Harness::new();
    let [first, second, third] = [Link::new(), Link::new(), Link::new()];
    let clients = [&first, &second, &third].map(|link| harness.model.client_through(link));
    let [client, other, watcher] = clients;
    harness.run_with(client, Config::default(), |builder| {
        builder.write_client(other).watch_client(watcher)
    });
    harness.pool("p", 10).await;
    harness.claim_many("c", 5);
    harness.until_claims_ready().await;
    harness.settle().await;
    let (ours, theirs) = (first.take_verbs(), second.take_verbs());
    assert!(
        ours.len() > 10 && ours.len().abs_diff(theirs.len()) <= 1,
        "{ours:?} {theirs:?}"
    );
    let reads = |verbs: &[&str]| verbs.iter().all(|verb| ["list", "watch"].contains(verb));
    assert!(!ours.iter().chain(&theirs).any(|verb| reads(&[verb])));
    let seen = third.take_verbs();
    assert!(!seen.is_empty() && reads(&seen), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn one_namespace_is_one_namespace() {
    let mut harness = Harness::new();
    harness.declare_pool("p", 2);
    harness.claim_many("c", 2);
    harness.run(Config {
        namespace: Some("elsewhere".to_owned()),
        ..Config::default()
    });
    harness.pass(Duration::from_secs(60)).await;
    assert_eq!(harness.model.take_writes(), []);
    assert!(!ready(&harness.model, "sandboxclaims", "c0"));
    harness.stop().await;
    harness.run(Config {
        namespace: Some("n".to_owned()),
        ..Config::default()
    });
    harness.until_claims_ready().await;
    harness.full("p", 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_events_are_written_before_the_end() {
    let mut harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", crate::harness::template("t", json!({})));
    harness
        .model
        .create("sandboxwarmpools", crate::harness::warm_pool("p", "t", 0));
    harness.claim_many("c", 40);
    harness
        .eventually("all sandboxes are there", |model| {
            model.list("sandboxes").len() == 40
        })
        .await;
    harness.stop().await;
    let events = harness.model.list("events");
    let claims: BTreeSet<&str> = events
        .iter()
        .filter(|event| event["reason"] == "SandboxProvisioned")
        .map(|event| event["regarding"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(claims.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_be_stopped_while_it_takes_over() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 2).await;
    harness.run(replica("second"));
    harness.settle().await;
    // The second one wins the lease and then waits for lists that never come.
    failing(&harness, |call| call.verb == "list");
    harness.stop().await;
    harness.settle().await;
    let asked = Instant::now();
    harness.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

/// Name, type, labels besides `le` and `quantile`, and the number of buckets besides `+Inf` with the
/// first and the last of them.
type Series = (
    &'static str,
    &'static str,
    &'static [&'static str],
    Option<(usize, &'static str, &'static str)>,
);

const CLAIM: Option<(usize, &str, &str)> = Some((15, "100", "240000"));
const CREATION: Option<(usize, &str, &str)> = Some((14, "50", "600000"));
const FINE: Option<(usize, &str, &str)> = Some((14, "0.001", "30"));
const PASS: Option<(usize, &str, &str)> = Some((40, "0.005", "60"));
const QUEUE: Option<(usize, &str, &str)> = Some((12, "0.00000001", "1000"));
const BY_LAUNCH: &[&str] = &["launch_type", "sandbox_template"];
const OF_QUEUE: &[&str] = &["controller", "name"];

/// Everything that is exposed.
const SERIES: &[Series] = &[
    (
        "agent_sandbox_api_request_duration_seconds",
        "histogram",
        &["resource", "verb"],
        FINE,
    ),
    (
        "agent_sandbox_api_requests_total",
        "counter",
        &["code", "resource", "verb"],
        None,
    ),
    ("agent_sandbox_bind_conflicts_total", "counter", &[], None),
    (
        "agent_sandbox_build_info",
        "gauge",
        &[
            "build_date",
            "compiler",
            "git_commit",
            "git_version",
            "go_version",
            "platform",
        ],
        None,
    ),
    (
        "agent_sandbox_claim_controller_startup_latency_ms",
        "histogram",
        BY_LAUNCH,
        CLAIM,
    ),
    (
        "agent_sandbox_claim_creation_total",
        "counter",
        &[
            "created_by",
            "launch_type",
            "namespace",
            "pod_condition",
            "sandbox_template",
            "warmpool_name",
        ],
        None,
    ),
    (
        "agent_sandbox_claim_ready_seconds",
        "histogram",
        &["launch_type"],
        FINE,
    ),
    (
        "agent_sandbox_claim_startup_latency_ms",
        "histogram",
        BY_LAUNCH,
        CLAIM,
    ),
    (
        "agent_sandbox_client_claim_startup_latency_ms",
        "histogram",
        BY_LAUNCH,
        CLAIM,
    ),
    (
        "agent_sandbox_creation_latency_ms",
        "histogram",
        &["launch_type", "namespace", "sandbox_template"],
        CREATION,
    ),
    ("agent_sandbox_deadlines", "gauge", &[], None),
    ("agent_sandbox_events_dropped_total", "counter", &[], None),
    ("agent_sandbox_queue_delayed", "gauge", OF_QUEUE, None),
    (
        "agent_sandbox_step_duration_seconds",
        "histogram",
        &["step"],
        FINE,
    ),
    (
        "agent_sandbox_watch_restarts_total",
        "counter",
        &["cause", "kind"],
        None,
    ),
    (
        "agent_sandboxes",
        "gauge",
        &[
            "created_by",
            "expired",
            "launch_type",
            "namespace",
            "owned_by",
            "ready_condition",
            "sandbox_template",
        ],
        None,
    ),
    (
        "controller_runtime_active_workers",
        "gauge",
        &["controller"],
        None,
    ),
    (
        "controller_runtime_max_concurrent_reconciles",
        "gauge",
        &["controller"],
        None,
    ),
    (
        "controller_runtime_reconcile_errors_total",
        "counter",
        &["controller"],
        None,
    ),
    (
        "controller_runtime_reconcile_panics_total",
        "counter",
        &["controller"],
        None,
    ),
    (
        "controller_runtime_reconcile_time_seconds",
        "histogram",
        &["controller"],
        PASS,
    ),
    (
        "controller_runtime_reconcile_total",
        "counter",
        &["controller", "result"],
        None,
    ),
    ("leader_election_master_status", "gauge", &["name"], None),
    ("process_cpu_seconds_total", "counter", &[], None),
    ("process_max_fds", "gauge", &[], None),
    ("process_open_fds", "gauge", &[], None),
    ("process_resident_memory_bytes", "gauge", &[], None),
    ("process_start_time_seconds", "gauge", &[], None),
    ("process_threads", "gauge", &[], None),
    ("process_virtual_memory_bytes", "gauge", &[], None),
    (
        "rest_client_requests_total",
        "counter",
        &["code", "host", "method"],
        None,
    ),
    ("workqueue_adds_total", "counter", OF_QUEUE, None),
    ("workqueue_depth", "gauge", OF_QUEUE, None),
    (
        "workqueue_longest_running_processor_seconds",
        "gauge",
        OF_QUEUE,
        None,
    ),
    (
        "workqueue_queue_duration_seconds",
        "histogram",
        OF_QUEUE,
        QUEUE,
    ),
    ("workqueue_retries_total", "counter", OF_QUEUE, None),
    ("workqueue_unfinished_work_seconds", "gauge", OF_QUEUE, None),
    (
        "workqueue_work_duration_seconds",
        "histogram",
        OF_QUEUE,
        QUEUE,
    ),
];

/// What the text format says of a metric.
#[derive(Debug, Default, PartialEq)]
struct Found {
    kind: String,
    labels: BTreeSet<String>,
    /// The bounds of the buckets of one label set, in order.
    bounds: Vec<String>,
}

fn parse(text: &str) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::<String, Found>::new();
    let mut name = String::new();
    let mut first = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (of, kind) = rest.split_once(' ').unwrap();
            of.clone_into(&mut name);
            first.clear();
            kind.clone_into(&mut all.entry(name.clone()).or_default().kind);
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let found = all.get_mut(&name).unwrap();
        let labels = line
            .split_once('{')
            .map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let mut rest = Vec::new();
        let mut bound = None;
        for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            if label == "le" {
                bound = Some(value.trim_end_matches('"').to_owned());
            } else {
                found.labels.insert(label.to_owned());
                rest.push(pair.trim_end_matches('"'));
            }
        }
        let Some(bound) = bound.filter(|bound| bound != "+Inf") else {
            continue;
        };
        let set = rest.join(",");
        if found.bounds.is_empty() {
            first.clone_from(&set);
        }
        if set == first {
            found.bounds.push(bound);
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn metrics_have_their_names_types_labels_and_buckets() {
    let mut harness = Harness::new();
    let unlisted = failing(&harness, |call| call.verb == "list");
    harness.run(replica("first"));
    harness.settle().await;
    unlisted.store(false, Ordering::SeqCst);
    harness.pool("p", 2).await;
    let early = "2026-01-01T00:00:00Z";
    let mut marked = claim("c", "p");
    marked["metadata"]["annotations"] = json!({
        "agents.x-k8s.io/webhook-first-observed-at": early,
        "agents.x-k8s.io/client-first-requested-at": early,
    });
    harness.model.create("sandboxclaims", marked);
    harness.until_claims_ready().await;
    harness.settle().await;
    process::register(harness.metrics.registry()).unwrap();

    let served = admin::metrics_router(harness.metrics.clone());
    let (status, text) = ask(served, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let found = parse(&text);
    for (name, kind, labels, buckets) in SERIES {
        let Some(found) = found.get(*name) else {
            panic!("{name} is not exposed");
        };
        assert_eq!(found.kind, *kind, "{name}");
        let labels: BTreeSet<String> = labels.iter().map(ToString::to_string).collect();
        assert_eq!(found.labels, labels, "{name}");
        let ends = found.bounds.first().zip(found.bounds.last());
        let ends = ends.map(|(first, last)| (found.bounds.len(), first.as_str(), last.as_str()));
        assert_eq!(ends, *buckets, "{name}");
    }
    let known: BTreeSet<&str> = SERIES.iter().map(|(name, ..)| *name).collect();
    let more: Vec<&String> = found
        .keys()
        .filter(|name| !known.contains(name.as_str()))
        .collect();
    assert_eq!(more, [] as [&String; 0], "exposed, but in no table");

    let workers = ["controller=\"sandbox\""];
    let most = "controller_runtime_max_concurrent_reconciles";
    assert!((harness.metric(most, &workers) - 100.0).abs() < 0.5);
    assert!(
        harness
            .metric("controller_runtime_active_workers", &[])
            .abs()
            < 0.5
    );
    let patches = ["method=\"PATCH\"", "code=\"200\""];
    assert!(harness.metric("rest_client_requests_total", &patches) > 0.5);
    assert!(harness.metric("leader_election_master_status", &[]) > 0.5);
    let unknown = ["git_commit=\"unknown\""];
    assert!(
        harness.metric("agent_sandbox_build_info", &unknown) < 0.5,
        "built from a repository"
    );
}
