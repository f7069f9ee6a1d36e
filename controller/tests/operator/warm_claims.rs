//! Claims that pools serve: what one costs in writes, how it takes its sandbox over, and many at once.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::faults::is_commit;
use crate::harness::{Harness, claim, is_ready, template};
use crate::model::{Call, Mischief};

fn written(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .map(|call| {
            let part = if call.status { "/status" } else { "" };
            format!("{} {}{part}", call.verb, call.resource)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_warm_claim_takes_two_writes_to_be_ready_and_four_in_all() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 2}}));
    harness.settle().await;
    // A pool that is too large by none after the claim, so that no refill mixes in.
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 1}}));
    harness.settle().await;
    harness.model.take_writes();

    harness
        .model
        .create("sandboxtemplates", template("other", json!({})));
    harness.settle().await;
    harness.model.take_writes();
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let mut writes = written(&harness.model.take_writes());
    let after = writes.split_off(2);
    assert_eq!(writes, FOR_ONE_CLAIM[..2], "before it is Ready");
    let refill = [
        "create sandboxes",
        "create pods",
        "patch sandboxes/status",
        "patch sandboxwarmpools/status",
    ];
    let own: Vec<&String> = after
        .iter()
        .filter(|it| !refill.contains(&it.as_str()))
        .collect();
    assert_eq!(own, FOR_ONE_CLAIM[2..], "{after:?}");
}

/// What a claim costs: the record of its pool and its status until it is Ready, then its sandbox's owner
/// and its pod's labels.
const FOR_ONE_CLAIM: [&str; 4] = [
    "patch sandboxwarmpools/status",
    "patch sandboxclaims/status",
    "patch sandboxes",
    "patch pods",
];

/// Every write of one claim's whole life beside a pool that is refilled: two until it is Ready, four
/// with its pod's labels, and nine once pool and garbage collection are through. One more anywhere is
/// one more for every claim there ever is.
#[tokio::test(start_paused = true)]
async fn a_claim_refill_delete_cycle_takes_nine_writes_and_no_other() {
    let harness = Harness::start();
    harness.pool("p", 5).await;
    harness.assert_at_rest().await;
    // The new member takes its time, as pods do, so that the pool's counts fall before they rise.
    harness.model.set_kubelet(false);
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let mut writes = written(&harness.model.take_writes());
    assert_eq!(writes[..4], FOR_ONE_CLAIM);
    let pods = harness.model.list("pods");
    let pending = pods.iter().find(|pod| pod["status"]["phase"] == "Pending");
    harness.model.patch_status(
        "pods",
        pending.unwrap()["metadata"]["name"].as_str().unwrap(),
        json!({
            "phase": "Running", "podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"},
            ],
        }),
    );
    harness.settle().await;
    harness.model.delete("sandboxclaims", "c");
    harness.settle().await;
    assert_eq!(harness.model.list("sandboxes").len(), 5);
    writes.extend(written(&harness.model.take_writes()));
    writes.sort();
    assert_eq!(writes, CYCLE);
    harness.assert_at_rest().await;
}

/// Four for the claim, of which the first also says that fewer members are Ready, four for the member
/// that takes the place of its own (it is told of when it starts and when it is Ready), and one for the
/// pool, in which as many are Ready as before and whose record is empty.
const CYCLE: [&str; 9] = [
    "create pods",
    "create sandboxes",
    "patch pods",
    "patch sandboxclaims/status",
    "patch sandboxes",
    "patch sandboxes/status",
    "patch sandboxes/status",
    "patch sandboxwarmpools/status",
    "patch sandboxwarmpools/status",
];

/// Where a member is Ready at once there is nothing to tell in between.
#[tokio::test(start_paused = true)]
async fn a_cycle_beside_a_pool_that_fills_at_once_takes_eight() {
    let harness = Harness::start();
    harness.pool("p", 5).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    harness.model.delete("sandboxclaims", "c");
    harness.settle().await;
    assert_eq!(harness.model.list("sandboxes").len(), 5);
    let mut writes = written(&harness.model.take_writes());
    writes.sort();
    let mut expected = CYCLE.to_vec();
    expected.remove(5);
    assert_eq!(writes, expected);
    harness.assert_at_rest().await;
}

/// Whether a pool controls a sandbox.
fn is_member(sandbox: &Value) -> bool {
    sandbox["metadata"]["ownerReferences"][0]["kind"] == "SandboxWarmPool"
}

