//! How pools keep their members: within bounds, in the face of lost nodes, failing calls, silent
//! watches and clusters that are too small.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, claim, condition, is_ready, said, template, warm_pool};
use crate::model::{Call, Mischief, Model};

fn names(model: &Model, resource: &str) -> BTreeSet<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    model.list(resource).iter().map(name).collect()
}

fn scale(model: &Model, replicas: usize) {
    model.patch(
        "sandboxwarmpools",
        "p",
        json!({"spec": {"replicas": replicas}}),
    );
}

fn node(name: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Kubelet"}]},
    })
}

fn members_on(model: &Model, node: &str) -> BTreeSet<String> {
    let pods = model.list("pods");
    let there = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
    there
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// What the kubelet of a lost node no longer says, its controller says for it.
fn lose_pods(model: &Model, names: &BTreeSet<String>, since: &str) {
    for name in names {
        model.patch_status(
            "pods",
            name,
            json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": since}]}),
        );
    }
}

/// A pool of eight on three nodes, the second of which is lost. No new pod starts by itself.
async fn with_a_lost_node() -> (Harness, BTreeSet<String>) {
    let harness = Harness::start();
    for name in ["node-0", "node-1", "node-2"] {
        harness.model.create("nodes", node(name, "True"));
    }
    harness.pool("p", 8).await;
    let lost = members_on(&harness.model, "node-1");
    assert!((2..=3).contains(&lost.len()));
    harness.model.set_kubelet(false);
    let unknown =
        json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": "Silence"}]});
    harness.model.patch_status("nodes", "node-1", unknown);
    harness.settle().await;
    (harness, lost)
}

#[tokio::test(start_paused = true)]
async fn members_on_a_lost_node_are_replaced_one_for_one_within_the_surge() {
    let (harness, lost) = with_a_lost_node().await;
    let mut rounds = 0;
    while !lost.is_disjoint(&names(&harness.model, "sandboxes")) {
        let all = names(&harness.model, "sandboxes");
        assert!(all.len() <= 10, "a quarter more at most: {all:?}");
        // Whoever might still serve: Ready ones elsewhere, and the lost ones should they come back.
        let serving = harness.model.list("sandboxes");
        assert!(serving.iter().filter(|it| is_ready(it)).count() >= 8);
        for pod in harness.model.list("pods") {
            if pod["status"]["phase"] == "Pending" {
                let name = pod["metadata"]["name"].as_str().unwrap();
                start_on(&harness.model, name, "node-0");
            }
        }
        harness.settle().await;
        rounds += 1;
        assert!(rounds < 9, "{lost:?} are still there");
    }
    assert_eq!(names(&harness.model, "sandboxes").len(), 8);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn members_on_a_lost_node_are_never_handed_out() {
    let (harness, lost) = with_a_lost_node().await;
    harness.claim_many("c", 8);
    harness
        .eventually("all have a sandbox", |model| {
            let claims = model.list("sandboxclaims");
            let named = |claim: &Value| claim["status"]["sandbox"]["name"].is_string();
            claims.iter().all(named)
        })
        .await;
    for claim in harness.model.list("sandboxclaims") {
        let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
        assert!(!lost.contains(name), "{name} is out of reach");
    }
    // The node comes back, and with it what runs on it.
    for name in names(&harness.model, "sandboxclaims") {
        harness.model.delete("sandboxclaims", &name);
    }
    let known = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Kubelet"}]});
    harness.model.patch_status("nodes", "node-1", known);
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("after", "p"));
    harness.until_ready("sandboxclaims", "after").await;
    let claim = harness.model.get("sandboxclaims", "after").unwrap();
    assert!(lost.contains(claim["status"]["sandbox"]["name"].as_str().unwrap()));
}

/// A scheduler and a kubelet see to a pod.
fn start_on(model: &Model, pod: &str, node: &str) {
    model.patch("pods", pod, json!({"spec": {"nodeName": node}}));
    model.patch_status(
        "pods",
        pod,
        json!({
            "phase": "Running", "podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }),
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_drops_out_loses_no_member() {
    let harness = Harness::start();
    let nodes = ["node-0", "node-1", "node-2"];
    for name in nodes {
        harness.model.create("nodes", node(name, "True"));
    }
    harness.pool("p", 8).await;
    let members = names(&harness.model, "sandboxes");
    harness.model.set_kubelet(false);
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for name in nodes {
        let unknown =
            json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": "Silence"}]});
        harness.model.patch_status("nodes", name, unknown);
    }
    lose_pods(&harness.model, &members, &since);
    for _ in 0..20 {
        harness.pass(Duration::from_secs(60)).await;
        let all = names(&harness.model, "sandboxes");
        assert!(all.is_superset(&members), "{all:?}");
        assert!(all.len() <= 10, "{all:?}");
    }
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    harness.model.set_kubelet(true);
    for name in nodes {
        let known = json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "Kubelet", "lastTransitionTime": since},
        ]});
        harness.model.patch_status("nodes", name, known);
    }
    // Kubelets tell of their nodes first, and of their pods when they have looked at them.
    harness.pass(Duration::from_secs(30)).await;
    for name in &members {
        harness.model.patch_status(
            "pods",
            name,
            json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}),
        );
    }
    harness.full("p", 8).await;
    assert_eq!(names(&harness.model, "sandboxes"), members);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_drives_off_pods_counts_only_for_those_it_drives_off() {
    let harness = Harness::start();
    let mut bearing = template("t", json!({}));
    bearing["spec"]["podTemplate"]["spec"]["tolerations"] =
        json!([{"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}]);
    harness.model.create("sandboxtemplates", bearing);
    harness
        .model
        .create("sandboxtemplates", template("u", json!({})));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 3));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("q", "u", 3));
    harness.full("p", 3).await;
    harness.full("q", 3).await;
    for name in ["node-0", "node-1", "node-2"] {
        let taints = json!([{"key": "dedicated", "effect": "NoExecute"}]);
        harness.model.create(
            "nodes",
            json!({"metadata": {"name": name}, "spec": {"taints": taints}}),
        );
    }
    harness.model.set_kubelet(false);
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("bears", "p"));
    harness.model.create("sandboxclaims", claim("flees", "q"));
    harness.until_ready("sandboxclaims", "bears").await;
    harness
        .eventually("the other starts cold", |model| {
            model.get("sandboxes", "flees").is_some()
        })
        .await;
    let pool = harness.model.get("sandboxwarmpools", "q").unwrap();
    let message = condition(&pool, "Progressing").unwrap()["message"].as_str();
    assert!(message.unwrap().contains("nodes"), "{pool}");
}

