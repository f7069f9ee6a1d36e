//! Several replicas: one acts, another takes over.

use crate::harness::{Harness, claim, is_ready, ready};
use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::LeaderElection;

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
    harness
        .eventually("the second one serves", |model| {
            ready(model, "sandboxclaims", "c")
        })
        .await;
    assert_eq!(holder(&harness), "second");
    assert!(
        stopped.elapsed() < std::time::Duration::from_secs(4),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_and_another_takes_over_without_sharing_anything() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 10).await;
    harness.run(replica("second"));
    harness.settle().await;
    // The first one's calls about the lease fail from now on; its other calls still work.
    harness.model.disturb(|call| {
        (call.resource == "leases" && call.verb == "update")
            .then(|| crate::model::Mischief::Refuse(500, "InternalError", "unreachable".to_owned()))
    });
    for index in 0..5 {
        harness
            .model
            .create("sandboxclaims", claim(&format!("a{index}"), "p"));
    }
    harness
        .eventually("the leader still serves within its lease", |model| {
            model.list("sandboxclaims").iter().all(is_ready)
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    // Nobody can take the lease, so nobody may write.
    harness.model.create("sandboxclaims", claim("late", "p"));
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert!(!ready(&harness.model, "sandboxclaims", "late"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing_when_nothing_has_changed() {
    let mut harness = Harness::new();
    harness.run(replica("first"));
    harness.pool("p", 10).await;
    for index in 0..5 {
        harness
            .model
            .create("sandboxclaims", claim(&format!("c{index}"), "p"));
    }
    harness
        .eventually("all claims are Ready", |model| {
            model.list("sandboxclaims").iter().all(is_ready)
        })
        .await;
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
