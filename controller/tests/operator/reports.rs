//! What is told beside the status: events, metrics and annotations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::harness::{Harness, claim, is_ready, said};
use crate::model::{Call, Mischief, Model};

const CONTROLLER_STARTUP: &str = "agent_sandbox_claim_controller_startup_latency_ms_count";
const CLIENT_STARTUP: &str = "agent_sandbox_client_claim_startup_latency_ms_count";
const WEBHOOK_STARTUP: &str = "agent_sandbox_claim_startup_latency_ms_count";
const CREATION: &str = "agent_sandbox_creation_latency_ms_count";

fn annotation(model: &Model, claim: &str, key: &str) -> Option<String> {
    let claim = model.get("sandboxclaims", claim).unwrap();
    let value = &claim["metadata"]["annotations"][format!("agents.x-k8s.io/{key}")];
    value.as_str().map(str::to_owned)
}

/// Reason and action of the events about an object.
fn events_about(model: &Model, kind: &str, name: &str) -> Vec<(String, String)> {
    let text = |event: &Value, member: &str| event[member].as_str().unwrap_or("-").to_owned();
    model
        .list("events")
        .iter()
        .filter(|event| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name)
        .map(|event| (text(event, "reason"), text(event, "action")))
        .collect()
}

/// The pod of a Ready claim fails one probe and recovers.
async fn flap(harness: &Harness, name: &str) {
    let claim = harness.model.get("sandboxclaims", name).unwrap();
    let pod = claim["status"]["sandbox"]["name"].as_str().unwrap();
    for status in ["False", "True"] {
        let ready = json!([{"type": "Ready", "status": status}]);
        harness
            .model
            .patch_status("pods", pod, json!({"conditions": ready}));
        harness
            .eventually("the claim follows its pod", |model| {
                said(&model.get("sandboxclaims", name).unwrap(), "Ready").0 == status
            })
            .await;
    }
    harness.settle().await;
}

fn annotating() -> Config {
    let mut config = Config::default();
    config.claims.annotations = true;
    config
}

