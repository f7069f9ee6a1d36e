//! Several replicas: one acts, another takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::LeaderElection;

use serde_json::json;

use crate::faults::{assert_nothing_is_shared, is_told};
use crate::harness::{Harness, claim, is_ready, ready, template, warm_pool};
use crate::model::{Link, Mischief};

fn replica(identity: &str) -> Config {
    Config {
        leader_election: Some(LeaderElection::new("n", identity)),
        ..Config::default()
    }
}

fn holder(harness: &Harness) -> String {
    let lease = harness
        .model
        .get("leases", "a3317529.agent-sandbox.x-k8s.io");
    lease
        .and_then(|lease| {
            lease["spec"]["holderIdentity"]
                .as_str()
                .map(ToOwned::to_owned)
        })
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_handed_over_at_once_on_a_graceful_stop() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 2).await;
    harness.run(replica("second"));
    harness.settle().await;
    assert_eq!(holder(&harness), "first");
    harness.model.take_writes();
    let stopped = tokio::time::Instant::now();
    harness.stop().await;
    assert_eq!(holder(&harness), "", "given back");
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    assert_eq!(holder(&harness), "second");
    assert!(
        stopped.elapsed() < Duration::from_secs(4),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_writing_until_somebody_holds_the_lease() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 10).await;
    harness.run(replica("second"));
    harness.settle().await;
    // Calls about the lease fail from now on; all others still work.
    let unreachable = Arc::new(AtomicBool::new(true));
    let failing = unreachable.clone();
    harness.model.disturb(move |call| {
        let hit = call.resource == "leases" && call.verb == "patch";
        (hit && failing.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(500, "InternalError", "unreachable".to_owned()))
    });
    // The leader still serves within its lease.
    harness.claim_many("a", 5);
    harness.until_claims_ready().await;
    harness.pass(Duration::from_secs(30)).await;
    // Nobody can take the lease, so nobody may write.
    harness.model.take_writes();
    harness.model.create("sandboxclaims", claim("late", "p"));
    harness.pass(Duration::from_secs(30)).await;
    assert_eq!(harness.model.take_writes(), []);
    assert!(!ready(&harness.model, "sandboxclaims", "late"));
    unreachable.store(false, Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "late").await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing_when_nothing_has_changed() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 10).await;
    harness.claim_many("c", 5);
    harness.until_claims_ready().await;
    harness.full("p", 10).await;
    harness.stop().await;
    harness.model.take_writes();
    harness.run(replica("second"));
    harness.settle().await;
    harness.settle().await;
    let writes = harness.model.take_writes();
    let others: Vec<_> = writes
        .iter()
        .filter(|call| call.resource != "leases")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(holder(&harness), "second");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_asks_what_the_last_one_did_before_it_acts() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.run(replica("second"));
    harness.settle().await;
    // Whoever makes sandboxes knows them without being told.
    harness.model.hold_watches_of("sandboxes");
    harness.pool("p", 3).await;
    harness.stop().await;
    harness
        .eventually("the second one leads", |_| holder(&harness) == "second")
        .await;
    harness.settle().await;
    assert_eq!(harness.most_sandboxes(|_| true), 3, "nothing is made twice");
}

/// Lease time, two pauses of a standby before and after, and a moment for the call.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Invariants after a change of leaders in the middle of a burst.
async fn assert_burst_is_served(harness: &Harness, claims: usize) {
    harness.until_claims_ready().await;
    harness.settle().await;
    assert_eq!(harness.model.list("sandboxclaims").len(), claims);
    assert_nothing_is_shared(harness);
}

