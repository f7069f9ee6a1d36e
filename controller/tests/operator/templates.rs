//! Templates: the network policy before, during and after the pods it protects.

use serde_json::{Value, json};

use crate::harness::{Harness, claim, condition, ready, said, template};
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
    harness.covered_template().await;
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
    harness.model.patch(
        "sandboxtemplates",
        "t",
        json!({"spec": {"networkPolicyManagement": "Unmanaged"}}),
    );
    harness.until_ready("sandboxclaims", "c").await;
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

const READY: &str = "NetworkPolicyReady";

fn reason(model: &crate::model::Model, template: &str) -> String {
    model
        .get("sandboxtemplates", template)
        .map(|template| said(&template, READY).1)
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_template_says_that_its_policy_is_in_place_and_rests() {
    let harness = Harness::start();
    harness.settle().await;
    harness.model.take_writes();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .eventually("Managed", |model| reason(model, "t") == "Managed")
        .await;
    harness.settle().await;
    let mut writes: Vec<(&str, String, bool)> = harness
        .model
        .take_writes()
        .into_iter()
        .map(|call| (call.verb, call.resource, call.status))
        .collect();
    writes.sort();
    assert_eq!(
        writes,
        [
            ("create", "networkpolicies".to_owned(), false),
            ("patch", "sandboxtemplates".to_owned(), false),
            ("patch", "sandboxtemplates".to_owned(), true),
        ]
    );
    harness.assert_at_rest().await;
    harness.model.patch(
        "sandboxtemplates",
        "t",
        json!({"spec": {"networkPolicy": {}}}),
    );
    harness
        .eventually("the generation is acknowledged", |model| {
            let template = model.get("sandboxtemplates", "t").unwrap();
            template["status"]["observedGeneration"] == 2
                && condition(&template, READY).unwrap()["observedGeneration"] == 2
                && said(&template, READY) == ("True".to_owned(), "Managed".to_owned())
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_without_a_status_serves_as_well() {
    let harness = Harness::start();
    harness.model.disturb(|call| {
        (call.resource == "sandboxtemplates" && call.status)
            .then(|| Mischief::Refuse(404, "NotFound", "the server could not find it".to_owned()))
    });
    harness.pool("p", 1).await;
    harness.assert_at_rest().await;
    let foreign = json!({"metadata": {"name": "u-network-policy"}, "spec": {"podSelector": {}}});
    harness.model.create("networkpolicies", foreign);
    harness
        .model
        .create("sandboxtemplates", template("u", json!({})));
    harness.pass(std::time::Duration::from_secs(120)).await;
    let events = harness.model.list("events");
    let told = events
        .iter()
        .filter(|event| event["reason"] == "NetworkPolicyConflict");
    assert_eq!(told.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_policy_is_said_and_taken_back() {
    let harness = Harness::start();
    let foreign = json!({"metadata": {"name": "t-network-policy"}, "spec": {"podSelector": {}}});
    harness.model.create("networkpolicies", foreign);
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let refuse = refused.clone();
    harness.model.disturb(move |call| {
        let hit = call.resource == "networkpolicies"
            && call.verb == "create"
            && refuse.load(std::sync::atomic::Ordering::SeqCst);
        hit.then(|| Mischief::Refuse(403, "Forbidden", "exceeded quota".to_owned()))
    });
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .eventually("Conflict", |model| reason(model, "t") == "Conflict")
        .await;
    refused.store(true, std::sync::atomic::Ordering::SeqCst);
    harness.model.remove("networkpolicies", "t-network-policy");
    harness
        .eventually("Failed", |model| {
            let template = model.get("sandboxtemplates", "t").unwrap();
            said(&template, READY) == ("False".to_owned(), "Failed".to_owned())
                && condition(&template, READY).unwrap()["message"]
                    .as_str()
                    .unwrap()
                    .contains("exceeded quota")
        })
        .await;
    refused.store(false, std::sync::atomic::Ordering::SeqCst);
    harness
        .eventually("Managed", |model| reason(model, "t") == "Managed")
        .await;
    harness.assert_at_rest().await;
}

/// Two names whose hash is the same.
const TWINS: [&str; 2] = ["sandbox-0ac4t", "sandbox-yml5e"];

/// A claim straight from a template.
fn straight(name: &str, template: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"sandboxTemplateRef": {"name": template}, "warmpool": "none"}})
}

#[tokio::test(start_paused = true)]
async fn of_two_templates_whose_names_share_a_hash_the_younger_gets_no_pod() {
    let harness = Harness::start();
    let [first, second] = TWINS;
    let strict = json!({"networkPolicy": {}});
    harness
        .model
        .create("sandboxtemplates", template(first, strict));
    harness.model.create("sandboxclaims", straight("a", first));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;

    harness
        .model
        .create("sandboxtemplates", template(second, json!({})));
    let pool = crate::harness::warm_pool("p", second, 1);
    harness.model.create("sandboxwarmpools", pool);
    harness.model.create("sandboxclaims", straight("b", second));
    harness
        .eventually("everybody says why", |model| {
            let claim = model.get("sandboxclaims", "b").unwrap();
            let pool = model.get("sandboxwarmpools", "p").unwrap();
            let told = condition(&claim, "Ready").and_then(|it| it["message"].as_str());
            reason(model, second) == "HashCollision"
                && told.is_some_and(|message| message.contains("hash"))
                && said(&pool, "Progressing").1 == "SandboxTemplateError"
        })
        .await;
    harness.pass(std::time::Duration::from_secs(120)).await;
    let events = harness.model.list("events");
    let told = events
        .iter()
        .filter(|event| event["reason"] == "TemplateHashCollision");
    assert_eq!(told.count(), 1);
    assert_eq!(harness.model.list("pods").len(), 1, "none but the first's");
    let policies = harness.model.list("networkpolicies");
    assert_eq!(policies.len(), 1, "rules of two templates would add up");
    assert_eq!(reason(&harness.model, first), "Managed");
    harness.assert_at_rest().await;

    // The first is deleted, and still covers the pod of its claim.
    harness.model.delete("sandboxtemplates", first);
    harness.settle().await;
    assert_eq!(reason(&harness.model, second), "HashCollision");
    assert_eq!(harness.model.list("pods").len(), 1);
    harness.model.delete("sandboxclaims", "a");
    harness.until_ready("sandboxclaims", "b").await;
    harness
        .eventually("Managed", |model| reason(model, second) == "Managed")
        .await;
    let policies = harness.model.list("networkpolicies");
    assert_eq!(policies.len(), 1);
    assert!(policies[0]["spec"]["egress"][0]["to"].is_array());
}

#[tokio::test(start_paused = true)]
async fn a_template_switched_to_unmanaged_keeps_its_policy_for_the_pods_from_before() {
    let mut harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness.model.create("sandboxclaims", straight("a", "t"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
    let switch = |to: &str| {
        let patch = json!({"spec": {"networkPolicyManagement": to}});
        harness.model.patch("sandboxtemplates", "t", patch);
    };
    let kept = |model: &crate::model::Model| {
        let policy = model.get("networkpolicies", "t-network-policy").unwrap();
        policy["metadata"]["annotations"]["agents.x-k8s.io/policy-kept-for-pods-until"].is_string()
    };
    switch("Unmanaged");
    harness
        .eventually("Retained", |model| reason(model, "t") == "Retained")
        .await;
    assert!(kept(&harness.model));
    switch("Managed");
    harness
        .eventually("Managed", |model| reason(model, "t") == "Managed")
        .await;
    assert!(!kept(&harness.model));
    switch("Unmanaged");
    harness
        .eventually("Retained", |model| reason(model, "t") == "Retained")
        .await;
    harness.assert_at_rest().await;

    // A pod that starts later was promised nothing; and nothing is kept in memory.
    harness.model.create("sandboxclaims", straight("b", "t"));
    harness.until_ready("sandboxclaims", "b").await;
    harness.stop().await;
    harness.run(agent_sandbox_controller::Config::default());
    harness.assert_at_rest().await;
    assert_eq!(harness.model.list("networkpolicies").len(), 1);
    harness.model.delete("sandboxclaims", "a");
    harness
        .eventually(
            "the policy goes with the last pod it is kept for",
            |model| model.list("networkpolicies").is_empty() && reason(model, "t") == "Unmanaged",
        )
        .await;
    assert!(ready(&harness.model, "sandboxclaims", "b"));
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_deleted_after_its_template_is_made_again_while_pods_live() {
    let harness = Harness::start();
    let rules = json!({"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}});
    harness
        .model
        .create("sandboxtemplates", template("t", rules));
    harness.model.create("sandboxclaims", straight("a", "t"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    let before = harness
        .model
        .get("networkpolicies", "t-network-policy")
        .unwrap();
    harness.model.remove("networkpolicies", "t-network-policy");
    harness
        .eventually("it is back", |model| {
            let policy = model.get("networkpolicies", "t-network-policy");
            policy.is_some_and(|policy| {
                // An empty list of rules and none are the same.
                ["podSelector", "policyTypes", "egress"]
                    .iter()
                    .all(|member| policy["spec"][member] == before["spec"][member])
            })
        })
        .await;
    harness.assert_at_rest().await;
    harness.model.delete("sandboxclaims", "a");
    harness
        .eventually("it goes with the last pod", |model| {
            model.list("networkpolicies").is_empty()
        })
        .await;
    harness.assert_at_rest().await;
}

/// Labels and annotations of a bound sandbox's pod, as far as they come from its template.
fn team(model: &crate::model::Model, of: &str) -> Option<Value> {
    let claim = model.get("sandboxclaims", of)?;
    let name = claim["status"]["sandbox"]["name"].as_str()?;
    let metadata = model.get("pods", name)?["metadata"].clone();
    Some(json!([
        metadata["labels"]["team"],
        metadata["annotations"]["note"]
    ]))
}

#[tokio::test(start_paused = true)]
async fn edits_of_the_pod_templates_metadata_reach_bound_sandboxes_at_once_and_members_when_claimed()
 {
    let mut harness = Harness::start();
    let labelled = |team: Value, note: Value| {
        json!({"spec": {"podTemplate": {"metadata": {
            "labels": {"team": team}, "annotations": {"note": note},
        }}}})
    };
    harness.pool("p", 1).await;
    harness.model.create("sandboxclaims", claim("warm", "p"));
    harness.model.create("sandboxclaims", straight("cold", "t"));
    harness.until_claims_ready().await;
    harness.full("p", 1).await;

    let edit = labelled(json!("red"), json!("a"));
    harness.model.patch("sandboxtemplates", "t", edit);
    harness
        .eventually("both pods have them", |model| {
            let want = Some(json!(["red", "a"]));
            team(model, "warm") == want && team(model, "cold") == want
        })
        .await;
    harness.assert_at_rest().await;
    let members = harness.model.list("pods");
    let of_members = members
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["team"] == "red");
    assert_eq!(
        (members.len(), of_members.count()),
        (3, 2),
        "nobody has the member yet"
    );
    harness.model.create("sandboxclaims", claim("next", "p"));
    harness.until_ready("sandboxclaims", "next").await;
    harness
        .eventually("the member has them with its claim", |model| {
            team(model, "next") == Some(json!(["red", "a"]))
        })
        .await;

    harness.model.patch(
        "sandboxtemplates",
        "t",
        labelled(json!("blue"), Value::Null),
    );
    harness
        .eventually("what is taken out goes", |model| {
            ["warm", "cold", "next"]
                .iter()
                .all(|claim| team(model, claim) == Some(json!(["blue", null])))
        })
        .await;
    harness.full("p", 1).await;
    harness.assert_at_rest().await;

    // Nothing was left for a restart to catch up with.
    harness.stop().await;
    harness.model.take_writes();
    harness.run(agent_sandbox_controller::Config::default());
    harness.settle().await;
    assert_eq!(harness.model.take_writes(), []);

    // A sandbox without its template keeps what it has, and follows the next one of the name.
    harness.model.delete("sandboxwarmpools", "p");
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    assert_eq!(team(&harness.model, "cold"), Some(json!(["blue", null])));
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .eventually("it follows", |model| {
            team(model, "cold") == Some(json!([null, null]))
        })
        .await;
}