#[tokio::test(start_paused = true)]
async fn pools_of_two_templates_keep_apart() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    harness
        .model
        .create("sandboxtemplates", template("u", json!({})));
    let mut other = warm_pool("q", "u", 2);
    other["spec"]["updateStrategy"] = json!({"type": "Recreate"});
    harness.model.create("sandboxwarmpools", other);
    harness.full("q", 2).await;
    let of_pool = |model: &Model, pool: &str| -> BTreeSet<String> {
        let all = names(model, "sandboxes");
        all.into_iter()
            .filter(|name| name.starts_with(pool))
            .collect()
    };
    let (first, second) = (of_pool(&harness.model, "p-"), of_pool(&harness.model, "q-"));
    let image = json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "b"}]}}}});
    harness.model.patch("sandboxtemplates", "u", image);
    harness
        .eventually("the second pool is new", |model| {
            of_pool(model, "q-").is_disjoint(&second)
        })
        .await;
    harness.full("q", 2).await;
    assert_eq!(of_pool(&harness.model, "p-"), first);
    scale(&harness.model, 0);
    harness
        .eventually("the first pool is empty", |model| {
            of_pool(model, "p-").is_empty()
        })
        .await;
    harness.settle().await;
    assert_eq!(of_pool(&harness.model, "q-").len(), 2);
    harness.model.create("sandboxclaims", claim("c", "q"));
    harness.until_ready("sandboxclaims", "c").await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
    assert!(name.starts_with("q-"));
}