#[tokio::test(start_paused = true)]
async fn many_claims_on_a_smaller_pool_are_all_served_and_nothing_is_left_to_do() {
    const POOL: usize = 90;
    const CLAIMS: usize = 300;
    let harness = Harness::start();
    harness.pool("p", POOL).await;
    harness.claim_many("c", CLAIMS);
    harness.settle().await;
    assert!(harness.model.list("sandboxclaims").iter().all(is_ready));
    let bound: BTreeSet<String> = harness
        .model
        .list("sandboxclaims")
        .iter()
        .map(|claim| claim["status"]["sandbox"]["name"].to_string())
        .collect();
    assert_eq!(bound.len(), CLAIMS, "none is shared");
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(pool["status"]["readyReplicas"], POOL);
    let sandboxes = harness.model.list("sandboxes");
    assert_eq!(sandboxes.len(), CLAIMS + POOL, "none is left over");
    assert_eq!(harness.model.list("pods").len(), CLAIMS + POOL);
    assert_eq!(
        harness.most_sandboxes(is_member),
        POOL,
        "never more than asked for"
    );
    let warm = |sandbox: &&Value| {
        sandbox["metadata"]["ownerReferences"][0]["kind"] == "SandboxClaim"
            && sandbox["metadata"]["labels"]["agents.x-k8s.io/launch-type"] == "warm"
    };
    assert!(sandboxes.iter().filter(warm).count() >= POOL);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn claims_go_before_everything_that_is_done_for_their_pool() {
    let harness = Harness::start();
    harness.pool("p", 30).await;
    harness.model.disturb(|call| {
        let slow = call.resource == "sandboxclaims" || is_commit(call);
        slow.then(|| Mischief::Delay(Duration::from_millis(100)))
    });
    harness.claim_many("c", 20);
    harness.until_claims_ready().await;
    let mut writes = written(&harness.model.take_writes());
    let last = writes
        .iter()
        .rposition(|it| it == "patch sandboxclaims/status");
    writes.truncate(last.unwrap() + 1);
    writes.sort();
    writes.dedup();
    assert_eq!(
        writes,
        [
            "patch sandboxclaims/status",
            "patch sandboxwarmpools/status"
        ]
    );
    harness.full("p", 30).await;
}

#[tokio::test(start_paused = true)]
async fn annotations_hold_no_worker_up() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.claims.annotations = true;
    config.workers.claims = 2;
    harness.run(config);
    harness.pool("p", 20).await;
    let mut long = false;
    harness.model.disturb(move |call| {
        let publishes = call.resource == "sandboxclaims" && call.status;
        publishes.then(|| {
            long = !long;
            Mischief::Delay(Duration::from_millis(if long { 500 } else { 100 }))
        })
    });
    let asked = tokio::time::Instant::now();
    harness.claim_many("c", 20);
    harness.until_claims_ready().await;
    // Ten take half a second and ten a tenth, two at a time. Were a worker to wait for the other one
    // before it goes on, every two would take half a second.
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    harness
        .eventually("all are annotated", |model| {
            let key = "agents.x-k8s.io/claim-first-ready-at";
            let claims = model.list("sandboxclaims");
            claims
                .iter()
                .all(|claim| claim["metadata"]["annotations"][key].is_string())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn adoption_makes_the_claim_owner_and_strips_what_was_the_pools() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let mut object = claim("c", "p");
    object["metadata"]["labels"] = json!({"agents.x-k8s.io/created-by": "python-client"});
    object["spec"]["additionalPodMetadata"] = json!({
        "labels": {"sandbox.users.io/team": "a"},
        "annotations": {"podsnapshot.gke.io/ps-name": "s"},
    });
    let uid = harness.model.create("sandboxclaims", object)["metadata"]["uid"].clone();
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;

    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
    let sandbox = harness.model.get("sandboxes", name).unwrap();
    assert_eq!(sandbox["metadata"]["ownerReferences"][0]["uid"], uid);
    assert_eq!(
        sandbox["metadata"]["ownerReferences"][0]["kind"],
        "SandboxClaim"
    );
    let labels = &sandbox["metadata"]["labels"];
    assert_eq!(labels["agents.x-k8s.io/launch-type"], "warm");
    assert_eq!(labels["agents.x-k8s.io/claim-uid"], uid);
    assert_eq!(labels["agents.x-k8s.io/created-by"], "python-client");
    for gone in [
        "warm-pool-sandbox",
        "sandbox-template-hash",
        "sandbox-pod-template-hash",
    ] {
        assert_eq!(
            labels[format!("agents.x-k8s.io/{gone}")],
            Value::Null,
            "{gone}"
        );
    }
    let pod = harness.model.get("pods", name).unwrap();
    let pod_labels = &pod["metadata"]["labels"];
    assert_eq!(pod_labels["agents.x-k8s.io/claim-uid"], uid);
    assert_eq!(pod_labels["agents.x-k8s.io/warm-pool-sandbox"], Value::Null);
    assert_eq!(pod_labels["sandbox.users.io/team"], "a");
    let marks = &pod["metadata"]["annotations"];
    assert_eq!(marks["podsnapshot.gke.io/ps-name"], "s");
    assert_eq!(
        marks["cluster-autoscaler.kubernetes.io/safe-to-evict"],
        Value::Null
    );

    // An edit of the claim's metadata reaches the sandbox's template and the running pod.
    harness.model.patch(
        "sandboxclaims",
        "c",
        json!({"spec": {"additionalPodMetadata": {"annotations": {"podsnapshot.gke.io/ps-name": null, "x": "y"}}}}),
    );
    harness
        .eventually("the pod's annotations follow", |model| {
            let pod = model.get("pods", name).unwrap();
            let marks = &pod["metadata"]["annotations"];
            marks["podsnapshot.gke.io/ps-name"].is_null() && marks["x"] == "y"
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_gives_every_claim_a_sandbox_of_its_own() {
    let harness = Harness::start();
    harness.pool("p", 100).await;
    harness.claim_many("c", 100);
    harness.until_claims_ready().await;
    let claims = harness.model.list("sandboxclaims");
    let names: BTreeSet<&str> = claims
        .iter()
        .map(|claim| claim["status"]["sandbox"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 100);
    assert!(
        names.iter().all(|name| name.starts_with("p-")),
        "all warm: {names:?}"
    );
    for index in 0..100 {
        harness.model.delete("sandboxclaims", &format!("c{index}"));
    }
    harness.model.delete("sandboxwarmpools", "p");
    harness.settle().await;
    assert!(harness.model.list("sandboxes").is_empty() && harness.model.list("pods").is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_claims_than_members_share_nothing_and_the_rest_start_cold() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    for name in ["a", "b", "c", "d", "e"] {
        harness.model.create("sandboxclaims", claim(name, "p"));
    }
    harness.until_claims_ready().await;
    let names: BTreeSet<String> = harness
        .model
        .list("sandboxclaims")
        .iter()
        .map(|claim| claim["status"]["sandbox"]["name"].to_string())
        .collect();
    assert_eq!(names.len(), 5);
}
