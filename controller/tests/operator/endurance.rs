//! Sandboxes over time: deadlines, retries, restarts, and writes that wait.

use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, condition, said, sandbox, told};
use crate::model::Mischief;

#[tokio::test(start_paused = true)]
async fn one_cause_is_told_in_one_event() {
    let harness = Harness::start();
    let words = std::sync::Arc::new(parking_lot::Mutex::new("exceeded quota"));
    let said = words.clone();
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.verb != "create" || call.resource != "pods" || said.lock().is_empty() {
            return None;
        }
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Some(Mischief::Refuse(
            403,
            "Forbidden",
            (*said.lock()).to_owned(),
        ))
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.pass(Duration::from_secs(120)).await;
    assert!(tries.load(std::sync::atomic::Ordering::SeqCst) > 3);
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 1);
    *words.lock() = "no such service account";
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 2);
    *words.lock() = "";
    harness.until_ready("sandboxes", "s").await;
    // What went well in between makes the same failure news again.
    *words.lock() = "no such service account";
    harness.model.remove("pods", "s");
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 3);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_sandbox_that_is_gone_is_written_once() {
    let harness = Harness::start();
    let at = harness.now() + jiff::SignedDuration::from_secs(30);
    let more = json!({"shutdownTime": at.to_string()});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness.settle().await;
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.resource == "sandboxes" && call.status {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        None
    });
    harness.model.hold_watches_of("sandboxes");
    harness.model.remove("sandboxes", "s");
    harness.pass(Duration::from_secs(15)).await;
    tries.store(0, std::sync::atomic::Ordering::SeqCst);
    // Its time comes, and the answer is that there is no such sandbox.
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A running sandbox `s` whose pod may be evicted, and when its template stopped to say so.
async fn unevictable(harness: &Harness) -> tokio::time::Instant {
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    let more = json!({"podTemplate": {
        "metadata": {"annotations": {evict: "true"}}, "spec": {"containers": []},
    }});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness.settle().await;
    harness.model.take_writes();
    let patch = json!({"spec": {"podTemplate": {"metadata": {"annotations": {evict: null}}}}});
    harness.model.patch("sandboxes", "s", patch);
    tokio::time::Instant::now()
}

fn is_evictable(model: &crate::model::Model) -> bool {
    let pod = model.get("pods", "s").unwrap();
    pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
}

