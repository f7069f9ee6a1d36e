//! Faults: conflicts, lost answers, lagging watches, crashes between writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Harness, claim, is_ready, ready, warm_pool};
use crate::model::{Call, Mischief};

/// Does `mischief` to every `n`th call that `matches`.
fn every(
    n: usize,
    matches: impl Fn(&Call) -> bool + Send + 'static,
    mischief: Mischief,
) -> impl FnMut(&Call) -> Option<Mischief> + Send {
    let seen = AtomicUsize::new(0);
    move |call| {
        let hit = matches(call) && seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(n);
        hit.then(|| mischief.clone())
    }
}

fn conflict() -> Mischief {
    Mischief::Refuse(409, "Conflict", "the object has been modified".to_owned())
}

/// Whether a call commits bindings: it writes a pool's record.
pub(crate) fn is_commit(call: &Call) -> bool {
    call.verb == "patch" && call.resource == "sandboxwarmpools" && call.status
}

/// Whether a call tells a claim of its sandbox.
pub(crate) fn is_told(call: &Call) -> bool {
    call.verb == "patch" && call.resource == "sandboxclaims" && call.status
}

/// Whether a call brings a sandbox in line with its claim.
pub(crate) fn is_handover(call: &Call) -> bool {
    call.verb == "patch" && call.resource == "sandboxes" && !call.status
}

async fn burst(harness: &Harness, claims: usize) {
    harness.claim_many("c", claims);
    harness.until_claims_ready().await;
    harness.settle().await;
}

