//! Claims: where they look, what they may ask for, and what they wait for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Harness, claim, condition, is_ready, ready, said, template, warm_pool};
use crate::model::{Mischief, Model};

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
async fn a_claim_without_a_template_takes_the_member_that_turns_up() {
    let harness = Harness::start();
    harness.pool("p", 0).await;
    harness.model.disturb(|call| {
        let is_member = call.verb == "create" && call.resource == "sandboxes";
        is_member.then_some(Mischief::Delay(Duration::from_secs(5)))
    });
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 1}}));
    harness.pass(Duration::from_millis(100)).await;
    harness.model.delete("sandboxtemplates", "t");
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("TemplateNotFound", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            said(&claim, "Ready").1 == "TemplateNotFound"
        })
        .await;
    assert_eq!(harness.model.list("sandboxes").len(), 0);
    harness.until_ready("sandboxclaims", "c").await;
    // Without being told, it would look again a minute after it had found nothing.
    let claim = harness.model.get("sandboxclaims", "c").unwrap();
    let since = &condition(&claim, "Ready").unwrap()["lastTransitionTime"];
    assert!(since.as_str().unwrap() < "2026-01-01T00:00:40Z", "{since}");
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
    let bound = |name: &str| harness.sandbox_of(name);
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
    let name = harness.sandbox_of("c");
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
