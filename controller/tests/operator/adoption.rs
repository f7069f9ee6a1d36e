//! Which member a claim gets, and what it gets instead when there is none it may have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::faults::{is_commit, is_handover};
use crate::harness::{Harness, claim, condition, is_ready, said, template, warm_pool};
use crate::model::{Mischief, Model};

fn bound(model: &Model, claim: &str) -> String {
    let claim = model.get("sandboxclaims", claim).unwrap();
    let name = claim["status"]["sandbox"]["name"].as_str();
    name.unwrap_or_default().to_owned()
}

fn names(model: &Model, resource: &str) -> BTreeSet<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    model.list(resource).iter().map(name).collect()
}

fn image(model: &Model, sandbox: &str) -> Value {
    let sandbox = model.get("sandboxes", sandbox).unwrap();
    sandbox["spec"]["podTemplate"]["spec"]["containers"][0]["image"].clone()
}

fn new_image() -> Value {
    json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "newer"}]}}}})
}

/// A full pool `p` of template `t` that replaces stale members.
async fn recreating(harness: &Harness, replicas: usize) {
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let mut pool = warm_pool("p", "t", replicas);
    pool["spec"]["updateStrategy"] = json!({"type": "Recreate"});
    harness.model.create("sandboxwarmpools", pool);
    harness.full("p", replicas).await;
}

/// A pod becomes what a kubelet would make of it.
fn start_pod(model: &Model, pod: &str, ip: &str) {
    model.patch_status(
        "pods",
        pod,
        json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }),
    );
}

#[tokio::test(start_paused = true)]
async fn under_recreate_a_stale_member_is_passed_over_and_a_fresh_one_taken() {
    let harness = Harness::start();
    recreating(&harness, 2).await;
    let stale = names(&harness.model, "sandboxes");
    // Replacements stay unready, so the stale ones stay too.
    harness.model.set_kubelet(false);
    harness.model.patch("sandboxtemplates", "t", new_image());
    harness
        .eventually("a replacement is on its way", |model| {
            names(model, "pods").len() > 2
        })
        .await;
    harness.model.create("sandboxclaims", claim("cold", "p"));
    harness
        .eventually("the claim starts cold", |model| {
            bound(model, "cold") == "cold"
        })
        .await;
    assert_eq!(image(&harness.model, "cold"), "newer");
    let fresh = names(&harness.model, "sandboxes")
        .into_iter()
        .find(|name| !stale.contains(name) && name != "cold")
        .unwrap();
    start_pod(&harness.model, &fresh, "10.9.9.9");
    harness.until_ready("sandboxes", &fresh).await;
    harness.model.create("sandboxclaims", claim("warm", "p"));
    harness.until_ready("sandboxclaims", "warm").await;
    assert_eq!(bound(&harness.model, "warm"), fresh);
}

#[tokio::test(start_paused = true)]
async fn under_recreate_a_member_that_means_the_same_is_taken_whatever_its_hash() {
    let harness = Harness::start();
    recreating(&harness, 2).await;
    let mut members = names(&harness.model, "sandboxes").into_iter();
    let (unhashed, rehashed) = (members.next().unwrap(), members.next().unwrap());
    for (name, hash) in [(&unhashed, Value::Null), (&rehashed, json!("00000000"))] {
        let labels =
            json!({"metadata": {"labels": {"agents.x-k8s.io/sandbox-template-hash": hash}}});
        harness.model.patch("sandboxes", name, labels);
    }
    harness.settle().await;
    harness.claim_many("c", 2);
    harness.until_claims_ready().await;
    let taken = BTreeSet::from([bound(&harness.model, "c0"), bound(&harness.model, "c1")]);
    assert_eq!(taken, BTreeSet::from([unhashed, rehashed]));
}

