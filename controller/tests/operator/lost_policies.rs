//! Templates that are gone, and policies whose rules went with them: what was to run under a policy never
//! runs without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, condition, ready, said, template, told, warm_pool};
use crate::model::{Mischief, Model};

const POLICY: &str = "t-network-policy";
const REQUIRED: &str = "agents.x-k8s.io/required-network-policy";
const WATCHED_BY: &str = "agents.x-k8s.io/sandbox-name-hash";
const STANDS_IN: &str = "agents.x-k8s.io/policy-stands-in";

/// A claim straight from the template `t`, cold.
fn cold(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"sandboxTemplateRef": {"name": "t"}, "warmpool": "none"}})
}

/// Refuses new policies for as long as the switch is on.
fn refuse_policies(harness: &Harness) -> Arc<AtomicBool> {
    let refused = Arc::new(AtomicBool::new(true));
    let refuse = refused.clone();
    harness.model.disturb(move |call| {
        let hit = call.resource == "networkpolicies" && call.verb == "create";
        (hit && refuse.load(Ordering::SeqCst))
            .then(|| Mischief::Refuse(403, "Forbidden", "not now".to_owned()))
    });
    refused
}

fn lost(model: &Model, sandbox: &str) -> bool {
    let sandbox = model.get("sandboxes", sandbox);
    sandbox.is_some_and(|row| {
        said(&row, "NetworkPolicyReady") == ("False".to_owned(), "RulesLost".to_owned())
    })
}

/// Whether the policy lets the router in and nothing out.
fn shuts_in(model: &Model) -> bool {
    model.get("networkpolicies", POLICY).is_some_and(|policy| {
        let spec = &policy["spec"];
        let in_from = &spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app"];
        policy["metadata"]["annotations"][STANDS_IN] == "true"
            && *in_from == "sandbox-router"
            && spec["egress"].as_array().is_none_or(Vec::is_empty)
            && spec["policyTypes"] == json!(["Ingress", "Egress"])
    })
}

#[tokio::test(start_paused = true)]
async fn a_template_that_goes_before_its_policy_was_made_leaves_nothing_that_starts() {
    for pooled in [false, true] {
        let mut harness = Harness::start();
        let refused = refuse_policies(&harness);
        harness
            .model
            .create("sandboxtemplates", template("t", json!({})));
        if pooled {
            harness
                .model
                .create("sandboxwarmpools", warm_pool("p", "t", 1));
        } else {
            harness.model.create("sandboxclaims", cold("c"));
        }
        harness
            .eventually("a sandbox waits", |model| {
                let sandboxes = model.list("sandboxes");
                let says = |row: &Value| {
                    let ready = condition(row, "Ready");
                    ready.is_some_and(|it| it["message"].as_str().unwrap().contains(POLICY))
                };
                sandboxes.iter().any(says)
            })
            .await;
        let sandbox = harness.model.list("sandboxes")[0]["metadata"]["name"].clone();
        let sandbox = sandbox.as_str().unwrap().to_owned();
        harness.model.delete("sandboxtemplates", "t");
        refused.store(false, Ordering::SeqCst);
        harness
            .eventually("it says that the rules are lost", |model| {
                lost(model, &sandbox)
            })
            .await;
        harness.pass(Duration::from_secs(120)).await;
        assert!(harness.model.list("pods").is_empty());
        assert_eq!(told(&harness, "NetworkPolicyLost"), usize::from(!pooled));

        // A restart has only the objects to go by.
        harness.stop().await;
        harness.run(Config::default());
        harness.assert_at_rest().await;
        assert!(harness.model.list("pods").is_empty());
        assert!(harness.model.list("networkpolicies").is_empty());
        let row = harness.model.get("sandboxes", &sandbox).unwrap();
        let message = condition(&row, "Ready").unwrap()["message"].clone();
        assert!(
            message
                .as_str()
                .unwrap()
                .contains("of that name exists again"),
            "{message}"
        );

        harness
            .model
            .create("sandboxtemplates", template("t", json!({})));
        harness.until_ready("sandboxes", &sandbox).await;
        harness.settle().await;
        assert!(!lost(&harness.model, &sandbox));
    }
}

/// Takes the label from a pod by which it is watched.
fn hide(harness: &Harness, pod: &str) {
    let without = json!({"metadata": {"labels": {WATCHED_BY: null}}});
    harness.model.patch("pods", pod, without);
}

/// Starts the operator again after template and policy have gone unseen, and waits until the pod of `a` is shut
/// in and its sandbox says so.
async fn lose_rules_unseen(harness: &mut Harness) {
    harness.model.delete("sandboxtemplates", "t");
    harness.model.remove("networkpolicies", POLICY);
    harness.run(Config::default());
    harness
        .eventually("the pod is shut in, and its sandbox says so", |model| {
            shuts_in(model) && lost(model, "a")
        })
        .await;
}