#[tokio::test(start_paused = true)]
async fn a_shrinking_pool_deletes_exactly_the_excess_while_the_watch_is_silent() {
    let harness = Harness::start();
    harness.pool("p", 6).await;
    harness.model.hold_watches_of("sandboxes");
    scale(&harness.model, 4);
    harness.pass(Duration::from_secs(30)).await;
    assert_eq!(names(&harness.model, "sandboxes").len(), 4);
    let deleted = |call: &Call| call.verb == "delete" && call.resource == "sandboxes";
    let writes = harness.model.take_writes();
    assert_eq!(writes.into_iter().filter(deleted).count(), 2);
    harness.model.release_watches();
    harness.full("p", 4).await;
    assert_eq!(names(&harness.model, "sandboxes").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_gone_already_is_no_failure() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    harness.model.hold_watches_of("sandboxes");
    for name in names(&harness.model, "sandboxes") {
        harness.model.delete("sandboxes", &name);
    }
    scale(&harness.model, 0);
    harness.settle().await;
    let errors = "controller_runtime_reconcile_errors_total";
    assert_eq!(
        harness.count(errors, &["controller=\"sandboxwarmpool\""]),
        0
    );
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(pool["status"]["replicas"], Value::Null);
    assert_eq!(said(&pool, "Progressing").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_changed_unseen_is_looked_up_and_judged_again() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness.model.hold_watches_of("sandboxes");
    for name in names(&harness.model, "sandboxes") {
        let note = json!({"metadata": {"annotations": {"x": "y"}}});
        harness.model.patch("sandboxes", &name, note);
    }
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    harness.model.disturb(move |call| {
        if call.verb == "delete" && call.resource == "sandboxes" {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    scale(&harness.model, 0);
    harness.settle().await;
    assert_eq!(names(&harness.model, "sandboxes"), BTreeSet::new());
    assert_eq!(
        tried.load(Ordering::SeqCst),
        4,
        "twice each, not twenty times a second"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_stops_the_batch_and_is_told() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let tried = Arc::new(AtomicUsize::new(0));
    let broken = Arc::new(AtomicBool::new(true));
    let (counter, failing) = (tried.clone(), broken.clone());
    harness.model.disturb(move |call| {
        let creates = call.verb == "create" && call.resource == "sandboxes";
        if !creates || !failing.load(Ordering::SeqCst) {
            return None;
        }
        // One, two and four are made; the next eight are not.
        let earlier = counter.fetch_add(1, Ordering::SeqCst);
        (earlier >= 7).then(|| Mischief::Refuse(403, "Forbidden", "exceeded quota".to_owned()))
    });
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 300));
    harness
        .eventually("the refusal is told", |model| {
            let pool = model.get("sandboxwarmpools", "p").unwrap();
            said(&pool, "Progressing").1 == "WarmPoolNotProgressing"
        })
        .await;
    // Fifteen of the first pass, and then one for each of the few that came after it.
    let calls = tried.load(Ordering::SeqCst);
    assert!((15..=20).contains(&calls), "{calls}");
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(
        pool["status"]["replicas"], 7,
        "the status is written all the same"
    );
    let message = condition(&pool, "Progressing").unwrap()["message"].as_str();
    assert!(message.unwrap().contains("exceeded quota"));
    broken.store(false, Ordering::SeqCst);
    harness.full("p", 300).await;
    assert_eq!(harness.most_sandboxes(|_| true), 300);
}

#[tokio::test(start_paused = true)]
async fn stuck_members_go_while_refilling_is_held_back() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.pools.replenish_delay = Duration::from_secs(900);
    config.pools.readiness_grace = Duration::from_secs(60);
    harness.run(config);
    harness.pool("p", 4).await;
    let mut members = names(&harness.model, "sandboxes").into_iter();
    let (taken, stuck) = (members.next().unwrap(), members.next().unwrap());
    harness.model.delete("sandboxes", &taken);
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    lose_pods(&harness.model, &BTreeSet::from([stuck.clone()]), &since);
    let asked = harness.now();
    harness
        .eventually("the stuck one is gone", |model| {
            model.get("sandboxes", &stuck).is_none()
        })
        .await;
    let waited = harness.now().duration_since(asked).as_secs();
    assert!((60..=70).contains(&waited), "{waited}");
    harness.pass(Duration::from_secs(600)).await;
    assert_eq!(
        names(&harness.model, "sandboxes").len(),
        2,
        "refilling is held"
    );
    harness.full("p", 4).await;
    let waited = harness.now().duration_since(asked).as_secs();
    assert!(
        waited >= 900 + 60,
        "every further loss begins the wait anew: {waited}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_refilling_begins_when_the_delay_is_over() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.pools.replenish_delay = Duration::from_secs(30);
    config.pools.max_refill_rate = 1.0;
    harness.run(config);
    harness.pool("p", 6).await;
    for name in names(&harness.model, "sandboxes") {
        harness.model.delete("sandboxes", &name);
    }
    let count = |model: &Model| names(model, "sandboxes").len();
    harness.pass(Duration::from_secs(29)).await;
    assert_eq!(count(&harness.model), 0, "held back");
    harness.pass(Duration::from_millis(2500)).await;
    let begun = count(&harness.model);
    assert!(
        (1..=3).contains(&begun),
        "{begun}: one at once and one a second"
    );
    harness.pass(Duration::from_secs(2)).await;
    let more = count(&harness.model) - begun;
    assert!((1..=2).contains(&more), "{more} in two seconds");
    harness.full("p", 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_too_large_for_its_cluster_waits_for_room_and_makes_no_more() {
    let harness = Harness::start();
    harness.pool("p", 5).await;
    harness.model.set_kubelet(false);
    scale(&harness.model, 20);
    harness
        .eventually("all have pods", |model| names(model, "pods").len() == 20)
        .await;
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for pod in names(&harness.model, "pods") {
        if harness.model.get("pods", &pod).unwrap()["status"]["phase"] == "Pending" {
            harness.model.patch_status(
                "pods",
                &pod,
                json!({"conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "no room", "lastTransitionTime": since}]}),
            );
        }
    }
    let members = names(&harness.model, "sandboxes");
    for _ in 0..10 {
        harness.pass(Duration::from_secs(120)).await;
        assert_eq!(names(&harness.model, "sandboxes"), members);
    }
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(said(&pool, "Progressing").1, "WarmPoolNotProgressing");
    let told = harness.model.list("events");
    let told = told
        .iter()
        .filter(|event| event["regarding"]["kind"] == "SandboxWarmPool");
    assert_eq!(told.count(), 1, "told once, however long it lasts");
    assert_eq!(harness.most_sandboxes(|_| true), 20);
    // The cluster grows.
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for pod in names(&harness.model, "pods") {
        let ready = json!([
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": "True"},
        ]);
        let ip = json!([{"ip": "10.2.2.2"}]);
        harness.model.patch_status(
            "pods",
            &pod,
            json!({"phase": "Running", "podIPs": ip, "conditions": ready}),
        );
    }
    harness.full("p", 20).await;
    assert_eq!(names(&harness.model, "sandboxes"), members);
}

#[tokio::test(start_paused = true)]
async fn a_claim_hears_of_the_end_of_its_adopted_pod() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    let name = harness.sandbox_of("c");
    harness.model.set_kubelet(false);
    harness.model.delete("pods", &name);
    for resource in ["sandboxes", "sandboxclaims"] {
        let object = if resource == "sandboxes" { &*name } else { "c" };
        harness
            .eventually("it is not Ready", |model| {
                !is_ready(&model.get(resource, object).unwrap())
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pools_counts_are_written_with_the_claims_and_else_twice_a_second_at_most() {
    let harness = Harness::start();
    harness.pool("p", 40).await;
    let began = tokio::time::Instant::now();
    for n in 0..200 {
        harness
            .model
            .create("sandboxclaims", claim(&format!("c{n}"), "p"));
        harness.pass(Duration::from_millis(50)).await;
    }
    let seconds = began.elapsed().as_secs();
    let publishes = |call: &Call| call.resource == "sandboxwarmpools" && call.status;
    let written = harness
        .model
        .take_writes()
        .into_iter()
        .filter(publishes)
        .count();
    // One for each claim, for they come one by one.
    assert!(
        written as u64 <= 200 + 2 * seconds + 1,
        "{written} in {seconds} s"
    );
    harness.until_claims_ready().await;
    harness.full("p", 40).await;
    harness.assert_at_rest().await;
}