#[tokio::test(start_paused = true)]
async fn latencies_are_measured_once_per_claim_whatever_flaps_and_restarts() {
    let mut harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    let measured = |harness: &Harness| {
        (
            harness.count(CONTROLLER_STARTUP, &["launch_type=\"warm\""]),
            harness.count(CREATION, &[]),
            harness.count("agent_sandbox_claim_ready_seconds_count", &[]),
        )
    };
    assert_eq!(measured(&harness), (1, 1, 1));
    flap(&harness, "c").await;
    assert_eq!(measured(&harness), (1, 1, 1), "a flap is no start");
    let name = harness.sandbox_of("c");
    for mode in ["Suspended", "Running"] {
        harness
            .model
            .patch("sandboxes", &name, json!({"spec": {"operatingMode": mode}}));
        harness.settle().await;
    }
    harness.until_ready("sandboxclaims", "c").await;
    assert_eq!(measured(&harness), (1, 1, 1), "a resume is no start");
    harness.stop().await;
    harness.run(Config::default());
    harness.settle().await;
    flap(&harness, "c").await;
    assert_eq!(measured(&harness), (0, 0, 0), "nor is a restart");
    // Another claim of the name is another claim.
    harness.model.delete("sandboxclaims", "c");
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    assert_eq!(measured(&harness), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn starts_that_are_missing_malformed_or_in_the_future_are_not_measured() {
    let harness = Harness::start();
    harness.pool("p", 4).await;
    let at = |seconds: i64| {
        let time = harness
            .now()
            .checked_add(SignedDuration::from_secs(seconds));
        time.unwrap().to_string()
    };
    for (name, client, webhook) in [
        ("none", None, None),
        (
            "malformed",
            Some("yesterday".to_owned()),
            Some("1".to_owned()),
        ),
        ("early", Some(at(60)), Some(at(60))),
        ("good", Some(at(-1)), Some(at(-1))),
    ] {
        let mut object = claim(name, "p");
        object["metadata"]["annotations"] = json!({
            "agents.x-k8s.io/client-first-requested-at": client,
            "agents.x-k8s.io/webhook-first-observed-at": webhook,
        });
        let marks = object["metadata"]["annotations"].as_object_mut().unwrap();
        marks.retain(|_, value| !value.is_null());
        harness.model.create("sandboxclaims", object);
        harness.until_ready("sandboxclaims", name).await;
    }
    assert_eq!(harness.count(CLIENT_STARTUP, &[]), 1);
    assert_eq!(harness.count(WEBHOOK_STARTUP, &[]), 1);
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 4);
    let sum = "agent_sandbox_client_claim_startup_latency_ms_sum";
    assert!(harness.count(sum, &[]) >= 1000);
}

#[tokio::test(start_paused = true)]
async fn annotations_are_written_once_and_their_absence_is_marked_unknown() {
    let mut harness = Harness::new();
    harness.run(annotating());
    harness.pool("p", 2).await;
    let asked = harness.now();
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let seen = annotation(&harness.model, "c", "controller-first-observed-at").unwrap();
    let seen: jiff::Timestamp = seen.parse().unwrap();
    assert!(seen >= asked && seen < asked + SignedDuration::from_secs(1));
    let first = annotation(&harness.model, "c", "claim-first-ready-at").unwrap();
    first.parse::<jiff::Timestamp>().unwrap();
    let bound = harness.model.get("sandboxclaims", "c").unwrap()["status"]["sandbox"]["name"]
        .as_str()
        .map(str::to_owned);
    assert_eq!(annotation(&harness.model, "c", "sandbox-name"), bound);
    let notes = |model: &Model| {
        let is_note = |call: &Call| call.resource == "sandboxclaims" && !call.status;
        model.take_writes().into_iter().filter(is_note).count()
    };
    assert_eq!(notes(&harness.model), 1, "one write for all of them");
    flap(&harness, "c").await;
    assert_eq!(notes(&harness.model), 0);
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 1);

    // A claim that was Ready while nobody wrote annotations is never measured later.
    harness.stop().await;
    harness.run(Config::default());
    harness.model.create("sandboxclaims", claim("d", "p"));
    harness.until_ready("sandboxclaims", "d").await;
    harness.settle().await;
    assert_eq!(
        annotation(&harness.model, "d", "claim-first-ready-at"),
        None
    );
    harness.stop().await;
    harness.run(annotating());
    harness
        .eventually("the second claim is marked", |model| {
            annotation(model, "d", "claim-first-ready-at").as_deref() == Some("unknown")
        })
        .await;
    flap(&harness, "d").await;
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 0);
    let kept = annotation(&harness.model, "c", "claim-first-ready-at");
    assert_eq!(kept, Some(first), "a known time stays");
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_written_is_tried_again_and_measures_nothing_twice() {
    let mut harness = Harness::new();
    harness.run(annotating());
    harness.pool("p", 1).await;
    let refusals = AtomicUsize::new(0);
    harness.model.disturb(move |call| {
        let is_note = call.verb == "patch" && call.resource == "sandboxclaims" && !call.status;
        (is_note && refusals.fetch_add(1, Ordering::SeqCst) < 3)
            .then(|| Mischief::Refuse(500, "InternalError", "no".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the note is written", |model| {
            let first = annotation(model, "c", "claim-first-ready-at");
            first.is_some_and(|first| first.parse::<jiff::Timestamp>().is_ok())
        })
        .await;
    harness.assert_at_rest().await;
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 1);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_came_too_late_is_dropped_without_error_and_unmeasured() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let mut preceded = false;
    harness.model.disturb(move |call| {
        let publishes = call.resource == "sandboxclaims" && call.verb == "patch" && call.status;
        let label = json!({"metadata": {"labels": {"by": "somebody"}}});
        (publishes && !std::mem::replace(&mut preceded, true)).then_some(Mischief::Precede(
            "sandboxclaims",
            "c".to_owned(),
            label,
        ))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.settle().await;
    assert_eq!(
        harness.model.get("sandboxclaims", "c").unwrap()["status"],
        Value::Null
    );
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 0);
    harness.model.release_watches();
    harness.until_ready("sandboxclaims", "c").await;
    assert_eq!(harness.count(CONTROLLER_STARTUP, &[]), 1);
    let errors = "controller_runtime_reconcile_errors_total";
    assert_eq!(harness.count(errors, &["controller=\"sandboxclaim\""]), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_is_an_event_and_a_warm_one_is_none() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("warm", "p"));
    harness.until_ready("sandboxclaims", "warm").await;
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 0}}));
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("cold", "p"));
    harness.until_ready("sandboxclaims", "cold").await;
    harness.settle().await;
    assert_eq!(
        events_about(&harness.model, "SandboxClaim", "cold"),
        [("SandboxProvisioned".to_owned(), "Provisioning".to_owned())]
    );
    assert_eq!(events_about(&harness.model, "SandboxClaim", "warm"), []);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_announced_once() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let at = harness.now() + SignedDuration::from_secs(30);
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for policy in ["Retain", "Delete"] {
        let mut object = claim(&policy.to_lowercase(), "p");
        object["spec"]["lifecycle"] = json!({"shutdownTime": at, "shutdownPolicy": policy});
        harness.model.create("sandboxclaims", object);
        harness
            .until_ready("sandboxclaims", &policy.to_lowercase())
            .await;
    }
    let refusals = AtomicUsize::new(0);
    harness.model.disturb(move |call| {
        let deletes = call.verb == "delete" && call.resource == "sandboxclaims";
        (deletes && refusals.fetch_add(1, Ordering::SeqCst) < 4)
            .then(|| Mischief::Refuse(500, "InternalError", "no".to_owned()))
    });
    harness
        .eventually(
            "one is gone and the other has let go of its sandbox",
            |model| {
                model.get("sandboxclaims", "delete").is_none()
                    && model.get("sandboxclaims", "retain").unwrap()["status"]["sandbox"].is_null()
            },
        )
        .await;
    harness.settle().await;
    let told = |name| events_about(&harness.model, "SandboxClaim", name);
    let expired = ("ClaimExpired".to_owned(), "Claim Expired".to_owned());
    let deleting = ("ClaimExpired".to_owned(), "Deleting".to_owned());
    let provisioned = ("SandboxProvisioned".to_owned(), "Provisioning".to_owned());
    let sorted = |mut list: Vec<(String, String)>| {
        list.sort();
        list
    };
    assert_eq!(
        sorted(told("retain")),
        [expired.clone(), provisioned.clone()]
    );
    assert_eq!(sorted(told("delete")), [expired, deleting, provisioned]);
}