/// A ready claim `a` of a template with rules of its own.
async fn under_own_rules(harness: &Harness) {
    let rules = json!({"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}});
    harness
        .model
        .create("sandboxtemplates", template("t", rules));
    harness.model.create("sandboxclaims", cold("a"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
}

#[tokio::test(start_paused = true)]
async fn pods_whose_policy_went_unseen_after_its_template_are_shut_in() {
    let mut harness = Harness::start();
    under_own_rules(&harness).await;
    let pod = harness.model.get("pods", "a").unwrap();
    assert_eq!(pod["metadata"]["annotations"][REQUIRED], POLICY);
    harness.stop().await;
    lose_rules_unseen(&mut harness).await;
    assert!(ready(&harness.model, "sandboxclaims", "a"));
    assert_eq!(told(&harness, "NetworkPolicyLost"), 1);
    harness.assert_at_rest().await;

    harness
        .model
        .patch("networkpolicies", POLICY, json!({"spec": {"egress": [{}]}}));
    harness.eventually("tampering is undone", shuts_in).await;
    harness.model.remove("networkpolicies", POLICY);
    harness.eventually("it is made again", shuts_in).await;

    // Who is lost does not start anew.
    harness.model.remove("pods", "a");
    harness.pass(Duration::from_secs(120)).await;
    assert!(harness.model.list("pods").is_empty());
    harness.stop().await;
    harness.run(Config::default());
    harness.assert_at_rest().await;
    assert!(harness.model.list("pods").is_empty());

    let rules = json!({"networkPolicy": {"egress": [{"ports": [{"port": 80}]}]}});
    harness
        .model
        .create("sandboxtemplates", template("t", rules));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
    let policy = harness.model.get("networkpolicies", POLICY).unwrap();
    assert_eq!(policy["spec"]["egress"][0]["ports"][0]["port"], 80);
    assert_eq!(policy["metadata"]["annotations"][STANDS_IN], Value::Null);
    assert!(!lost(&harness.model, "a"));
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_made_again_gives_the_pods_that_were_shut_in_its_rules() {
    let mut harness = Harness::start();
    under_own_rules(&harness).await;
    harness.stop().await;
    lose_rules_unseen(&mut harness).await;
    let pod = harness.model.get("pods", "a").unwrap()["metadata"]["uid"].clone();
    harness
        .model
        .create("sandboxtemplates", template("t", json!({})));
    harness
        .eventually("nobody is lost any more", |model| {
            !lost(model, "a") && !shuts_in(model)
        })
        .await;
    let policy = harness.model.get("networkpolicies", POLICY).unwrap();
    assert!(policy["spec"]["egress"][0]["to"].is_array(), "{policy}");
    let same = harness.model.get("pods", "a").unwrap()["metadata"]["uid"].clone();
    assert_eq!(pod, same);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn template_and_policy_that_go_at_once_leave_no_pod_uncovered() {
    for policy_first in [true, false] {
        let harness = Harness::start();
        under_own_rules(&harness).await;
        harness.model.hold_watches(true);
        if policy_first {
            harness.model.remove("networkpolicies", POLICY);
            harness.model.delete("sandboxtemplates", "t");
        } else {
            harness.model.delete("sandboxtemplates", "t");
            harness.model.remove("networkpolicies", POLICY);
        }
        harness.model.release_watches();
        harness
            .eventually("there is a policy again", |model| {
                !model.list("networkpolicies").is_empty()
            })
            .await;
        harness.assert_at_rest().await;
        let policy = harness.model.get("networkpolicies", POLICY).unwrap();
        let kept = policy["spec"]["egress"][0]["ports"][0]["port"] == 53;
        assert!(kept || shuts_in(&harness.model), "{policy}");
        assert_ne!(kept, lost(&harness.model, "a"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_turns_up_when_template_and_policy_are_gone_is_shut_in() {
    let harness = Harness::start();
    harness.covered_template().await;
    harness.settle().await;
    let refused = refuse_policies(&harness);
    harness.model.disturb(|call| {
        (call.resource == "pods" && call.verb == "create")
            .then(|| Mischief::Delay(Duration::from_secs(5)))
    });
    harness.model.create("sandboxclaims", cold("a"));
    harness.pass(Duration::from_secs(1)).await;
    // The pod is on its way.
    harness.model.remove("networkpolicies", POLICY);
    harness.pass(Duration::from_secs(1)).await;
    harness.model.delete("sandboxtemplates", "t");
    harness.pass(Duration::from_secs(1)).await;
    assert!(harness.model.list("pods").is_empty());
    refused.store(false, Ordering::SeqCst);
    harness
        .eventually("the pod is shut in", |model| {
            !model.list("pods").is_empty() && shuts_in(model)
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_were_promised_no_policy_get_none() {
    let mut harness = Harness::start();
    let unmanaged = json!({"networkPolicyManagement": "Unmanaged"});
    harness
        .model
        .create("sandboxtemplates", template("t", unmanaged));
    harness.model.create("sandboxclaims", cold("a"));
    harness.until_ready("sandboxclaims", "a").await;
    harness.settle().await;
    harness.model.delete("sandboxtemplates", "t");
    harness.assert_at_rest().await;
    harness.stop().await;
    harness.run(Config::default());
    harness.assert_at_rest().await;
    assert!(harness.model.list("networkpolicies").is_empty());
    assert!(!lost(&harness.model, "a"));
    harness.model.remove("pods", "a");
    harness
        .eventually("the pod is replaced", |model| {
            ready(model, "sandboxclaims", "a") && !model.list("pods").is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_kept_for_pods_from_before_starts_no_new_one_after_its_template() {
    let harness = Harness::start();
    under_own_rules(&harness).await;
    harness.model.create("sandboxclaims", cold("b"));
    harness.until_ready("sandboxclaims", "b").await;
    harness.model.patch(
        "sandboxtemplates",
        "t",
        json!({"spec": {"networkPolicyManagement": "Unmanaged"}}),
    );
    harness.settle().await;
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    harness.model.remove("pods", "b");
    harness
        .eventually("it does not start", |model| lost(model, "b"))
        .await;
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(harness.model.list("pods").len(), 1);
    let policy = harness.model.get("networkpolicies", POLICY).unwrap();
    assert_eq!(policy["spec"]["egress"][0]["ports"][0]["port"], 53);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_stays_for_a_pod_that_has_left_the_watch() {
    let mut harness = Harness::start();
    under_own_rules(&harness).await;
    harness.stop().await;
    hide(&harness, "a");
    harness.model.set_collects(false);
    harness.model.delete("sandboxtemplates", "t");
    harness.model.remove("sandboxclaims", "a");
    harness.model.remove("sandboxes", "a");
    harness.run(Config::default());
    harness.pass(Duration::from_secs(300)).await;
    assert!(harness.model.get("pods", "a").is_some());
    assert!(harness.model.get("networkpolicies", POLICY).is_some());
    harness.model.remove("pods", "a");
    harness
        .eventually("the policy goes", |model| {
            model.get("networkpolicies", POLICY).is_none()
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_left_the_watch_is_shut_in_when_its_policy_is_lost() {
    let mut harness = Harness::start();
    under_own_rules(&harness).await;
    harness.stop().await;
    hide(&harness, "a");
    lose_rules_unseen(&mut harness).await;
    let pod = harness.model.get("pods", "a").unwrap();
    assert!(pod["metadata"]["labels"][WATCHED_BY].is_string(), "{pod}");
    let sandbox = harness.model.get("sandboxes", "a").unwrap();
    assert_eq!(sandbox["status"]["replicas"], 1);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn no_pod_starts_under_a_policy_that_is_about_to_go() {
    let managed = |to: &str| json!({"spec": {"networkPolicyManagement": to}});
    for (switched, replaced) in [(true, false), (true, true), (false, true)] {
        let harness = Harness::start();
        let model = &harness.model;
        harness.covered_template().await;
        harness.settle().await;
        model.disturb(|call| {
            (call.resource == "networkpolicies" && call.verb == "delete")
                .then(|| Mischief::Delay(Duration::from_secs(5)))
        });
        if switched {
            model.patch("sandboxtemplates", "t", managed("Unmanaged"));
        } else {
            model.delete("sandboxtemplates", "t");
            harness.pass(Duration::from_secs(29)).await;
        }
        harness.pass(Duration::from_secs(2)).await;
        // Its deletion is on its way, and it is wanted again.
        assert_eq!(model.list("networkpolicies").len(), 1);
        if replaced {
            model.remove("sandboxtemplates", "t");
            model.create("sandboxtemplates", template("t", json!({})));
        } else {
            model.patch("sandboxtemplates", "t", managed("Managed"));
        }
        model.create("sandboxclaims", cold("a"));
        harness
            .eventually("the pod", |model| !model.list("pods").is_empty())
            .await;
        let policy = || {
            let policy = model.get("networkpolicies", POLICY);
            policy.map(|policy| policy["metadata"]["uid"].clone())
        };
        let covered_by = policy();
        harness.pass(Duration::from_secs(10)).await;
        assert!(covered_by.is_some());
        assert_eq!(
            policy(),
            covered_by,
            "switched {switched}, replaced {replaced}: the policy went and was made again"
        );
        harness.until_ready("sandboxclaims", "a").await;
        harness.assert_at_rest().await;
    }
}
