//! Claims: warm, cold, rejected, contended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, claim, condition, is_ready, ready, said, template, warm_pool};
use crate::model::{Call, Mischief, Model};

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
async fn a_warm_claim_takes_two_writes_to_be_ready_and_three_in_all() {
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
    let before_ready = written(&harness.model.take_writes());
    assert_eq!(
        before_ready,
        ["patch sandboxes", "patch sandboxclaims/status"]
    );

    harness.settle().await;
    let after = written(&harness.model.take_writes());
    let refill = ["create sandboxes", "create pods", "patch sandboxes/status"];
    let own: Vec<&String> = after
        .iter()
        .filter(|it| !refill.contains(&it.as_str()))
        .collect();
    assert_eq!(own, ["patch pods"], "{after:?}");
}

/// Every write of one claim's whole life beside a pool that is refilled: two until it is Ready, three
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
    let mut writes = written(&harness.model.take_writes());
    assert_eq!(writes, ["patch sandboxes", "patch sandboxclaims/status"]);
    harness.settle().await;
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

/// Three for the claim, four for the member that takes the place of its own (it is told of when it
/// starts and when it is Ready), and two for the pool, whose counts fall and rise again.
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
async fn a_cycle_beside_a_pool_that_fills_at_once_takes_six() {
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
    let mut expected = CYCLE[..7].to_vec();
    expected.dedup();
    assert_eq!(writes, expected);
    harness.assert_at_rest().await;
}

/// Sandboxes that the pool controls, counted at every change there ever was.
fn most_members(model: &Model) -> usize {
    let owned = |object: &Option<Arc<Value>>| {
        object.as_ref().is_some_and(|object| {
            object["metadata"]["ownerReferences"][0]["kind"] == "SandboxWarmPool"
        })
    };
    let mut members = 0_usize;
    let mut most = 0;
    for (old, new) in model.history("sandboxes") {
        members = members + usize::from(owned(&new)) - usize::from(owned(&old));
        most = most.max(members);
    }
    most
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
        most_members(&harness.model),
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
        let binds = call.verb == "patch" && call.resource == "sandboxes" && !call.status;
        binds.then(|| Mischief::Delay(Duration::from_millis(300)))
    });
    harness.claim_many("c", 20);
    harness.until_claims_ready().await;
    let mut writes = written(&harness.model.take_writes());
    writes.sort();
    writes.dedup();
    assert_eq!(writes, ["patch sandboxclaims/status", "patch sandboxes"]);
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
        let binds = call.verb == "patch" && call.resource == "sandboxes" && !call.status;
        binds.then(|| {
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
async fn name_addresses_and_ready_appear_in_one_write() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the claim has a status", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            let named = claim["status"]["sandbox"]["name"].is_string();
            let addressed = claim["status"]["sandbox"]["podIPs"][0].is_string();
            assert_eq!(
                (named, addressed),
                (is_ready(&claim), is_ready(&claim)),
                "{claim}"
            );
            named
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

#[tokio::test(start_paused = true)]
async fn an_empty_pool_means_a_cold_sandbox_named_after_the_claim() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    let sandbox = harness.model.get("sandboxes", "c").unwrap();
    assert_eq!(
        sandbox["metadata"]["labels"]["agents.x-k8s.io/launch-type"],
        "cold"
    );
    let spec = &sandbox["spec"]["podTemplate"]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["dnsPolicy"], "None");
    let pod = harness.model.get("pods", "c").unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], "python");
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(claim["status"]["sandbox"]["name"], "c");
}

#[tokio::test(start_paused = true)]
async fn a_missing_pool_or_template_is_reported_and_healed_by_its_creation() {
    let harness = Harness::start();
    harness.model.create("sandboxclaims", claim("c", "p"));
    let reason = |model: &Model| said(&model.get("sandboxclaims", "c").unwrap(), "Ready").1;
    harness
        .eventually("WarmPoolNotFound", |model| {
            reason(model) == "WarmPoolNotFound"
        })
        .await;
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 0));
    harness
        .eventually("TemplateNotFound", |model| {
            reason(model) == "TemplateNotFound"
        })
        .await;
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    harness
        .eventually("the pool says so too", |model| {
            let pool = model.get("sandboxwarmpools", "p").unwrap();
            said(&pool, "Progressing").1 == "SandboxTemplateError"
        })
        .await;
    drop(pool);
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness.until_ready("sandboxclaims", "c").await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_the_watch_has_not_delivered_yet_is_not_reported_missing() {
    let harness = Harness::start();
    harness.settle().await;
    harness.model.hold_watches_of("sandboxwarmpools");
    harness.model.hold_watches_of("sandboxtemplates");
    harness.declare_pool("p", 0);
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the claim is Ready", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            assert_ne!(said(&claim, "Ready").1, "WarmPoolNotFound");
            assert_ne!(said(&claim, "Ready").1, "TemplateNotFound");
            is_ready(&claim)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn user_mistakes_end_in_a_stable_reason_without_retries() {
    let harness = Harness::start();
    let policy = json!({"envVarsInjectionPolicy": "Allowed"});
    harness
        .model
        .create("sandboxtemplates", template("open", policy));
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("open", "open", 0));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 0));
    harness
        .model
        .create("sandboxes", crate::harness::sandbox("taken", json!({})));
    harness.settle().await;
    let cases = [
        (
            "bad-label",
            "p",
            json!({"additionalPodMetadata": {"labels": {"team": "a"}}}),
            "InvalidMetadata",
        ),
        (
            "bad-annotation",
            "p",
            json!({"additionalPodMetadata": {"annotations": {"agents.x-k8s.io/a": "b"}}}),
            "InvalidMetadata",
        ),
        (
            "env",
            "p",
            json!({"env": [{"name": "A", "value": "1"}]}),
            "EnvVarsInjectionRejected",
        ),
        (
            "container",
            "open",
            json!({"env": [{"name": "A", "value": "1", "containerName": "nope"}]}),
            "EnvVarsInjectionRejected",
        ),
        (
            "volumes",
            "p",
            json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}),
            "VolumeClaimTemplatesError",
        ),
        ("taken", "p", json!({}), "InvalidConfiguration"),
    ];
    for (name, pool, more, _) in &cases {
        let mut object = claim(name, pool);
        for (key, value) in more.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        harness.model.create("sandboxclaims", object);
    }
    for (name, _, _, reason) in &cases {
        harness
            .eventually(name, |model| {
                said(&model.get("sandboxclaims", name).unwrap(), "Ready").1 == *reason
            })
            .await;
        let claim = harness.model.get("sandboxclaims", name).unwrap();
        let message = condition(&claim, "Ready").unwrap()["message"]
            .as_str()
            .unwrap();
        assert!(message.len() > 20, "{name}: {message}");
    }
    harness.assert_at_rest().await;
    // The name becomes free, and the claim goes on without anybody touching it.
    harness.model.delete("sandboxes", "taken");
    harness.until_ready("sandboxclaims", "taken").await;
}