#[tokio::test(start_paused = true)]
async fn on_replenish_a_stale_member_is_handed_out() {
    for strategy in [json!({"type": "OnReplenish"}), Value::Null] {
        let harness = Harness::start();
        harness.pool("p", 1).await;
        let strategy = json!({"spec": {"updateStrategy": strategy}});
        harness.model.patch("sandboxwarmpools", "p", strategy);
        harness.model.patch("sandboxtemplates", "t", new_image());
        harness.settle().await;
        harness.model.create("sandboxclaims", claim("c", "p"));
        harness.until_ready("sandboxclaims", "c").await;
        assert_eq!(image(&harness.model, &bound(&harness.model, "c")), "python");
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_be_read_costs_no_member_and_one_found_late_is_used_at_once() {
    let harness = Harness::start();
    recreating(&harness, 2).await;
    let members = names(&harness.model, "sandboxes");
    // The template is made anew, and its watch has not told.
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    harness.model.hold_watches_of("sandboxtemplates");
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let broken = Arc::new(AtomicBool::new(true));
    let failing = broken.clone();
    harness.model.disturb(move |call| {
        let reads = call.verb == "get" && call.resource == "sandboxtemplates";
        (reads && failing.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(500, "InternalError", "no".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the fault is told", |model| {
            said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1 == "ReconcilerError"
        })
        .await;
    assert_eq!(
        names(&harness.model, "sandboxes"),
        members,
        "nothing was lost or made"
    );
    broken.store(false, Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "c").await;
    assert!(
        members.contains(&bound(&harness.model, "c")),
        "warm, although the template was found only after the members had been looked at"
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_keeps_the_metadata_of_the_template_it_was_made_from() {
    let harness = Harness::start();
    let labelled = |name: &str, value: &str| {
        let mut object = template(name, json!({}));
        object["spec"]["podTemplate"]["metadata"] = json!({"labels": {"made-from": value}});
        object
    };
    harness.model.create("sandboxtemplates", labelled("t", "t"));
    harness.model.create("sandboxtemplates", labelled("u", "u"));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 1));
    harness.full("p", 1).await;
    let member = names(&harness.model, "sandboxes").pop_first().unwrap();
    let other = json!({"spec": {"sandboxTemplateRef": {"name": "u"}}});
    harness.model.patch("sandboxwarmpools", "p", other);
    harness.settle().await;
    harness.model.take_writes();
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    assert_eq!(bound(&harness.model, "c"), member);
    let patches = harness
        .model
        .take_writes()
        .into_iter()
        .filter(|call| is_handover(call) && call.name == member)
        .count();
    assert_eq!(patches, 1, "the binding, and nothing to correct after it");
    let pod = harness.model.get("pods", &member).unwrap();
    assert_eq!(pod["metadata"]["labels"]["made-from"], "t");
}

#[tokio::test(start_paused = true)]
async fn a_bound_sandbox_without_addresses_is_kept() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let name = bound(&harness.model, "c");
    harness.model.patch_status(
        "pods",
        &name,
        json!({"podIP": null, "podIPs": null, "conditions": [{"type": "Ready", "status": "False"}]}),
    );
    harness
        .eventually("the claim is not Ready", |model| {
            !is_ready(&model.get("sandboxclaims", "c").unwrap())
        })
        .await;
    harness.settle().await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(claim["status"]["sandbox"], json!({"name": name}));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_sandbox_was_deleted_takes_another() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let first = bound(&harness.model, "c");
    harness.model.delete("sandboxes", &first);
    harness
        .eventually("it has another one", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            is_ready(&claim) && bound(model, "c") != first
        })
        .await;
    assert!(bound(&harness.model, "c").starts_with("p-"), "a warm one");
    assert_eq!(
        harness.count("agent_sandbox_claim_ready_seconds_count", &[]),
        1
    );
    harness.full("p", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_the_server_already_shows_is_not_sent_again() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    harness.model.disturb(move |call| {
        is_handover(call).then(|| {
            counter.fetch_add(1, Ordering::SeqCst);
            Mischief::LoseAnswer
        })
    });
    harness.claim_many("c", 3);
    harness.until_claims_ready().await;
    harness.settle().await;
    assert_eq!(sent.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_pool_is_written_by_others_all_the_time_says_so_and_goes_on() {
    let harness = Harness::start();
    harness.pool("p", 8).await;
    let broken = Arc::new(AtomicBool::new(true));
    let failing = broken.clone();
    harness.model.disturb(move |call| {
        let hit = is_commit(call) && failing.load(Ordering::SeqCst);
        hit.then(|| Mischief::Refuse(409, "Conflict", "changed".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("it says so", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            let message = condition(&claim, "Ready").map(|it| it["message"].to_string());
            message.is_some_and(|it| it.contains("written by others all the time"))
        })
        .await;
    broken.store(false, Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "c").await;
    assert!(bound(&harness.model, "c").starts_with("p-"));
    harness.settle().await;
    assert_eq!(names(&harness.model, "sandboxes").len(), 9);
}

#[tokio::test(start_paused = true)]
async fn claims_that_wait_at_a_restart_get_the_oldest_members() {
    let mut harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    // One at a time, so that their ages differ.
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 1));
    let mut by_age = Vec::new();
    for replicas in 1..=6 {
        let size = json!({"spec": {"replicas": replicas}});
        harness.model.patch("sandboxwarmpools", "p", size);
        harness.full("p", replicas).await;
        let all = names(&harness.model, "sandboxes");
        by_age.extend(
            all.into_iter()
                .filter(|name| !by_age.contains(name))
                .collect::<Vec<_>>(),
        );
        harness.pass(Duration::from_secs(2)).await;
    }
    harness.stop().await;
    // On one node, where age alone decides.
    for pod in names(&harness.model, "pods") {
        harness
            .model
            .patch("pods", &pod, json!({"spec": {"nodeName": "node-0"}}));
        harness
            .model
            .patch_status("sandboxes", &pod, json!({"nodeName": "node-0"}));
    }
    harness.claim_many("c", 3);
    harness.run(Config::default());
    harness.until_claims_ready().await;
    let taken: BTreeSet<String> = (0..3)
        .map(|n| bound(&harness.model, &format!("c{n}")))
        .collect();
    let oldest: BTreeSet<String> = by_age.iter().take(3).cloned().collect();
    assert_eq!(taken, oldest);
}

#[tokio::test(start_paused = true)]
async fn a_claim_deleted_behind_a_silent_watch_gets_no_sandbox() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.settle().await;
    harness.model.take_writes();
    // The claim is deleted as soon as anybody reads it, and no watch tells.
    let model = harness.model.clone();
    let mut deleted = false;
    harness.model.disturb(move |call| {
        let reads = call.verb == "get" && call.resource == "sandboxclaims";
        (reads && !std::mem::replace(&mut deleted, true))
            .then(|| Mischief::Refuse(404, "NotFound", "gone".to_owned()))
    });
    model.create("sandboxclaims", claim("c", "p"));
    harness.settle().await;
    assert_eq!(names(&harness.model, "sandboxes"), BTreeSet::new());
    assert_eq!(
        harness.model.take_writes(),
        [],
        "nothing is made for a claim that is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_binding_may_have_landed_is_kept_for_its_claim() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let member = names(&harness.model, "sandboxes").pop_first().unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let failing = broken.clone();
    // The binding is not answered, and nobody can be asked what became of it.
    harness.model.disturb(move |call| {
        let asks = call.verb == "get" && call.resource == "sandboxwarmpools";
        ((is_commit(call) || asks) && failing.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(500, "InternalError", "no".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("first", "p"));
    harness
        .eventually("it says what fails", |model| {
            said(&model.get("sandboxclaims", "first").unwrap(), "Ready").1 == "ReconcilerError"
        })
        .await;
    // Another one comes, and would take any member that is free.
    harness.model.create("sandboxclaims", claim("second", "p"));
    harness.until_ready("sandboxclaims", "second").await;
    assert_ne!(bound(&harness.model, "second"), member);
    broken.store(false, Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "first").await;
    assert_eq!(bound(&harness.model, "first"), member);
}
