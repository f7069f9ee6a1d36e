//! Templates: the network policy before, during and after the pods it protects.

use serde_json::{Value, json};

use crate::harness::{Harness, claim, condition, ready, template};
use crate::model::Mischief;

#[tokio::test(start_paused = true)]
async fn no_pod_of_a_template_starts_before_its_policy() {
    let harness = Harness::start();
    let blocked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let block = blocked.clone();
    harness.model.disturb(move |call| {
        let hit = call.resource == "networkpolicies"
            && call.verb == "create"
            && block.load(std::sync::atomic::Ordering::SeqCst);
        hit.then(|| Mischief::Refuse(500, "InternalError", "not now".to_owned()))
    });
    harness.declare_pool("p", 2);
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the claim says what it waits for", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            condition(&claim, "Ready")
                .is_some_and(|it| it["message"].as_str().unwrap().contains("t-network-policy"))
        })
        .await;
    assert!(harness.model.list("pods").is_empty());
    blocked.store(false, std::sync::atomic::Ordering::SeqCst);
    harness.until_ready("sandboxclaims", "c").await;
}

#[tokio::test(start_paused = true)]
async fn the_policy_outlives_its_template_until_the_last_pod_is_gone() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.model.delete("sandboxwarmpools", "p");
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    assert_eq!(harness.model.list("networkpolicies").len(), 1);
    assert!(ready(&harness.model, "sandboxclaims", "c"));
    harness.model.delete("sandboxclaims", "c");
    harness
        .eventually("the policy goes with the last pod", |model| {
            model.list("networkpolicies").is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_policy_follows_its_template_and_is_repaired() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let spec = |model: &crate::model::Model| {
        model
            .get("networkpolicies", "t-network-policy")
            .map(|policy| policy["spec"].clone())
            .unwrap_or_default()
    };
    harness
        .eventually("the default policy", |model| {
            spec(model)["policyTypes"] == json!(["Ingress", "Egress"])
        })
        .await;
    let default = spec(&harness.model);
    assert_eq!(
        default["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app"],
        "sandbox-router"
    );
    harness.model.patch(
        "sandboxtemplates",
        "t",
        json!({"spec": {"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}}}),
    );
    harness
        .eventually("the custom rules", |model| {
            spec(model)["egress"][0]["ports"][0]["port"] == 53
        })
        .await;
    assert_eq!(spec(&harness.model)["ingress"], Value::Null);
    harness.settle().await;
    harness.model.take_writes();
    harness.settle().await;
    assert_eq!(
        harness.model.take_writes(),
        [],
        "a port without protocol is no drift"
    );

    harness.model.patch(
        "networkpolicies",
        "t-network-policy",
        json!({"spec": {"egress": [{}]}}),
    );
    harness
        .eventually("tampering is undone", |model| {
            spec(model)["egress"][0]["ports"][0]["port"] == 53
        })
        .await;
    harness.model.patch(
        "sandboxtemplates",
        "t",
        json!({"spec": {"networkPolicyManagement": "Unmanaged"}}),
    );
    harness
        .eventually("unmanaged", |model| {
            model.list("networkpolicies").is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_policy_of_the_name_is_left_alone_and_blocks_pods() {
    let harness = Harness::start();
    let foreign = json!({"metadata": {"name": "t-network-policy"}, "spec": {"podSelector": {}}});
    harness.model.create("networkpolicies", foreign);
    let before = harness
        .model
        .get("networkpolicies", "t-network-policy")
        .unwrap();
    harness.declare_pool("p", 1);
    harness
        .eventually("it is reported", |model| {
            model
                .list("events")
                .iter()
                .any(|event| event["reason"] == "NetworkPolicyConflict")
        })
        .await;
    harness.settle().await;
    assert!(harness.model.list("pods").is_empty());
    assert_eq!(
        harness
            .model
            .get("networkpolicies", "t-network-policy")
            .unwrap(),
        before
    );
    harness.model.remove("networkpolicies", "t-network-policy");
    harness.full("p", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_owned_by_its_template_is_freed_from_garbage_collection() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .eventually("the policy", |model| {
            !model.list("networkpolicies").is_empty()
        })
        .await;
    let uid = harness.model.get("sandboxtemplates", "t").unwrap()["metadata"]["uid"].clone();
    harness.model.patch(
        "networkpolicies",
        "t-network-policy",
        json!({"metadata": {
            "annotations": null,
            "ownerReferences": [{"apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxTemplate",
                "name": "t", "uid": uid, "controller": true}],
        }}),
    );
    harness
        .eventually("no owner, but a record", |model| {
            let policy = model.get("networkpolicies", "t-network-policy").unwrap();
            policy["metadata"]["ownerReferences"].is_null()
                && policy["metadata"]["annotations"].is_object()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_template_carries_its_own_hash() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("test-template", json!({})));
    harness
        .eventually("the label", |model| {
            let template = model.get("sandboxtemplates", "test-template").unwrap();
            template["metadata"]["labels"]["agents.x-k8s.io/sandbox-template-ref-hash"]
                == "69155462"
        })
        .await;
}

/// A claim straight from the template `t`, cold.
fn cold(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"sandboxTemplateRef": {"name": "t"}, "warmpool": "none"}})
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_policy_that_is_no_longer_called_for() {
    for unmanage in [true, false] {
        let harness = Harness::start();
        harness.model.disturb(|call| {
            (call.resource == "networkpolicies" && call.verb == "create")
                .then(|| Mischief::Refuse(403, "Forbidden", "not here".to_owned()))
        });
        harness
            .model
            .create("sandboxtemplates", template("t", json!({})));
        harness.model.create("sandboxclaims", cold("c"));
        harness
            .eventually("the claim waits", |model| {
                let claim = model.get("sandboxclaims", "c").unwrap();
                condition(&claim, "Ready")
                    .is_some_and(|it| it["message"].as_str().unwrap().contains("t-network-policy"))
            })
            .await;
        harness.settle().await;
        assert!(harness.model.list("pods").is_empty());
        if unmanage {
            harness.model.patch(
                "sandboxtemplates",
                "t",
                json!({"spec": {"networkPolicyManagement": "Unmanaged"}}),
            );
        } else {
            harness.model.delete("sandboxtemplates", "t");
        }
        harness.until_ready("sandboxclaims", "c").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_becomes_the_templates_by_its_record_and_pods_start() {
    let harness = Harness::start();
    let foreign = json!({"metadata": {"name": "t-network-policy"}, "spec": {"podSelector": {}}});
    harness.model.create("networkpolicies", foreign);
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness.model.create("sandboxclaims", cold("c"));
    harness.settle().await;
    assert!(harness.model.list("pods").is_empty());
    let uid = harness.model.get("sandboxtemplates", "t").unwrap()["metadata"]["uid"].clone();
    harness.model.patch(
        "networkpolicies",
        "t-network-policy",
        json!({"metadata": {"annotations": {
            "agents.x-k8s.io/policy-of-template": "t",
            "agents.x-k8s.io/policy-of-template-uid": uid,
        }}}),
    );
    harness.until_ready("sandboxclaims", "c").await;
    let policy = harness
        .model
        .get("networkpolicies", "t-network-policy")
        .unwrap();
    assert!(policy["spec"]["egress"].is_array(), "{policy}");
}
