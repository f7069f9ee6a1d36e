//! Ends: expiry of claims and sandboxes, times to live, deletion.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::{Harness, claim, said, sandbox};
use crate::model::Mischief;

fn later(harness: &Harness, seconds: i64) -> Value {
    let at = harness
        .now()
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap();
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// How claims were asked to be deleted, in the order of the calls.
fn propagations(harness: &Harness) -> Vec<Option<String>> {
    let writes = harness.model.take_writes().into_iter();
    writes
        .filter(|call| call.verb == "delete" && call.resource == "sandboxclaims")
        .map(|call| call.propagation)
        .collect()
}

/// Which writes of claims there were: the verb, and whether it was to the status.
fn claim_writes(harness: &Harness) -> Vec<(&'static str, bool)> {
    let writes = harness.model.take_writes().into_iter();
    writes
        .filter(|call| call.resource == "sandboxclaims")
        .map(|call| (call.verb, call.status))
        .collect()
}

fn expiring(name: &str, at: Value, policy: &str) -> Value {
    let mut object = claim(name, "p");
    object["spec"]["lifecycle"] = json!({"shutdownTime": at, "shutdownPolicy": policy});
    object
}

#[tokio::test(start_paused = true)]
async fn an_expired_claim_says_so_and_then_goes_within_a_second_of_its_time() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let at = later(&harness, 60);
    let due: Timestamp = at.as_str().unwrap().parse().unwrap();
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "Delete"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    harness.model.take_writes();
    harness
        .eventually("the claim is gone", |model| {
            model.get("sandboxclaims", "c").is_none()
        })
        .await;
    assert_eq!(
        claim_writes(&harness),
        [("patch", true), ("delete", false)],
        "the reason is published first"
    );
    let late = harness.now().duration_since(due);
    assert!(
        !late.is_negative() && late < SignedDuration::from_secs(1),
        "{late:?}"
    );
    harness.settle().await;
    assert_eq!(
        harness.model.list("sandboxes").len(),
        1,
        "only the refilled pool is left"
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_time_is_extended_just_before_it_goes_stays() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let (soon, late) = (later(&harness, 60), later(&harness, 3600));
    let extended = json!({"spec": {"lifecycle": {"shutdownTime": late}}});
    let mut done = false;
    harness.model.disturb(move |call| {
        let goes = call.verb == "delete" && call.resource == "sandboxclaims";
        let extend = || Mischief::Precede("sandboxclaims", "c".to_owned(), extended.clone());
        (goes && !std::mem::replace(&mut done, true)).then(extend)
    });
    let created = expiring("c", soon, "Delete");
    harness.model.create("sandboxclaims", created);
    harness.pass(Duration::from_secs(65)).await;
    harness.model.release_watches();
    harness.settle().await;
    let kept = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(kept["spec"]["lifecycle"]["shutdownTime"], late);
    harness.until_ready("sandboxclaims", "c").await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_retained_claim_stays_and_its_sandbox_goes() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let at = later(&harness, 30);
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "Retain"));
    harness.until_ready("sandboxclaims", "c").await;
    harness
        .eventually("the sandbox is gone", |model| {
            model.list("sandboxes").is_empty()
        })
        .await;
    harness.settle().await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(
        said(&claim, "Ready"),
        ("False".to_owned(), "ClaimExpired".to_owned())
    );
    assert_eq!(claim["status"]["sandbox"], Value::Null);
    harness.model.take_writes();
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(harness.model.take_writes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_left_the_watch_ends_with_its_retained_sandbox() {
    let harness = Harness::start();
    let at = later(&harness, 30);
    let life = json!({"shutdownTime": at, "shutdownPolicy": "Retain"});
    harness.model.create("sandboxes", sandbox("s", life));
    harness.until_ready("sandboxes", "s").await;
    // Somebody takes the label off by which it is watched, and it cannot be put back.
    harness.model.disturb(|call| {
        let repairs = call.verb == "patch" && call.resource == "pods";
        repairs.then(|| Mischief::Refuse(500, "InternalError", "not now".to_owned()))
    });
    let label = "agents.x-k8s.io/sandbox-name-hash";
    let without = json!({"metadata": {"labels": {label: null}}});
    harness.model.patch("pods", "s", without);
    harness
        .eventually("the pod is gone", |model| model.get("pods", "s").is_none())
        .await;
    assert_eq!(
        said(&harness.model.get("sandboxes", "s").unwrap(), "Ready").1,
        "SandboxExpired"
    );
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_retained_claim_lets_go_of_an_adopted_sandbox_and_spares_a_foreign_one() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let at = later(&harness, 30);
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "Retain"));
    harness.until_ready("sandboxclaims", "c").await;
    let adopted = harness.sandbox_of("c");
    assert!(adopted.starts_with("p-"));
    harness
        .eventually("the adopted sandbox is gone", |model| {
            model.get("sandboxes", &adopted).is_none()
        })
        .await;
    // Somebody makes a sandbox of the name; it is none of the claim's business.
    harness
        .model
        .create("sandboxes", sandbox(&adopted, json!({})));
    harness.settle().await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(said(&claim, "Ready").1, "ClaimExpired");
    assert_eq!(claim["status"]["sandbox"], Value::Null);
    assert!(harness.model.get("sandboxes", &adopted).is_some());
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_reaches_what_the_claim_owns_the_way_its_policy_says() {
    for (policy, propagation) in [("Delete", "Background"), ("DeleteForeground", "Foreground")] {
        for born_expired in [false, true] {
            let harness = Harness::start();
            harness.pool("p", 0).await;
            let at = later(&harness, if born_expired { -60 } else { 10 });
            harness
                .model
                .create("sandboxclaims", expiring("c", at, policy));
            harness
                .eventually("the claim is gone", |model| {
                    model.list("sandboxclaims").is_empty()
                })
                .await;
            assert_eq!(
                propagations(&harness),
                [Some(propagation.to_owned())],
                "{policy}"
            );
        }
    }
}