#[tokio::test(start_paused = true)]
async fn edits_of_a_pods_metadata_share_one_write_within_a_second() {
    let mut harness = Harness::new();
    // Longer than it may be, so that the bound is what ends it.
    harness.run(Config {
        write_behind: Duration::from_secs(10),
        ..Config::default()
    });
    let since = unevictable(&harness).await;
    for value in ["1", "2"] {
        harness.pass(Duration::from_millis(300)).await;
        assert!(is_evictable(&harness.model), "it waits for more");
        let patch = json!({"spec": {"podTemplate": {"metadata": {"labels": {"a": value}}}}});
        harness.model.patch("sandboxes", "s", patch);
    }
    harness
        .eventually("the pod may not be evicted", |model| !is_evictable(model))
        .await;
    assert!(since.elapsed() <= Duration::from_secs(1), "{since:?}");
    let pod = harness.model.get("pods", "s").unwrap();
    assert_eq!(pod["metadata"]["labels"]["a"], "2");
    harness.settle().await;
    let writes = harness.model.take_writes();
    let to_pods = writes.iter().filter(|call| call.resource == "pods");
    assert_eq!(to_pods.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_within_the_window_loses_nothing() {
    let mut harness = Harness::new();
    let config = || Config {
        write_behind: Duration::from_secs(1),
        ..Config::default()
    };
    harness.run(config());
    unevictable(&harness).await;
    harness.pass(Duration::from_millis(500)).await;
    harness.stop().await;
    assert!(is_evictable(&harness.model));
    harness.run(config());
    harness
        .eventually("the pod may not be evicted", |model| !is_evictable(model))
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_set_on_a_running_sandbox_ends_it_then_and_not_before() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let at = harness.now() + jiff::SignedDuration::from_secs(10);
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"shutdownTime": at.to_string()}}),
    );
    let mut seen_late = false;
    harness
        .eventually("it expires", |model| {
            let expired =
                said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired";
            if expired || model.get("pods", "s").is_none() {
                assert!(harness.now() >= at, "{} is before {at}", harness.now());
            }
            seen_late |= harness.now() > at + jiff::SignedDuration::from_secs(1);
            expired
        })
        .await;
    assert!(!seen_late, "not within a second of its time");
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    let suspended = condition(&sandbox, "Suspended").unwrap();
    assert_eq!(suspended["status"], "False");
    assert_eq!(suspended["observedGeneration"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_completed_sandbox_keeps_saying_so_after_its_time() {
    let harness = Harness::start();
    let at = harness.now() + jiff::SignedDuration::from_secs(30);
    let more = json!({"shutdownTime": at.to_string(), "shutdownPolicy": "Retain", "service": true});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    let done = json!({"phase": "Succeeded"});
    harness.model.patch_status("pods", "s", done);
    harness
        .eventually("it is finished", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Finished").1 == "PodSucceeded"
        })
        .await;
    harness
        .eventually("its time has come", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired"
                && model.list("pods").is_empty()
                && model.list("services").is_empty()
        })
        .await;
    harness.settle().await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    assert_eq!(
        said(&sandbox, "Finished"),
        ("True".to_owned(), "PodSucceeded".to_owned())
    );
    assert_eq!(sandbox["status"]["serviceFQDN"], Value::Null);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn transition_times_move_with_the_state_and_not_with_the_reason() {
    let harness = Harness::start();
    harness.model.set_graceful(true);
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let since = |model: &crate::model::Model| -> String {
        let sandbox = model.get("sandboxes", "s").unwrap();
        let suspended = condition(&sandbox, "Suspended").unwrap();
        suspended["lastTransitionTime"].as_str().unwrap().to_owned()
    };
    let until = async |reason: &str| {
        harness
            .eventually(reason, |model| {
                said(&model.get("sandboxes", "s").unwrap(), "Suspended").1 == reason
            })
            .await;
        since(&harness.model)
    };
    let mut last = until("NotSuspended").await;
    // A pod that is replaced changes nothing about that.
    harness.settle().await;
    harness.model.delete("pods", "s");
    harness.settle().await;
    harness.model.remove("pods", "s");
    harness.until_ready("sandboxes", "s").await;
    assert_eq!(since(&harness.model), last);
    for _ in 0..2 {
        let mode = |mode: &str| {
            let patch = json!({"spec": {"operatingMode": mode}});
            harness.model.patch("sandboxes", "s", patch);
        };
        harness.settle().await;
        mode("Suspended");
        assert_eq!(until("PodTerminating").await, last, "False to False");
        harness.settle().await;
        harness.model.remove("pods", "s");
        let suspended = until("PodTerminated").await;
        assert!(suspended > last, "{suspended} after {last}");
        harness.settle().await;
        mode("Running");
        last = until("NotSuspended").await;
        assert!(last > suspended, "{last} after {suspended}");
        harness.until_ready("sandboxes", "s").await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_sandboxes_than_workers_all_become_ready() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.workers.sandboxes = 10;
    harness.run(config);
    let names: Vec<String> = (0..20).map(|index| format!("s{index}")).collect();
    for name in &names {
        harness.model.create("sandboxes", sandbox(name, json!({})));
    }
    for name in &names {
        harness.until_ready("sandboxes", name).await;
    }
    assert_eq!(harness.model.list("pods").len(), 20);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_too_long_for_a_service_is_a_mistake_and_not_a_loop() {
    let harness = Harness::start();
    let name = "s".repeat(64);
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.resource != "services" || call.verb != "create" {
            return None;
        }
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let words = "metadata.name: Invalid value: must be no more than 63 characters";
        Some(Mischief::Refuse(422, "Invalid", words.to_owned()))
    });
    let more = json!({"service": true});
    harness.model.create("sandboxes", sandbox(&name, more));
    harness
        .eventually("InvalidConfiguration", |model| {
            let sandbox = model.get("sandboxes", &name).unwrap();
            condition(&sandbox, "Ready").is_some_and(|ready| {
                ready["reason"] == "InvalidConfiguration"
                    && ready["message"].as_str().unwrap().contains("63 characters")
            })
        })
        .await;
    harness.pass(Duration::from_secs(300)).await;
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 1);
    harness.assert_at_rest().await;
    // A change of the sandbox is another try; without the Service there is nothing wrong with it.
    let patch = json!({"spec": {"service": false}});
    harness.model.patch("sandboxes", &name, patch);
    harness.until_ready("sandboxes", &name).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_sandbox_still_expires_on_time() {
    let harness = Harness::start();
    harness.model.disturb(|call| {
        (call.resource == "pods" && call.verb == "create")
            .then(|| Mischief::Refuse(403, "Forbidden", "exceeded quota".to_owned()))
    });
    let at = harness.now() + jiff::SignedDuration::from_secs(150);
    let more = json!({"shutdownTime": at.to_string()});
    harness.model.create("sandboxes", sandbox("s", more));
    harness
        .eventually("it expires", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired"
        })
        .await;
    let late = harness.now().duration_since(at);
    assert!(late >= jiff::SignedDuration::ZERO, "{late:#}");
    assert!(late <= jiff::SignedDuration::from_secs(1), "{late:#}");
}
