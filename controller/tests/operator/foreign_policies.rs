//! Policies that are not watched: other people's, and those that older controllers left without a label.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_controller::Config;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{Harness, claim, said, template};
use crate::model::Model;

const POLICY: &str = "t-network-policy";
const HASH: &str = "agents.x-k8s.io/sandbox-template-ref-hash";

/// A policy of this name that selects everything, with this owner if it has one.
fn policy(name: &str, owner: Option<(&str, &Value)>) -> Value {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"podSelector": {}}});
    if let Some((kind, object)) = owner {
        policy["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": kind, "controller": true,
            "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
        }]);
    }
    policy
}

fn reason(model: &Model) -> String {
    said(
        &model.get("sandboxtemplates", "t").unwrap(),
        "NetworkPolicyReady",
    )
    .1
}

/// A claim straight from the template `t`, cold.
fn cold(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"sandboxTemplateRef": {"name": "t"}, "warmpool": "none"}})
}

#[tokio::test(start_paused = true)]
async fn only_policies_of_templates_are_watched() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    let ours = Some(HASH.to_owned());
    let watched = harness.model.selected("watch", "networkpolicies");
    assert_eq!(watched, std::slice::from_ref(&ours));
    // The others are looked through once, for what older controllers left.
    let listed = harness.model.selected("list", "networkpolicies");
    assert_eq!(listed, [Some(format!("!{HASH}")), ours]);
}

#[tokio::test(start_paused = true)]
async fn an_unlabelled_policy_of_an_older_controller_is_found_and_taken_over() {
    let mut harness = Harness::new();
    let made = harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    let older = policy(POLICY, Some(("SandboxTemplate", &made)));
    harness.model.create("networkpolicies", older);
    harness.run(Config::default());
    harness.model.create("sandboxclaims", cold("a"));
    harness.until_ready("sandboxclaims", "a").await;
    let policy = harness.model.get("networkpolicies", POLICY).unwrap();
    assert!(policy["metadata"]["labels"][HASH].is_string(), "{policy}");
    assert!(policy["metadata"]["ownerReferences"].is_null(), "{policy}");
    assert!(policy["spec"]["egress"][0]["to"].is_array(), "{policy}");
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_unmanaged_template_drops_what_an_older_controller_made_for_it_and_nothing_else() {
    for ours in [true, false] {
        let mut harness = Harness::new();
        let unmanaged = template("t", json!({"networkPolicyManagement": "Unmanaged"}));
        let made = harness.model.create("sandboxtemplates", unmanaged);
        let owner = ours.then_some(("SandboxTemplate", &made));
        harness
            .model
            .create("networkpolicies", policy(POLICY, owner));
        harness.run(Config::default());
        harness
            .eventually("Unmanaged", |model| reason(model) == "Unmanaged")
            .await;
        harness.assert_at_rest().await;
        let left = harness.model.list("networkpolicies").len();
        assert_eq!(left, usize::from(!ours));
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_lost_its_label_gets_it_back() {
    for template_lives in [true, false] {
        let harness = Harness::start();
        let rules = json!({"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}});
        harness
            .model
            .create("sandboxtemplates", template("t", rules));
        harness.model.create("sandboxclaims", cold("a"));
        harness.until_ready("sandboxclaims", "a").await;
        if !template_lives {
            harness.model.delete("sandboxtemplates", "t");
            harness.settle().await;
        }
        let unlabelled = json!({"metadata": {"labels": {HASH: null}}});
        let before = harness.model.patch("networkpolicies", POLICY, unlabelled);
        harness
            .eventually("the label", |model| {
                let policy = model.get("networkpolicies", POLICY).unwrap();
                policy["metadata"]["labels"][HASH].is_string()
            })
            .await;
        let after = harness.model.get("networkpolicies", POLICY).unwrap();
        assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
        assert_eq!(after["spec"]["egress"][0]["ports"][0]["port"], 53);
        harness.assert_at_rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_policy_is_looked_at_again_but_never_written() {
    let harness = Harness::start();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    harness.model.disturb(move |call| {
        if call.resource == "networkpolicies" && !matches!(call.verb, "list" | "watch") {
            noted.lock().push(call.verb);
        }
        None
    });
    let foreign = harness
        .model
        .create("networkpolicies", policy(POLICY, None));
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness.model.create("sandboxclaims", cold("a"));
    harness
        .eventually("Conflict", |model| reason(model) == "Conflict")
        .await;
    harness.assert_at_rest().await;
    assert_eq!(
        calls
            .lock()
            .iter()
            .filter(|verb| **verb == "create")
            .count(),
        1
    );
    calls.lock().clear();
    harness.pass(Duration::from_secs(300)).await;
    let asked = std::mem::take(&mut *calls.lock());
    assert!((3..=10).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|verb| *verb == "get"), "{asked:?}");
    let still = harness.model.get("networkpolicies", POLICY).unwrap();
    assert_eq!(still, foreign);
    assert!(harness.model.list("pods").is_empty());
    harness.model.remove("networkpolicies", POLICY);
    harness.until_ready("sandboxclaims", "a").await;
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_policy_in_place_of_a_lost_one_is_left_alone_and_outlasted() {
    let mut harness = Harness::start();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness.model.create("sandboxclaims", cold("a"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
    harness.stop().await;
    harness.model.delete("sandboxtemplates", "t");
    harness.model.remove("networkpolicies", POLICY);
    let foreign = harness
        .model
        .create("networkpolicies", policy(POLICY, None));
    harness.run(Config::default());
    harness.pass(Duration::from_secs(120)).await;
    let still = harness.model.get("networkpolicies", POLICY).unwrap();
    assert_eq!(still, foreign);
    harness.model.remove("networkpolicies", POLICY);
    harness
        .eventually("the pod is shut in", |model| {
            !model.list("networkpolicies").is_empty()
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_an_older_controller_per_claim_goes_and_a_users_own_stays() {
    let mut harness = Harness::new();
    let made = harness.model.create("sandboxclaims", claim("a", "p"));
    let of_claim = Some(("SandboxClaim", &made));
    for (name, owner) in [
        ("a-network-policy", of_claim),
        // A user's own of the same pattern, one of the claim's under another name, and one whose owner
        // only has the claim's name.
        ("b-network-policy", None),
        ("notes", of_claim),
    ] {
        harness.model.create("networkpolicies", policy(name, owner));
    }
    harness.model.create("sandboxclaims", claim("b", "p"));
    let stranger =
        json!({"metadata": {"name": "c", "uid": "00000000-0000-4000-8000-00000000ffff"}});
    harness.model.create(
        "networkpolicies",
        policy("c-network-policy", Some(("SandboxClaim", &stranger))),
    );
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.declare_pool("p", 3);
    harness.run(Config::default());
    harness.until_claims_ready().await;
    harness.settle().await;
    let left: Vec<String> = harness
        .model
        .list("networkpolicies")
        .iter()
        .map(|policy| policy["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        left,
        ["b-network-policy", "c-network-policy", "notes", POLICY]
    );
    harness.assert_at_rest().await;
}
