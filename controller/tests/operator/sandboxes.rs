//! Sandboxes: children, suspension, adoption, refusals.

use std::time::Duration;

use agent_sandbox_controller::Config;
use serde_json::{Value, json};

use crate::harness::{Harness, condition, ready, said, sandbox};
use crate::model::Mischief;

#[tokio::test(start_paused = true)]
async fn a_sandbox_gets_a_pod_a_headless_service_and_its_volumes() {
    let harness = Harness::start();
    let more = json!({
        "service": true,
        "podTemplate": {
            "metadata": {"labels": {"a": "b", "agents.x-k8s.io/claim-uid": "x"}, "annotations": {"c": "d"}},
            "spec": {"fromTheFuture": 1, "containers": [{"name": "m", "ports": [{"containerPort": 80, "name": "web"}]}]},
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    });
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    let uid = &sandbox["metadata"]["uid"];
    assert_eq!(
        condition(&sandbox, "Ready").unwrap()["message"],
        "Pod is Ready; Service Exists"
    );
    assert_eq!(sandbox["status"]["serviceFQDN"], "s.n.svc.cluster.local");
    let selector = sandbox["status"]["selector"].as_str().unwrap();
    assert!(selector.starts_with("agents.x-k8s.io/sandbox-name-hash="));

    let pod = harness.model.get("pods", "s").unwrap();
    assert_eq!(
        pod["spec"]["fromTheFuture"], 1,
        "fields we do not know reach the pod"
    );
    assert_eq!(pod["metadata"]["labels"]["a"], "b");
    assert_eq!(
        pod["metadata"]["labels"]["agents.x-k8s.io/claim-uid"],
        Value::Null
    );
    assert_eq!(pod["metadata"]["annotations"]["c"], "d");
    let service = harness.model.get("services", "s").unwrap();
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 80}])
    );
    let volume = harness
        .model
        .get("persistentvolumeclaims", "data-s")
        .unwrap();
    for child in [&pod, &service, &volume] {
        assert_eq!(&child["metadata"]["ownerReferences"][0]["uid"], uid);
    }
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn suspend_and_resume_keep_service_and_volume_and_replace_the_pod() {
    let harness = Harness::start();
    harness.model.set_graceful(true);
    let more = json!({
        "service": true,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
    });
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    for _ in 0..2 {
        let old = harness.model.get("pods", "s").unwrap()["metadata"]["uid"].clone();
        harness.model.patch(
            "sandboxes",
            "s",
            json!({"spec": {"operatingMode": "Suspended"}}),
        );
        harness
            .eventually("the pod is terminating", |model| {
                let sandbox = model.get("sandboxes", "s").unwrap();
                said(&sandbox, "Suspended") == ("False".to_owned(), "PodTerminating".to_owned())
            })
            .await;
        let selector = harness.model.get("sandboxes", "s").unwrap()["status"]["selector"].clone();
        assert!(selector.is_string(), "clients parse it while suspending");
        harness.model.remove("pods", "s");
        harness
            .eventually("it is suspended", |model| {
                let sandbox = model.get("sandboxes", "s").unwrap();
                let generation = sandbox["metadata"]["generation"].clone();
                said(&sandbox, "Suspended") == ("True".to_owned(), "PodTerminated".to_owned())
                    && said(&sandbox, "Ready").1 == "SandboxSuspended"
                    && condition(&sandbox, "Suspended").unwrap()["observedGeneration"] == generation
            })
            .await;
        assert!(harness.model.get("services", "s").is_some());
        assert!(
            harness
                .model
                .get("persistentvolumeclaims", "data-s")
                .is_some()
        );
        harness.model.patch(
            "sandboxes",
            "s",
            json!({"spec": {"operatingMode": "Running"}}),
        );
        harness.until_ready("sandboxes", "s").await;
        assert_ne!(
            harness.model.get("pods", "s").unwrap()["metadata"]["uid"],
            old
        );
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_of_the_older_version_suspend_too() {
    let harness = Harness::start();
    harness
        .model
        .create("sandboxes", sandbox("s", json!({"replicas": 1})));
    harness.until_ready("sandboxes", "s").await;
    assert_eq!(
        harness.model.get("sandboxes", "s").unwrap()["status"]["replicas"],
        1
    );
    harness
        .model
        .patch("sandboxes", "s", json!({"spec": {"replicas": 0}}));
    harness
        .eventually("the pod is gone", |model| model.list("pods").is_empty())
        .await;
    harness
        .eventually("and counted", |model| {
            model.get("sandboxes", "s").unwrap()["status"]["replicas"] == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced_only_when_it_is_gone() {
    let harness = Harness::start();
    harness.model.set_graceful(true);
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let old = harness.model.get("pods", "s").unwrap()["metadata"]["uid"].clone();
    harness.model.delete("pods", "s");
    harness
        .eventually("nobody is sent to a pod on its way out", |model| {
            !ready(model, "sandboxes", "s")
        })
        .await;
    harness.settle().await;
    assert_eq!(
        harness.model.get("pods", "s").unwrap()["metadata"]["uid"],
        old
    );
    harness.model.remove("pods", "s");
    harness.until_ready("sandboxes", "s").await;
    assert_ne!(
        harness.model.get("pods", "s").unwrap()["metadata"]["uid"],
        old
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_is_reported_with_the_servers_words_and_not_tried_again() {
    let harness = Harness::start();
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = tries.clone();
    harness.model.disturb(move |call| {
        if call.verb != "create" || call.resource != "pods" {
            return None;
        }
        if counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            return None;
        }
        Some(Mischief::Refuse(
            400,
            "BadRequest",
            "strict decoding error: unknown field \"spec.containers[0].imagee\"".to_owned(),
        ))
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness
        .eventually("InvalidConfiguration", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "InvalidConfiguration"
        })
        .await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    let message = condition(&sandbox, "Ready").unwrap()["message"]
        .as_str()
        .unwrap();
    assert!(message.contains("spec.containers[0].imagee"), "{message}");
    harness.pass(Duration::from_secs(300)).await;
    assert_eq!(
        tries.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "no hot loop"
    );
    // A change of the sandbox is another try.
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"podTemplate": {"spec": {"x": 1}}}}),
    );
    harness.until_ready("sandboxes", "s").await;
}

#[tokio::test(start_paused = true)]
async fn text_that_the_definitions_refuse_does_not_keep_a_status_from_being_written() {
    let harness = Harness::start();
    harness.model.set_kubelet(false);
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness
        .eventually("the pod", |model| model.get("pods", "s").is_some())
        .await;
    let status = json!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "0/3 nodes", "message": "are big enough",
    }]});
    harness.model.patch_status("pods", "s", status);
    harness
        .eventually("what the scheduler said", |model| {
            let sandbox = model.get("sandboxes", "s").unwrap();
            condition(&sandbox, "PodScheduled").is_some_and(|scheduled| {
                scheduled["reason"] == "Unknown"
                    && scheduled["message"] == "0/3 nodes: are big enough"
            })
        })
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_any_length_is_reported() {
    let harness = Harness::start();
    harness.model.disturb(|call| {
        (call.verb == "create" && call.resource == "pods")
            .then(|| Mischief::Refuse(422, "Invalid", "no ".repeat(20_000)))
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness
        .eventually("InvalidConfiguration", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "InvalidConfiguration"
        })
        .await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    let message = &condition(&sandbox, "Ready").unwrap()["message"];
    assert!(message.as_str().unwrap().ends_with('…'), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_volume_name_is_invalid_configuration() {
    let harness = Harness::start();
    let more = json!({"volumeClaimTemplates": [{"metadata": {"name": "Not_A_Name"}, "spec": {}}]});
    harness.model.create("sandboxes", sandbox("s", more));
    harness
        .eventually("InvalidConfiguration", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "InvalidConfiguration"
        })
        .await;
    assert!(harness.model.list("pods").is_empty());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_pod_is_never_touched_and_its_end_is_noticed() {
    let harness = Harness::start();
    let foreign = json!({"metadata": {"name": "s", "ownerReferences": [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u", "controller": true},
    ]}, "spec": {}});
    harness.model.create("pods", foreign);
    let before = harness.model.get("pods", "s").unwrap();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness
        .eventually("the refusal is reported", |model| {
            let sandbox = model.get("sandboxes", "s").unwrap();
            condition(&sandbox, "Ready").is_some_and(|ready| {
                ready["reason"] == "ReconcilerError"
                    && ready["message"]
                        .as_str()
                        .unwrap()
                        .contains("owned by Job/j")
            })
        })
        .await;
    harness.settle().await;
    assert_eq!(harness.model.get("pods", "s").unwrap(), before);
    // The pod carries no label of ours, so no watch sees it go.
    harness.model.remove("pods", "s");
    harness.until_ready("sandboxes", "s").await;
}

#[tokio::test(start_paused = true)]
async fn an_unowned_pod_blocks_suspension_and_survives() {
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
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    assert_eq!(sandbox["status"]["podIPs"], Value::Null);
    assert!(harness.model.get("pods", "s").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_authorised_pod_is_taken_over() {
    let harness = Harness::start();
    let pod = json!({"metadata": {"name": "s", "labels": {"agents.x-k8s.io/adoptable": "true"}}, "spec": {}});
    let uid = harness.model.create("pods", pod)["metadata"]["uid"].clone();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let pod = harness.model.get("pods", "s").unwrap();
    assert_eq!(pod["metadata"]["uid"], uid);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], "s");
    assert!(pod["metadata"]["labels"]["agents.x-k8s.io/sandbox-name-hash"].is_string());
}

#[tokio::test(start_paused = true)]
async fn two_owned_pods_stop_everything_and_say_so_once() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let mut twin = harness.model.get("pods", "s").unwrap();
    twin["metadata"]["name"] = json!("twin");
    twin["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    harness.model.create("pods", twin);
    harness
        .eventually("MultiplePods", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "MultiplePods"
        })
        .await;
    harness.settle().await;
    assert_eq!(harness.model.list("pods").len(), 2);
    let events = harness.model.list("events");
    let told = events
        .iter()
        .filter(|event| event["reason"] == "MultiplePods");
    assert_eq!(told.count(), 1);
    harness.model.remove("pods", "twin");
    harness.until_ready("sandboxes", "s").await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_volume_claim_is_made_again() {
    let harness = Harness::start();
    let more = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness.model.remove("persistentvolumeclaims", "data-s");
    harness
        .eventually("it is back", |model| {
            model.get("persistentvolumeclaims", "data-s").is_some()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn template_labels_removed_from_the_sandbox_leave_the_pod_and_foreign_ones_stay() {
    let harness = Harness::start();
    let more = json!({"podTemplate": {
        "metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}},
        "spec": {"containers": []},
    }});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness
        .model
        .patch("pods", "s", json!({"metadata": {"labels": {"mesh": "on"}}}));
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"podTemplate": {"metadata": {"labels": {"a": null, "b": "9"}, "annotations": null}}}}),
    );
    harness
        .eventually("the pod follows", |model| {
            let meta = model.get("pods", "s").unwrap()["metadata"].clone();
            meta["labels"]["a"].is_null()
                && meta["labels"]["b"] == "9"
                && meta["annotations"]["c"].is_null()
        })
        .await;
    assert_eq!(
        harness.model.get("pods", "s").unwrap()["metadata"]["labels"]["mesh"],
        "on"
    );
    harness.assert_at_rest().await;
}

/// How many events of a reason there are.
fn told(harness: &Harness, reason: &str) -> usize {
    let events = harness.model.list("events");
    events
        .iter()
        .filter(|event| event["reason"] == reason)
        .count()
}

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
async fn one_cause_is_told_in_one_event() {
    let harness = Harness::start();
    let words = std::sync::Arc::new(parking_lot::Mutex::new("exceeded quota"));
    let said = words.clone();
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.verb != "create" || call.resource != "pods" || said.lock().is_empty() {
            return None;
        }
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Some(Mischief::Refuse(
            403,
            "Forbidden",
            (*said.lock()).to_owned(),
        ))
    });
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.pass(Duration::from_secs(120)).await;
    assert!(tries.load(std::sync::atomic::Ordering::SeqCst) > 3);
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 1);
    *words.lock() = "no such service account";
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 2);
    *words.lock() = "";
    harness.until_ready("sandboxes", "s").await;
    // What went well in between makes the same failure news again.
    *words.lock() = "no such service account";
    harness.model.remove("pods", "s");
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(told(&harness, "SandboxPodCreateFailed"), 3);
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
async fn the_status_of_a_sandbox_that_is_gone_is_written_once() {
    let harness = Harness::start();
    let at = harness.now() + jiff::SignedDuration::from_secs(30);
    let more = json!({"shutdownTime": at.to_string()});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness.settle().await;
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.resource == "sandboxes" && call.status {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        None
    });
    harness.model.hold_watches_of("sandboxes");
    harness.model.remove("sandboxes", "s");
    harness.pass(Duration::from_secs(15)).await;
    tries.store(0, std::sync::atomic::Ordering::SeqCst);
    // Its time comes, and the answer is that there is no such sandbox.
    harness.pass(Duration::from_secs(120)).await;
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 1);
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