#[tokio::test(start_paused = true)]
async fn a_leader_killed_in_a_burst_is_replaced_within_the_lease_time() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 20).await;
    harness.run(replica("second"));
    harness.settle().await;
    let life = harness.first().life.clone();
    let mut told = 0;
    harness.model.disturb(move |call| {
        told += usize::from(is_told(call));
        if told == 5 {
            life.abort();
        }
        None
    });
    harness.claim_many("c", 30);
    harness.pass(Duration::from_secs(1)).await;
    let bound = harness.model.list("sandboxclaims");
    assert!(!bound.iter().all(is_ready), "it was killed in the middle");
    let killed = tokio::time::Instant::now();
    harness
        .eventually("the second one leads", |_| holder(&harness) == "second")
        .await;
    assert!(killed.elapsed() < TAKE_OVER, "{:?}", killed.elapsed());
    assert_burst_is_served(&harness, 30).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_paused_leader_had_sent_does_no_harm_when_it_arrives_late() {
    let mut harness = Harness::new();
    let link = Link::new();
    let client = harness.model.client_through(&link);
    harness.run_with(client, replica("first"), |builder| builder);
    harness.pool("p", 20).await;
    harness.run(replica("second"));
    harness.settle().await;
    let (pause, mut told) = (link.clone(), 0);
    harness.model.disturb(move |call| {
        told += usize::from(is_told(call));
        if told == 5 {
            pause.hold();
        }
        None
    });
    harness.claim_many("c", 30);
    harness.pass(Duration::from_secs(1)).await;
    assert!(link.held() > 5, "calls are on the way");
    let paused = tokio::time::Instant::now();
    harness
        .eventually("the second one leads", |_| holder(&harness) == "second")
        .await;
    assert!(paused.elapsed() < TAKE_OVER, "{:?}", paused.elapsed());
    assert_burst_is_served(&harness, 30).await;
    harness.full("p", 20).await;
    // Now everything that was on the way arrives, and all answers come back. A member that was being
    // created becomes one too many, and goes again; nobody gets a second pod.
    link.release();
    harness.settle().await;
    assert_burst_is_served(&harness, 30).await;
    // What was made for a sandbox that is gone is garbage collection's; the others have one pod each.
    let sandboxes = harness.model.list("sandboxes");
    let owners: Vec<_> = sandboxes.iter().map(|it| &it["metadata"]["uid"]).collect();
    let mut pods = harness.model.list("pods");
    pods.retain(|pod| owners.contains(&&pod["metadata"]["ownerReferences"][0]["uid"]));
    assert_eq!((sandboxes.len(), pods.len()), (50, 50));
    assert!(
        harness.ended().await.is_err(),
        "the first one has lost its lease"
    );
    assert_eq!(holder(&harness), "second");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_over_when_it_runs_out_and_not_when_calls_do() {
    let mut harness = Harness::new();
    let link = Link::new();
    let client = harness.model.client_through(&link);
    harness.run_with(client, replica("first"), |builder| builder);
    harness.settle().await;
    link.hold();
    harness.pass(Duration::from_secs(7)).await;
    let leads = "leader_election_master_status";
    assert!(harness.metric(leads, &[]) > 0.5, "it may still come back");
    harness.pass(Duration::from_secs(4)).await;
    assert!(harness.metric(leads, &[]) < 0.5);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_held_while_the_first_lists_take_their_time() {
    let mut harness = Harness::new();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let unlisted = Arc::new(AtomicBool::new(true));
    let on = unlisted.clone();
    harness.model.disturb(move |call| {
        let hit = call.verb == "list" && call.resource == "pods" && on.load(Ordering::SeqCst);
        hit.then(|| Mischief::Refuse(500, "InternalError", "not yet".to_owned()))
    });
    harness.run(replica("first"));
    harness.settle().await;
    harness.run(replica("second"));
    for _ in 0..12 {
        harness.pass(Duration::from_secs(10)).await;
        assert_eq!(holder(&harness), "first");
    }
    unlisted.store(false, Ordering::SeqCst);
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 1));
    harness.full("p", 1).await;
    assert_eq!(holder(&harness), "first");
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_on_the_lease_stays() {
    const LEASE: &str = "a3317529.agent-sandbox.x-k8s.io";
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.settle().await;
    let marks = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {"strategy": "OldestEmulationVersion"},
    });
    harness.model.patch("leases", LEASE, marks.clone());
    harness.run(replica("second"));
    harness.settle().await;
    harness.stop().await;
    harness.settle().await;
    let lease = harness.model.get("leases", LEASE).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "second");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    assert_eq!(lease["metadata"]["labels"], marks["metadata"]["labels"]);
    assert_eq!(
        lease["metadata"]["annotations"],
        marks["metadata"]["annotations"]
    );
    assert_eq!(lease["spec"]["strategy"], "OldestEmulationVersion");
}
