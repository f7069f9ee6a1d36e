//! Pools: size, replacement, protection of what was claimed.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, claim, is_ready, ready, said, template, warm_pool};
use crate::model::{Mischief, Model};

/// The label by which a Service finds the pod of one sandbox and no other.
const SANDBOX_UID: &str = "agents.x-k8s.io/sandbox-uid";

fn images(model: &Model) -> BTreeSet<String> {
    model
        .list("sandboxes")
        .iter()
        .map(|sandbox| {
            let image = &sandbox["spec"]["podTemplate"]["spec"]["containers"][0]["image"];
            image.as_str().unwrap().to_owned()
        })
        .collect()
}

fn status(model: &Model, member: &str) -> i64 {
    model.get("sandboxwarmpools", "p").unwrap()["status"][member]
        .as_i64()
        .unwrap_or(0)
}

fn new_image() -> Value {
    json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "newer"}]}}}})
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_filled_grown_shrunk_and_emptied() {
    let harness = Harness::start();
    harness.pool("p", 5).await;
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(pool["status"]["replicas"], 5);
    let selector = pool["status"]["selector"].as_str().unwrap();
    assert!(selector.starts_with("agents.x-k8s.io/warm-pool-sandbox="));
    for (replicas, expected) in [(9, 9), (2, 2), (0, 0), (3, 3)] {
        harness.model.patch(
            "sandboxwarmpools",
            "p",
            json!({"spec": {"replicas": replicas}}),
        );
        harness
            .eventually("the pool has its size", |model| {
                model.list("sandboxes").len() == expected
                    && status(model, "replicas") == replicas
                    && status(model, "readyReplicas") == replicas
            })
            .await;
    }
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    assert_eq!(
        pool["status"]["observedGeneration"],
        pool["metadata"]["generation"]
    );
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_between_a_look_and_the_status_written_after_it_is_not_missed() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let mut scaled = false;
    harness.model.disturb(move |call| {
        let publishes = call.resource == "sandboxwarmpools" && call.verb == "patch" && call.status;
        let scale = json!({"spec": {"replicas": 4}});
        (publishes && !std::mem::replace(&mut scaled, true)).then_some(Mischief::Precede(
            "sandboxwarmpools",
            "p".to_owned(),
            scale,
        ))
    });
    let strategy = json!({"spec": {"updateStrategy": {"type": "Recreate"}}});
    let generation = |pool: &Value| pool["metadata"]["generation"].as_i64().unwrap();
    let seen = generation(&harness.model.patch("sandboxwarmpools", "p", strategy));
    harness
        .eventually("the new strategy is acknowledged", |model| {
            status(model, "observedGeneration") >= seen
        })
        .await;
    // The acknowledgement met the scaling before its event did.
    harness.settle().await;
    harness.model.hold_watches(false);
    harness
        .eventually("the pool has the size asked for", |model| {
            status(model, "replicas") == 4 && status(model, "readyReplicas") == 4
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn exactly_the_missing_members_are_made_while_the_watch_is_silent() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.hold_watches(true);
    // This event was already delivered to nobody; the pool learns of it when watches go on.
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 20}}));
    harness.model.hold_watches(false);
    harness
        .eventually("the pool begins to grow", |model| {
            model.list("sandboxes").len() > 2
        })
        .await;
    harness.model.hold_watches(true);
    harness.pass(Duration::from_secs(30)).await;
    assert_eq!(harness.model.list("sandboxes").len(), 20);
    assert_eq!(harness.model.list("pods").len(), 20);
    harness.model.hold_watches(false);
    harness.full("p", 20).await;
    assert_eq!(harness.model.list("sandboxes").len(), 20);
}