/// A claim whose pod has run to its end.
async fn finished(harness: &Harness, lifecycle: Value) {
    harness.ready_claim(lifecycle).await;
    harness.settle().await;
    harness.model.take_writes();
    harness
        .model
        .patch_status("pods", "c", json!({"phase": "Succeeded"}));
}

#[tokio::test(start_paused = true)]
async fn a_finished_claim_is_cleaned_up_only_after_it_has_said_so() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let lifecycle = json!({"ttlSecondsAfterFinished": 5, "shutdownPolicy": "Delete"});
    finished(&harness, lifecycle).await;
    harness
        .eventually("the claim is gone", |model| {
            model.get("sandboxclaims", "c").is_none()
        })
        .await;
    let states: Vec<String> = harness
        .model
        .history("sandboxclaims")
        .iter()
        .filter_map(|(_, new)| Some(said(new.as_ref()?, "Ready").1))
        .collect();
    assert_eq!(states.last().map(String::as_str), Some("ClaimExpired"));
    assert_eq!(
        claim_writes(&harness),
        [("patch", true), ("patch", true), ("delete", false)]
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_time_to_live_a_finished_claim_keeps_everything() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    finished(&harness, json!({"shutdownPolicy": "Delete"})).await;
    harness
        .eventually("Finished is mirrored", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Finished").0 == "True"
        })
        .await;
    harness.settle().await;
    harness.model.take_writes();
    harness.pass(Duration::from_secs(300)).await;
    assert_eq!(harness.model.take_writes(), []);
    for resource in ["sandboxclaims", "sandboxes", "pods"] {
        assert!(harness.model.get(resource, "c").is_some(), "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retained_claim_says_how_it_ended_while_its_sandbox_is_still_going() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let lifecycle = json!({"ttlSecondsAfterFinished": 0, "shutdownPolicy": "Retain"});
    harness.ready_claim(lifecycle).await;
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    harness.model.patch("sandboxes", "c", held);
    harness
        .model
        .patch_status("pods", "c", json!({"phase": "Succeeded"}));
    harness
        .eventually("the sandbox is going", |model| {
            model.get("sandboxes", "c").unwrap()["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    harness.assert_at_rest().await;
    let told = |model: &crate::model::Model| {
        let claim = model.get("sandboxclaims", "c").unwrap();
        (said(&claim, "Ready").1, said(&claim, "Finished").1)
    };
    let expected = ("ClaimExpired".to_owned(), "PodSucceeded".to_owned());
    assert_eq!(told(&harness.model), expected);
    harness.model.remove("sandboxes", "c");
    harness.settle().await;
    assert_eq!(told(&harness.model), expected, "and after it has gone");
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(claim["status"]["sandbox"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_is_asked_for() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let at = later(&harness, 10);
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "DeleteForeground"));
    harness
        .eventually("everything is gone", |model| {
            model.list("sandboxclaims").is_empty()
                && model.list("sandboxes").is_empty()
                && model.list("pods").is_empty()
        })
        .await;
    assert_eq!(propagations(&harness), [Some("Foreground".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_born_expired_never_gets_a_sandbox() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let at = later(&harness, -60);
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "Retain"));
    harness
        .eventually("the claim says it expired", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "ClaimExpired"
        })
        .await;
    harness.settle().await;
    assert_eq!(harness.model.list("sandboxes").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_counts_from_the_end_of_the_pod() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let lifecycle = json!({"ttlSecondsAfterFinished": 20, "shutdownPolicy": "Delete"});
    harness.ready_claim(lifecycle).await;
    harness
        .model
        .patch_status("pods", "c", json!({"phase": "Succeeded"}));
    harness
        .eventually("Finished is mirrored", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            said(&claim, "Finished") == ("True".to_owned(), "PodSucceeded".to_owned())
        })
        .await;
    let finished = harness.now();
    harness
        .eventually("the claim is gone", |model| {
            model.get("sandboxclaims", "c").is_none()
        })
        .await;
    let lived = harness.now().duration_since(finished);
    assert!(
        lived >= SignedDuration::from_secs(19) && lived <= SignedDuration::from_secs(21),
        "{lived:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_claim_still_expires_on_time() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.model.disturb(|call| {
        (call.verb == "create" && call.resource == "sandboxes")
            .then(|| Mischief::Refuse(403, "Forbidden", "exceeded quota".to_owned()))
    });
    let at = later(&harness, 120);
    let due: Timestamp = at.as_str().unwrap().parse().unwrap();
    harness
        .model
        .create("sandboxclaims", expiring("c", at, "Delete"));
    harness
        .eventually("the fault is reported", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "ReconcilerError"
        })
        .await;
    harness
        .eventually("the claim is gone", |model| {
            model.get("sandboxclaims", "c").is_none()
        })
        .await;
    let late = harness.now().duration_since(due);
    assert!(late < SignedDuration::from_secs(1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_sandbox_is_marked_taken_down_and_can_be_revived() {
    let harness = Harness::start();
    let at = later(&harness, 30);
    let more = json!({"shutdownTime": at, "service": true});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness
        .eventually("pod and Service are gone", |model| {
            model.list("pods").is_empty() && model.list("services").is_empty()
        })
        .await;
    harness.settle().await;
    let expired = harness.model.get("sandboxes", "s").unwrap();
    assert_eq!(said(&expired, "Ready").1, "SandboxExpired");
    assert_eq!(said(&expired, "Suspended").1, "NotSuspended");
    for cleared in ["podIPs", "selector", "nodeName", "service", "serviceFQDN"] {
        assert_eq!(expired["status"][cleared], Value::Null, "{cleared}");
    }
    harness.model.take_writes();
    harness.settle().await;
    assert_eq!(harness.model.take_writes(), []);

    harness
        .model
        .patch("sandboxes", "s", json!({"spec": {"shutdownTime": null}}));
    harness.until_ready("sandboxes", "s").await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_with_policy_delete_goes_altogether() {
    let harness = Harness::start();
    let more = json!({"shutdownTime": later(&harness, 30), "shutdownPolicy": "Delete"});
    harness.model.create("sandboxes", sandbox("s", more));
    harness
        .eventually("everything is gone", |model| {
            model.list("sandboxes").is_empty() && model.list("pods").is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_expires_under_its_claim_is_reported_there() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    let at = later(&harness, 5);
    harness
        .model
        .patch("sandboxes", "c", json!({"spec": {"shutdownTime": at}}));
    harness
        .eventually("the claim says so", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "SandboxExpired"
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_claim_leaves_nothing_behind() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.model.delete("sandboxclaims", "c");
    harness.model.delete("sandboxwarmpools", "p");
    harness.model.delete("sandboxtemplates", "t");
    harness
        .eventually("everything is gone", |model| {
            ["sandboxes", "pods", "services", "networkpolicies"]
                .iter()
                .all(|resource| model.list(resource).is_empty())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_recreated_under_its_name_starts_afresh() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    for _ in 0..3 {
        let uid = harness.model.create("sandboxclaims", claim("c", "p"))["metadata"]["uid"].clone();
        harness.until_ready("sandboxclaims", "c").await;
        let sandbox = harness.model.get("sandboxes", "c").unwrap();
        assert_eq!(sandbox["metadata"]["ownerReferences"][0]["uid"], uid);
        harness.model.delete("sandboxclaims", "c");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_claim_waits_for_the_old_sandbox_of_its_name_to_be_gone() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    let mut old = sandbox("c", json!({}));
    old["metadata"]["finalizers"] = json!(["example.com/hold"]);
    harness.model.create("sandboxes", old);
    harness.model.delete("sandboxes", "c");
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("it says what it waits for", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "SandboxCreatePending"
        })
        .await;
    harness.model.remove("sandboxes", "c");
    harness.until_ready("sandboxclaims", "c").await;
}