#[tokio::test(start_paused = true)]
async fn env_and_volumes_force_a_cold_start_and_arrive() {
    let harness = Harness::start();
    harness.model.create(
        "sandboxtemplates",
        template(
            "t",
            json!({"envVarsInjectionPolicy": "Allowed", "volumeClaimTemplatesPolicy": "Allowed"}),
        ),
    );
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 1));
    harness.full("p", 1).await;
    let mut object = claim("c", "p");
    object["spec"]["env"] = json!([{"name": "A", "value": "1"}]);
    object["spec"]["volumeClaimTemplates"] =
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    harness.model.create("sandboxclaims", object);
    harness.until_ready("sandboxclaims", "c").await;
    let pod = harness.model.get("pods", "c").unwrap();
    assert_eq!(
        pod["spec"]["containers"][0]["env"],
        json!([{"name": "A", "value": "1"}])
    );
    assert_eq!(
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "data-c"
    );
    assert!(
        harness
            .model
            .get("persistentvolumeclaims", "data-c")
            .is_some()
    );
    assert_eq!(
        harness.model.list("sandboxes").len(),
        2,
        "the pool's member was left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn claims_may_name_a_template_and_how_warm_they_want_to_be() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    let direct = |name: &str, warmpool: Value| {
        json!({
            "metadata": {"name": name},
            "spec": {"sandboxTemplateRef": {"name": "t"}, "warmpool": warmpool},
        })
    };
    harness
        .model
        .create("sandboxclaims", direct("any", json!("default")));
    harness
        .model
        .create("sandboxclaims", direct("cold", json!("none")));
    harness
        .model
        .create("sandboxclaims", direct("named", json!("p")));
    harness.until_claims_ready().await;
    let bound = |name: &str| {
        harness.model.get("sandboxclaims", name).unwrap()["status"]["sandbox"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(bound("any").starts_with("p-") && bound("named").starts_with("p-"));
    assert_eq!(bound("cold"), "cold");
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_briefly_for_a_member_that_is_about_to_have_an_address() {
    let harness = Harness::start();
    harness.model.set_kubelet(false);
    harness.declare_pool("p", 1);
    harness
        .eventually("the member has a pod", |model| {
            model.list("pods").len() == 1
        })
        .await;
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.pass(Duration::from_millis(800)).await;
    let pod = harness.model.list("pods")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        harness.model.get("sandboxclaims", "c").unwrap()["status"],
        Value::Null
    );
    harness.model.patch_status(
        "pods",
        &pod,
        json!({"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}], "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    harness.until_ready("sandboxclaims", "c").await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    assert_eq!(claim["status"]["sandbox"]["name"], json!(pod));
}

#[tokio::test(start_paused = true)]
async fn an_empty_handed_claim_starts_cold_when_the_grace_is_over() {
    let harness = Harness::start();
    harness.model.set_kubelet(false);
    harness.declare_pool("p", 1);
    harness
        .eventually("the member has a pod", |model| {
            model.list("pods").len() == 1
        })
        .await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("a cold sandbox", |model| {
            model.get("sandboxes", "c").is_some()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_pool_of_a_bound_claim_can_change_or_go_without_touching_its_sandbox() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create(
        "sandboxtemplates",
        template("lax", json!({"networkPolicyManagement": "Unmanaged"})),
    );
    harness
        .model
        .create("sandboxwarmpools", warm_pool("q", "lax", 0));
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let name = harness.model.get("sandboxclaims", "c").unwrap()["status"]["sandbox"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = harness.model.get("sandboxes", &name).unwrap()["spec"].clone();
    harness.model.patch(
        "sandboxclaims",
        "c",
        json!({"spec": {"warmPoolRef": {"name": "q"}}}),
    );
    harness.model.delete("sandboxwarmpools", "p");
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    assert_eq!(
        harness.model.get("sandboxes", &name).unwrap()["spec"],
        before
    );
    assert!(ready(&harness.model, "sandboxclaims", "c"));
}