#[tokio::test(start_paused = true)]
async fn a_passing_fault_takes_no_ready_from_a_claim_that_is_served() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let broken = Arc::new(AtomicBool::new(true));
    let failing = broken.clone();
    harness.model.disturb(move |call| {
        let tidies = call.verb == "patch" && call.resource == "sandboxes" && !call.status;
        (tidies && failing.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(429, "TooManyRequests", "slow down".to_owned()))
    });
    let note =
        |value: &str| json!({"spec": {"additionalPodMetadata": {"annotations": {"x": value}}}});
    harness.model.patch("sandboxclaims", "c", note("1"));
    for _ in 0..100 {
        harness.pass(Duration::from_millis(200)).await;
        assert!(is_ready(&harness.model.get("sandboxclaims", "c").unwrap()));
    }
    broken.store(false, Ordering::SeqCst);
    harness
        .eventually("the pod's annotation follows", |model| {
            let pods = model.list("pods");
            pods.iter()
                .any(|pod| pod["metadata"]["annotations"]["x"] == "1")
        })
        .await;
    assert!(is_ready(&harness.model.get("sandboxclaims", "c").unwrap()));

    // One that stays is told.
    broken.store(true, Ordering::SeqCst);
    harness.model.patch("sandboxclaims", "c", note("2"));
    harness
        .eventually("the fault is told", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "ReconcilerError"
        })
        .await;
    broken.store(false, Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "c").await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_passes_costs_a_waiting_claim_no_write() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let publications = |model: &Model| {
        let publishes = |call: &Call| call.resource == "sandboxclaims" && call.status;
        model.take_writes().into_iter().filter(publishes).count()
    };
    harness.model.create("sandboxclaims", claim("a", "p"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
    let undisturbed = publications(&harness.model);
    let refusals = AtomicUsize::new(0);
    harness.model.disturb(move |call| {
        let creates = call.verb == "create" && call.resource == "sandboxes";
        (creates && refusals.fetch_add(1, Ordering::SeqCst) < 4)
            .then(|| Mischief::Refuse(429, "TooManyRequests", "slow down".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("b", "p"));
    harness.until_ready("sandboxclaims", "b").await;
    harness.settle().await;
    assert_eq!(publications(&harness.model), undisturbed);
}