/// Every claim has exactly one sandbox, no sandbox has two claims, every sandbox has one pod.
pub(crate) fn assert_nothing_is_shared(harness: &Harness) {
    let claims = harness.model.list("sandboxclaims");
    let names: BTreeSet<String> = claims
        .iter()
        .map(|claim| claim["status"]["sandbox"]["name"].to_string())
        .collect();
    assert_eq!(names.len(), claims.len(), "{names:?}");
    for claim in &claims {
        let uid = &claim["metadata"]["uid"];
        let owned = harness
            .model
            .list("sandboxes")
            .into_iter()
            .filter(|it| it["metadata"]["ownerReferences"][0]["uid"] == *uid)
            .count();
        assert_eq!(owned, 1, "{}", claim["metadata"]["name"]);
    }
    for sandbox in harness.model.list("sandboxes") {
        let uid = &sandbox["metadata"]["uid"];
        let pods = harness
            .model
            .list("pods")
            .into_iter()
            .filter(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == *uid)
            .count();
        assert_eq!(pods, 1, "{}", sandbox["metadata"]["name"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_won_on_another_member_in_the_same_pass() {
    let harness = Harness::start();
    harness.pool("p", 10).await;
    harness.model.disturb(every(2, is_commit, conflict()));
    harness.model.disturb(every(2, is_handover, conflict()));
    let asked = Instant::now();
    harness.claim_many("c", 10);
    harness.until_claims_ready().await;
    // Calls take no time here, and a pass that is put off takes milliseconds.
    assert_eq!(asked.elapsed(), Duration::ZERO);
    harness.settle().await;
    assert_nothing_is_shared(&harness);
    for claim in harness.model.list("sandboxclaims") {
        assert!(
            claim["status"]["sandbox"]["name"]
                .as_str()
                .unwrap()
                .starts_with("p-"),
            "{claim}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_whose_answer_is_lost_is_not_made_twice() {
    let harness = Harness::start();
    harness.pool("p", 10).await;
    harness
        .model
        .disturb(every(1, is_commit, Mischief::LoseAnswer));
    harness
        .model
        .disturb(every(1, is_handover, Mischief::LoseAnswer));
    burst(&harness, 5).await;
    assert_nothing_is_shared(&harness);
    assert_eq!(harness.model.list("sandboxes").len(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_may_still_land_is_tried_again_although_another_pool_is_better_by_now() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness
        .model
        .create("sandboxwarmpools", warm_pool("q", "t", 1));
    harness.settle().await;
    // Nobody waits that long, and nobody can know that it never arrives.
    let lost = Mischief::Delay(Duration::from_mins(10));
    let binds = |call: &Call| is_commit(call) && call.name == "p";
    harness.model.disturb(every(usize::MAX, binds, lost));
    let mut wanted = claim("c", "p");
    wanted["spec"] = json!({"sandboxTemplateRef": {"name": "t"}});
    harness.model.create("sandboxclaims", wanted);
    // It makes way for the claim, and has grown all the same before the call is given up.
    harness
        .model
        .patch("sandboxwarmpools", "q", json!({"spec": {"replicas": 5}}));
    harness.until_ready("sandboxclaims", "c").await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
    assert!(name.starts_with("p-"), "{name}");
    harness.settle().await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_gone_is_brought_in_line_once() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    burst(&harness, 1).await;
    let claims = harness.model.list("sandboxclaims");
    let name = &claims[0]["status"]["sandbox"]["name"];
    let gone = name.as_str().unwrap().to_owned();
    harness.model.hold_watches_of("sandboxes");
    harness.model.remove("sandboxes", &gone);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    harness.model.disturb(move |call| {
        if is_handover(call) && call.name == gone {
            count.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let more = json!({"spec": {"additionalPodMetadata": {"annotations": {"note": "1"}}}});
    harness.model.patch("sandboxclaims", "c0", more);
    harness.settle().await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn creations_whose_answers_are_lost_are_not_repeated() {
    let harness = Harness::start();
    harness
        .model
        .disturb(every(3, |call| call.verb == "create", Mischief::LoseAnswer));
    harness.pool("p", 7).await;
    assert_eq!(harness.model.list("sandboxes").len(), 7);
    assert_eq!(harness.model.list("pods").len(), 7);
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 0}}));
    harness.settle().await;
    burst(&harness, 6).await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_given_time_and_everything_ends_well() {
    let harness = Harness::start();
    let busy = Mischief::Refuse(429, "TooManyRequests", "slow down".to_owned());
    harness
        .model
        .disturb(every(3, |call| call.verb != "list", busy));
    harness.pool("p", 5).await;
    burst(&harness, 8).await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn silent_watches_delay_news_but_break_nothing() {
    let harness = Harness::start();
    harness.pool("p", 4).await;
    harness.claim_many("c", 4);
    harness
        .eventually("one claim is Ready", |model| {
            model.list("sandboxclaims").iter().any(is_ready)
        })
        .await;
    harness.model.hold_watches(true);
    harness.pass(Duration::from_secs(20)).await;
    harness.model.hold_watches(false);
    harness.until_claims_ready().await;
    harness.full("p", 4).await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_binding_and_status_loses_nothing() {
    let mut harness = Harness::new();
    harness.run(Config::default());
    harness.pool("p", 3).await;
    // The status write fails until the operator has been replaced.
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let failing = broken.clone();
    harness.model.disturb(move |call| {
        let hit = call.resource == "sandboxclaims" && call.status && failing.load(Ordering::SeqCst);
        hit.then(|| Mischief::Refuse(500, "InternalError", "crash".to_owned()))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the member is given away", |model| {
            let pool = model.get("sandboxwarmpools", "p").unwrap();
            pool["status"]["allocations"][0].is_string()
        })
        .await;
    harness.stop().await;
    broken.store(false, Ordering::SeqCst);
    harness.run(Config::default());
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn a_second_sandbox_left_by_a_crash_is_collected() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    let mut second = harness.model.get("sandboxes", "c").unwrap();
    second["metadata"]["name"] = json!("left-over");
    harness.model.create("sandboxes", second);
    harness
        .eventually("it is gone", |model| {
            model.get("sandboxes", "left-over").is_none()
        })
        .await;
    assert!(ready(&harness.model, "sandboxclaims", "c"));
}

#[tokio::test(start_paused = true)]
async fn claims_and_a_shrinking_pool_do_not_get_in_each_others_way() {
    let harness = Harness::start();
    harness.pool("p", 6).await;
    harness.claim_many("c", 3);
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 0}}));
    harness.until_claims_ready().await;
    harness.settle().await;
    assert_nothing_is_shared(&harness);
    assert!(harness.model.list("sandboxclaims").iter().all(is_ready));
}

#[tokio::test(start_paused = true)]
async fn a_member_claimed_a_moment_ago_is_not_deleted_with_the_excess() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    // Another replica, leader until just now, binds each member before the deletion arrives.
    let owner = json!([{
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim", "name": "c",
        "uid": "00000000-0000-4000-8000-00000000c1a1", "controller": true, "blockOwnerDeletion": true,
    }]);
    harness.model.disturb(move |call| {
        (call.verb == "delete" && call.resource == "sandboxes").then(|| {
            let bound = json!({"metadata": {
                "labels": {"agents.x-k8s.io/warm-pool-sandbox": null},
                "ownerReferences": owner,
            }});
            Mischief::Precede("sandboxes", call.name.clone(), bound)
        })
    });
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 0}}));
    harness.settle().await;
    harness.model.release_watches();
    harness.settle().await;
    let sandboxes = harness.model.list("sandboxes");
    assert_eq!(sandboxes.len(), 3);
    for sandbox in sandboxes {
        let owner = &sandbox["metadata"]["ownerReferences"][0];
        assert_eq!(owner["kind"], "SandboxClaim", "{sandbox}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_do_not_last_are_not_renewed_in_a_loop() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    let before = harness.model.watches();
    harness.model.cut_watches(true);
    harness.pass(Duration::from_secs(60)).await;
    let renewed = harness.model.watches() - before;
    // Nine kinds, each renewed after a tenth of a second, then after twice as long, and so on.
    assert!((9..=120).contains(&renewed), "{renewed} in a minute");
    harness.model.cut_watches(false);
    let scale = json!({"spec": {"replicas": 3}});
    harness.model.patch("sandboxwarmpools", "p", scale);
    harness.full("p", 3).await;
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_never_answered_are_asked_for_again() {
    let mut harness = Harness::new();
    harness.model.mute_watches(true);
    harness.run(Config::default());
    harness.settle().await;
    harness.model.mute_watches(false);
    harness.pool("p", 1).await;
}