#[tokio::test(start_paused = true)]
async fn claimed_members_survive_their_pool() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.model.delete("sandboxwarmpools", "p");
    harness
        .eventually("only the claimed one is left", |model| {
            model.list("sandboxes").len() == 1
        })
        .await;
    harness.settle().await;
    assert!(ready(&harness.model, "sandboxclaims", "c"));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_only_wears_the_label_is_no_member() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let member = harness.model.list("sandboxes")[0].clone();
    let mut planted = member.clone();
    planted["metadata"] = json!({"name": "planted", "labels": member["metadata"]["labels"]});
    harness.model.create("sandboxes", planted);
    harness.until_ready("sandboxes", "planted").await;
    harness.settle().await;
    assert_eq!(status(&harness.model, "replicas"), 1);
    for name in ["a", "b"] {
        harness.model.create("sandboxclaims", claim(name, "p"));
    }
    harness.until_claims_ready().await;
    for claim in harness.model.list("sandboxclaims") {
        assert_ne!(claim["status"]["sandbox"]["name"], "planted");
    }
}

#[tokio::test(start_paused = true)]
async fn recreate_replaces_members_a_few_at_a_time_and_keeps_enough_ready() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let mut pool = warm_pool("p", "t", 8);
    pool["spec"]["updateStrategy"] = json!({"type": "Recreate"});
    harness.model.create("sandboxwarmpools", pool);
    harness.full("p", 8).await;
    harness.model.patch("sandboxtemplates", "t", new_image());
    harness
        .eventually("all members are of the new template", |model| {
            let sandboxes = model.list("sandboxes");
            assert!(
                sandboxes.len() <= 10,
                "at most a quarter more: {}",
                sandboxes.len()
            );
            let up = sandboxes.iter().filter(|it| is_ready(it)).count();
            assert!(up >= 8, "{up} ready");
            images(model) == BTreeSet::from(["newer".to_owned()])
        })
        .await;
    harness.full("p", 8).await;
    assert_eq!(harness.model.list("sandboxes").len(), 8);
}

