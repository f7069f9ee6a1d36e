//! Several replicas: one acts, another takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::LeaderElection;

use crate::harness::{Harness, claim, ready};
use crate::model::Mischief;

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
        let hit = call.resource == "leases" && call.verb == "update";
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
