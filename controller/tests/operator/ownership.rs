//! Sandboxes: what is theirs, what only looks like it, and what they give up.

use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, condition, ready, said, sandbox, told};
use crate::model::Mischief;

#[tokio::test(start_paused = true)]
async fn a_pod_whose_creation_went_unanswered_is_known_at_once() {
    let harness = Harness::start();
    harness.settle().await;
    harness.model.hold_watches_of("pods");
    let mut lost = false;
    harness.model.disturb(move |call| {
        let hit = call.verb == "create" && call.resource == "pods" && !lost;
        lost |= hit;
        hit.then_some(Mischief::LoseAnswer)
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    // No watch tells of the pod: the operator must have asked.
    harness.until_ready("sandboxes", "s").await;
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 0);
    harness.model.release_watches();
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_unnoticed_pod_of_its_own_does_not_keep_a_sandbox_from_being_suspended() {
    let harness = Harness::start();
    harness.settle().await;
    harness.model.hold_watches_of("pods");
    let deaf = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = deaf.clone();
    harness.model.disturb(move |call| {
        if call.resource != "pods" || !still.load(std::sync::atomic::Ordering::SeqCst) {
            return None;
        }
        match call.verb {
            "create" => Some(Mischief::LoseAnswer),
            "get" => Some(Mischief::Refuse(
                503,
                "ServiceUnavailable",
                "not now".to_owned(),
            )),
            _ => None,
        }
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness
        .eventually("the pod nobody was told of", |model| {
            model.get("pods", "s").is_some()
        })
        .await;
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"operatingMode": "Suspended"}}),
    );
    harness.settle().await;
    deaf.store(false, std::sync::atomic::Ordering::SeqCst);
    harness
        .eventually("it is suspended", |model| {
            let sandbox = model.get("sandboxes", "s").unwrap();
            assert_ne!(said(&sandbox, "Suspended").1, "PodNotOwned");
            said(&sandbox, "Suspended").1 == "PodTerminated"
        })
        .await;
    assert!(harness.model.list("pods").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lost_its_tracking_label_is_still_its_owners() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let uid = harness.model.get("pods", "s").unwrap()["metadata"]["uid"].clone();
    let label = "agents.x-k8s.io/sandbox-name-hash";
    let strip = || {
        let patch = json!({"metadata": {"labels": {label: null}}});
        harness.model.patch("pods", "s", patch);
    };
    strip();
    harness
        .eventually("the label is back", |model| {
            model.get("pods", "s").unwrap()["metadata"]["labels"][label].is_string()
        })
        .await;
    harness.until_ready("sandboxes", "s").await;
    assert_eq!(
        harness.model.get("pods", "s").unwrap()["metadata"]["uid"],
        uid
    );
    harness.settle().await;
    // The watch takes the loss of the label for the end of the pod.
    strip();
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"operatingMode": "Suspended"}}),
    );
    harness
        .eventually("the pod is gone", |model| model.list("pods").is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_blocked_suspension_is_completed_when_the_pod_in_the_way_is_gone() {
    let harness = Harness::start();
    harness
        .model
        .create("pods", json!({"metadata": {"name": "s"}, "spec": {}}));
    harness.model.create(
        "sandboxes",
        sandbox("s", json!({"operatingMode": "Suspended"})),
    );
    harness
        .eventually("PodNotOwned", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Suspended").1 == "PodNotOwned"
        })
        .await;
    harness.assert_at_rest().await;
    // The pod carries no label of ours, so no watch sees it go.
    harness.model.remove("pods", "s");
    harness
        .eventually("it is suspended", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Suspended").1 == "PodTerminated"
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_does_not_select_by_a_label_its_pod_has_yet_to_get() {
    const UID: &str = "agents.x-k8s.io/sandbox-uid";
    let mut harness = Harness::start();
    harness
        .model
        .create("sandboxes", sandbox("s", json!({"service": true})));
    harness.until_ready("sandboxes", "s").await;
    harness.settle().await;
    harness.stop().await;
    // As an older controller left them.
    let strip = json!({"metadata": {"labels": {UID: null}}});
    harness.model.patch("pods", "s", strip);
    let strip = json!({"spec": {"selector": {UID: null}}});
    harness.model.patch("services", "s", strip);
    harness.run(Config {
        write_behind: Duration::from_secs(1),
        ..Config::default()
    });
    harness
        .eventually("the Service selects by UID", |model| {
            let pod = model.get("pods", "s").unwrap();
            let service = model.get("services", "s").unwrap();
            let selects = service["spec"]["selector"][UID].is_string();
            assert!(
                !selects || pod["metadata"]["labels"][UID].is_string(),
                "the Service lost its endpoint"
            );
            selects
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_somebody_else_is_not_mounted() {
    let harness = Harness::start();
    let foreign = json!({"metadata": {"name": "data-s"}, "spec": {}});
    harness.model.create("persistentvolumeclaims", foreign);
    let more = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
    harness.model.create("sandboxes", sandbox("s", more));
    harness
        .eventually("the refusal is reported", |model| {
            let sandbox = model.get("sandboxes", "s").unwrap();
            condition(&sandbox, "Ready").is_some_and(|ready| {
                ready["reason"] == "ReconcilerError"
                    && ready["message"].as_str().unwrap().contains("data-s")
            })
        })
        .await;
    harness.settle().await;
    assert!(harness.model.list("pods").is_empty());
    harness.model.remove("persistentvolumeclaims", "data-s");
    harness.until_ready("sandboxes", "s").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_name_that_two_sandboxes_share_is_the_firsts_and_a_mistake_of_the_seconds() {
    let harness = Harness::start();
    let volume =
        |name: &str| json!({"volumeClaimTemplates": [{"metadata": {"name": name}, "spec": {}}]});
    harness
        .model
        .create("sandboxes", sandbox("c", volume("a-b")));
    harness.until_ready("sandboxes", "c").await;
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.resource == "persistentvolumeclaims" && call.verb == "create" {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        None
    });
    harness
        .model
        .create("sandboxes", sandbox("b-c", volume("a")));
    harness
        .eventually("InvalidConfiguration", |model| {
            said(&model.get("sandboxes", "b-c").unwrap(), "Ready").1 == "InvalidConfiguration"
        })
        .await;
    let second = harness.model.get("sandboxes", "b-c").unwrap();
    let message = condition(&second, "Ready").unwrap()["message"].clone();
    assert!(message.as_str().unwrap().contains("\"a-b-c\""), "{message}");
    harness.pass(Duration::from_secs(300)).await;
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert!(harness.model.get("pods", "b-c").is_none());
    assert!(ready(&harness.model, "sandboxes", "c"));
    // The name is free again.
    harness.model.delete("sandboxes", "c");
    harness.until_ready("sandboxes", "b-c").await;
    let owner = harness
        .model
        .get("persistentvolumeclaims", "a-b-c")
        .unwrap();
    assert_eq!(owner["metadata"]["ownerReferences"][0]["name"], "b-c");
}

#[tokio::test(start_paused = true)]
async fn two_sandboxes_whose_names_share_a_hash_do_not_get_each_others_traffic() {
    let harness = Harness::start();
    let names = ["sandbox-0ac4t", "sandbox-yml5e"];
    for name in names {
        let more = json!({"service": true});
        harness.model.create("sandboxes", sandbox(name, more));
    }
    for name in names {
        harness.until_ready("sandboxes", name).await;
    }
    let hash = "agents.x-k8s.io/sandbox-name-hash";
    let pods = harness.model.list("pods");
    assert_eq!(
        pods[0]["metadata"]["labels"][hash], pods[1]["metadata"]["labels"][hash],
        "they do share it"
    );
    for name in names {
        let service = harness.model.get("services", name).unwrap();
        let selector = service["spec"]["selector"].as_object().unwrap();
        let selected: Vec<&Value> = pods
            .iter()
            .filter(|pod| {
                selector
                    .iter()
                    .all(|(key, value)| pod["metadata"]["labels"][key] == *value)
            })
            .map(|pod| &pod["metadata"]["name"])
            .collect();
        assert_eq!(selected, [name]);
        assert!(ready(&harness.model, "sandboxes", name));
    }
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_pod_spec_is_signalled_until_the_pod_is_replaced() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let outdated =
        |model: &crate::model::Model| said(&model.get("sandboxes", "s").unwrap(), "PodOutdated");
    let image = |image: &str| {
        harness.model.patch(
            "sandboxes",
            "s",
            json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}}}}),
        );
    };
    // Metadata reaches the pod as it is.
    let labels = json!({"spec": {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}});
    harness.model.patch("sandboxes", "s", labels);
    harness.settle().await;
    assert_eq!(outdated(&harness.model).0, "-");
    harness.settle().await;
    harness.model.take_writes();
    image("y");
    harness
        .eventually("the edit is signalled", |model| {
            outdated(model) == ("True".to_owned(), "PodSpecChanged".to_owned())
        })
        .await;
    harness.settle().await;
    let writes: Vec<&str> = harness
        .model
        .take_writes()
        .iter()
        .filter(|call| call.resource != "events")
        .map(|call| call.verb)
        .collect();
    assert_eq!(writes, ["patch"], "with the acknowledgement");
    assert!(ready(&harness.model, "sandboxes", "s"), "it still serves");
    assert_eq!(told(&harness, "PodOutdated"), 1);
    harness.assert_at_rest().await;
    image("x");
    harness
        .eventually("taken back", |model| outdated(model).0 == "-")
        .await;
    image("z");
    harness
        .eventually("and again", |model| outdated(model).0 == "True")
        .await;
    harness.model.remove("pods", "s");
    harness
        .eventually("the new pod is up to date", |model| {
            ready(model, "sandboxes", "s") && outdated(model).0 == "-"
        })
        .await;
    assert_eq!(
        harness.model.get("pods", "s").unwrap()["spec"]["containers"][0]["image"],
        "z"
    );
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_say_what_it_was_made_from_is_not_judged() {
    let harness = Harness::start();
    let pod = json!({"metadata": {"name": "s", "labels": {"agents.x-k8s.io/adoptable": "true"}}, "spec": {}});
    harness.model.create("pods", pod);
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"podTemplate": {"spec": {"hostname": "h"}}}}),
    );
    harness.settle().await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    assert!(condition(&sandbox, "PodOutdated").is_none());
    assert_eq!(
        condition(&sandbox, "Ready").unwrap()["observedGeneration"],
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_retained_volume_outlives_its_sandbox_and_serves_the_next_of_its_name() {
    let harness = Harness::start();
    let make = |retain: bool| {
        let more = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
        let mut object = sandbox("s", more);
        if retain {
            object["metadata"]["annotations"] = json!({"agents.x-k8s.io/retain-volumes": "true"});
        }
        harness.model.create("sandboxes", object);
    };
    let volume = |model: &crate::model::Model| model.get("persistentvolumeclaims", "data-s");
    let owned = |model: &crate::model::Model| {
        volume(model).unwrap()["metadata"]["ownerReferences"].is_array()
    };
    make(false);
    harness.until_ready("sandboxes", "s").await;
    assert!(owned(&harness.model));
    let uid = volume(&harness.model).unwrap()["metadata"]["uid"].clone();
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"metadata": {"annotations": {"agents.x-k8s.io/retain-volumes": "true"}}}),
    );
    harness
        .eventually("it is released", |model| !owned(model))
        .await;
    harness.assert_at_rest().await;
    harness.model.delete("sandboxes", "s");
    harness.settle().await;
    assert!(harness.model.list("pods").is_empty());
    assert!(volume(&harness.model).is_some());

    make(true);
    harness.until_ready("sandboxes", "s").await;
    assert!(!owned(&harness.model));
    harness.model.delete("sandboxes", "s");
    make(false);
    harness
        .eventually("it is taken again", |model| {
            ready(model, "sandboxes", "s") && owned(model)
        })
        .await;
    assert_eq!(volume(&harness.model).unwrap()["metadata"]["uid"], uid);
    harness.model.delete("sandboxes", "s");
    harness
        .eventually("and goes with its owner", |model| volume(model).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_label_alone_does_not_make_a_pod_ones_own() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    harness.create_twin(|twin| {
        let owner = &mut twin["metadata"]["ownerReferences"][0];
        owner["uid"] = json!("00000000-0000-4000-8000-00000000ffff");
    });
    harness.assert_at_rest().await;
    assert!(
        ready(&harness.model, "sandboxes", "s"),
        "not two of its own"
    );
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"operatingMode": "Suspended"}}),
    );
    harness
        .eventually("it is suspended", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Suspended").1 == "PodTerminated"
        })
        .await;
    assert!(harness.model.get("pods", "s").is_none());
    assert!(harness.model.get("pods", "twin").is_some());
}