#[tokio::test(start_paused = true)]
async fn on_replenish_keeps_members_until_they_are_claimed() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness.model.patch("sandboxtemplates", "t", new_image());
    harness.settle().await;
    assert_eq!(
        images(&harness.model),
        BTreeSet::from(["python".to_owned()])
    );
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the replacement is new", |model| {
            images(model).contains("newer")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn changes_that_mean_nothing_replace_nothing() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let mut pool = warm_pool("p", "t", 2);
    pool["spec"]["updateStrategy"] = json!({"type": "Recreate"});
    harness.model.create("sandboxwarmpools", pool);
    harness.full("p", 2).await;
    let before: Vec<Value> = harness
        .model
        .list("sandboxes")
        .iter()
        .map(|it| it["metadata"]["uid"].clone())
        .collect();
    for patch in [
        json!({"spec": {"podTemplate": {"metadata": {"labels": {"x": "y"}}}}}),
        json!({"spec": {"podTemplate": {"spec": {"volumes": []}}}}),
        json!({"spec": {"envVarsInjectionPolicy": "Allowed"}}),
    ] {
        harness.model.patch("sandboxtemplates", "t", patch);
        harness.settle().await;
    }
    let after: Vec<Value> = harness
        .model
        .list("sandboxes")
        .iter()
        .map(|it| it["metadata"]["uid"].clone())
        .collect();
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn members_stuck_unready_are_replaced_and_unschedulable_ones_are_not() {
    let harness = Harness::start();
    harness.model.set_kubelet(false);
    harness.declare_pool("p", 2);
    harness
        .eventually("both have pods", |model| model.list("pods").len() == 2)
        .await;
    let names: Vec<String> = harness
        .model
        .list("pods")
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let since = harness.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    harness.model.patch_status(
        "pods",
        &names[0],
        json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes", "lastTransitionTime": since},
        ]}),
    );
    harness
        .eventually("the stuck one is replaced", |model| {
            model.get("sandboxes", &names[1]).is_none()
        })
        .await;
    harness
        .eventually("the pool says that it is stuck", |model| {
            let pool = model.get("sandboxwarmpools", "p").unwrap();
            said(&pool, "Progressing").1 == "WarmPoolNotProgressing"
        })
        .await;
    assert!(harness.model.get("sandboxes", &names[0]).is_some());
    let told = harness.model.list("events");
    let told = told
        .iter()
        .filter(|event| event["reason"] == "WarmPoolNotProgressing");
    assert_eq!(told.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn members_that_were_tampered_with_or_ended_are_replaced_and_never_handed_out() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    let names: Vec<String> = harness
        .model
        .list("sandboxes")
        .iter()
        .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    harness
        .model
        .patch_status("pods", &names[0], json!({"phase": "Failed"}));
    harness.model.patch(
        "sandboxes",
        &names[1],
        json!({"spec": {"shutdownTime": "2027-01-01T00:00:00Z"}}),
    );
    harness.pass(Duration::from_millis(100)).await;
    harness.claim_many("c", 2);
    harness.until_claims_ready().await;
    for claim in harness.model.list("sandboxclaims") {
        let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
        assert!(name != names[0] && name != names[1], "{name}");
    }
    harness
        .eventually("both are gone", |model| {
            model.get("sandboxes", &names[0]).is_none()
                && model.get("sandboxes", &names[1]).is_none()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_on_a_cordoned_node_is_the_last_choice() {
    let harness = Harness::start();
    harness.pool("p", 4).await;
    for node in ["node-0", "node-2"] {
        harness.model.create(
            "nodes",
            json!({"metadata": {"name": node}, "spec": {"unschedulable": true}}),
        );
    }
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    let name = claim["status"]["sandbox"]["name"].as_str().unwrap();
    assert_eq!(
        harness.model.get("pods", name).unwrap()["spec"]["nodeName"],
        "node-1"
    );
}

#[tokio::test(start_paused = true)]
async fn the_replica_limit_holds_and_is_reported() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.pools.replica_cap = 3;
    harness.run(config);
    harness.declare_pool("p", 2_000_000_000);
    harness
        .eventually("it is reported", |model| {
            said(&model.get("sandboxwarmpools", "p").unwrap(), "Progressing").1
                == "WarmPoolNotProgressing"
        })
        .await;
    harness.settle().await;
    assert_eq!(harness.model.list("sandboxes").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_the_watch_has_not_told_of_is_not_missing() {
    let harness = Harness::start();
    harness.model.hold_watches_of("sandboxtemplates");
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .model
        .create("sandboxwarmpools", warm_pool("p", "t", 1));
    harness.full("p", 1).await;
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    let progressing = ("True".to_owned(), "WarmPoolProgressing".to_owned());
    assert_eq!(said(&pool, "Progressing"), progressing);
    assert_eq!(harness.model.list("events"), [] as [Value; 0]);
}

#[tokio::test(start_paused = true)]
async fn pods_of_an_older_operator_get_their_labels_however_many_they_are() {
    const MEMBERS: usize = 40;
    let mut harness = Harness::start();
    harness.pool("p", MEMBERS).await;
    harness.stop().await;
    let names = |model: &Model| -> Vec<String> {
        let pods = model.list("pods");
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        pods.iter().map(name).collect()
    };
    for name in names(&harness.model) {
        let unlabelled = json!({"metadata": {"labels": {SANDBOX_UID: null}}});
        harness.model.patch("pods", &name, unlabelled);
    }
    harness.run(Config::default());
    harness
        .eventually("every pod has its label again", |model| {
            let pods = model.list("pods");
            pods.len() == MEMBERS
                && pods
                    .iter()
                    .all(|pod| pod["metadata"]["labels"][SANDBOX_UID].is_string())
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_somebody_else_put_into_a_pools_status_unseen_is_not_lost() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let pool = harness.model.get("sandboxwarmpools", "p").unwrap();
    let mut conditions = pool["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().push(json!({
        "type": "Example.com/Theirs", "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    harness.model.hold_watches_of("sandboxwarmpools");
    harness
        .model
        .patch_status("sandboxwarmpools", "p", json!({"conditions": conditions}));
    // Now there is something to say, and what is known is old.
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    let told = |model: &Model, kind: &str| said(&model.get("sandboxwarmpools", "p").unwrap(), kind);
    let theirs = ("True".to_owned(), "R".to_owned());
    assert_eq!(told(&harness.model, "Example.com/Theirs"), theirs);
    harness.model.release_watches();
    harness
        .eventually("both say their piece", |model| {
            told(model, "Example.com/Theirs") == theirs
                && told(model, "Progressing").1 == "SandboxTemplateError"
        })
        .await;
    harness.assert_at_rest().await;
}
