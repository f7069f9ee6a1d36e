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
    let mut twin = harness.model.get("pods", "s").unwrap();
    twin["metadata"]["name"] = json!("twin");
    twin["metadata"]["ownerReferences"][0]["uid"] = json!("00000000-0000-4000-8000-00000000ffff");
    twin["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    harness.model.create("pods", twin);
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

/// A running sandbox `s` whose pod may be evicted, and when its template stopped to say so.
async fn unevictable(harness: &Harness) -> tokio::time::Instant {
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    let more = json!({"podTemplate": {
        "metadata": {"annotations": {evict: "true"}}, "spec": {"containers": []},
    }});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    harness.settle().await;
    harness.model.take_writes();
    let patch = json!({"spec": {"podTemplate": {"metadata": {"annotations": {evict: null}}}}});
    harness.model.patch("sandboxes", "s", patch);
    tokio::time::Instant::now()
}

fn is_evictable(model: &crate::model::Model) -> bool {
    let pod = model.get("pods", "s").unwrap();
    pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
}

#[tokio::test(start_paused = true)]
async fn edits_of_a_pods_metadata_share_one_write_within_a_second() {
    let mut harness = Harness::new();
    // Longer than it may be, so that the bound is what ends it.
    harness.run(Config {
        write_behind: Duration::from_secs(10),
        ..Config::default()
    });
    let since = unevictable(&harness).await;
    for value in ["1", "2"] {
        harness.pass(Duration::from_millis(300)).await;
        assert!(is_evictable(&harness.model), "it waits for more");
        let patch = json!({"spec": {"podTemplate": {"metadata": {"labels": {"a": value}}}}});
        harness.model.patch("sandboxes", "s", patch);
    }
    harness
        .eventually("the pod may not be evicted", |model| !is_evictable(model))
        .await;
    assert!(since.elapsed() <= Duration::from_secs(1), "{since:?}");
    let pod = harness.model.get("pods", "s").unwrap();
    assert_eq!(pod["metadata"]["labels"]["a"], "2");
    harness.settle().await;
    let writes = harness.model.take_writes();
    let to_pods = writes.iter().filter(|call| call.resource == "pods");
    assert_eq!(to_pods.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_within_the_window_loses_nothing() {
    let mut harness = Harness::new();
    let config = || Config {
        write_behind: Duration::from_secs(1),
        ..Config::default()
    };
    harness.run(config());
    unevictable(&harness).await;
    harness.pass(Duration::from_millis(500)).await;
    harness.stop().await;
    assert!(is_evictable(&harness.model));
    harness.run(config());
    harness
        .eventually("the pod may not be evicted", |model| !is_evictable(model))
        .await;
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_set_on_a_running_sandbox_ends_it_then_and_not_before() {
    let harness = Harness::start();
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let at = harness.now() + jiff::SignedDuration::from_secs(10);
    harness.model.patch(
        "sandboxes",
        "s",
        json!({"spec": {"shutdownTime": at.to_string()}}),
    );
    let mut seen_late = false;
    harness
        .eventually("it expires", |model| {
            let expired =
                said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired";
            if expired || model.get("pods", "s").is_none() {
                assert!(harness.now() >= at, "{} is before {at}", harness.now());
            }
            seen_late |= harness.now() > at + jiff::SignedDuration::from_secs(1);
            expired
        })
        .await;
    assert!(!seen_late, "not within a second of its time");
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    let suspended = condition(&sandbox, "Suspended").unwrap();
    assert_eq!(suspended["status"], "False");
    assert_eq!(suspended["observedGeneration"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_completed_sandbox_keeps_saying_so_after_its_time() {
    let harness = Harness::start();
    let at = harness.now() + jiff::SignedDuration::from_secs(30);
    let more = json!({"shutdownTime": at.to_string(), "shutdownPolicy": "Retain", "service": true});
    harness.model.create("sandboxes", sandbox("s", more));
    harness.until_ready("sandboxes", "s").await;
    let done = json!({"phase": "Succeeded"});
    harness.model.patch_status("pods", "s", done);
    harness
        .eventually("it is finished", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Finished").1 == "PodSucceeded"
        })
        .await;
    harness
        .eventually("its time has come", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired"
                && model.list("pods").is_empty()
                && model.list("services").is_empty()
        })
        .await;
    harness.settle().await;
    let sandbox = harness.model.get("sandboxes", "s").unwrap();
    assert_eq!(
        said(&sandbox, "Finished"),
        ("True".to_owned(), "PodSucceeded".to_owned())
    );
    assert_eq!(sandbox["status"]["serviceFQDN"], Value::Null);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn transition_times_move_with_the_state_and_not_with_the_reason() {
    let harness = Harness::start();
    harness.model.set_graceful(true);
    harness.model.create("sandboxes", sandbox("s", json!({})));
    harness.until_ready("sandboxes", "s").await;
    let since = |model: &crate::model::Model| -> String {
        let sandbox = model.get("sandboxes", "s").unwrap();
        let suspended = condition(&sandbox, "Suspended").unwrap();
        suspended["lastTransitionTime"].as_str().unwrap().to_owned()
    };
    let until = async |reason: &str| {
        harness
            .eventually(reason, |model| {
                said(&model.get("sandboxes", "s").unwrap(), "Suspended").1 == reason
            })
            .await;
        since(&harness.model)
    };
    let mut last = until("NotSuspended").await;
    // A pod that is replaced changes nothing about that.
    harness.settle().await;
    harness.model.delete("pods", "s");
    harness.settle().await;
    harness.model.remove("pods", "s");
    harness.until_ready("sandboxes", "s").await;
    assert_eq!(since(&harness.model), last);
    for _ in 0..2 {
        let mode = |mode: &str| {
            let patch = json!({"spec": {"operatingMode": mode}});
            harness.model.patch("sandboxes", "s", patch);
        };
        harness.settle().await;
        mode("Suspended");
        assert_eq!(until("PodTerminating").await, last, "False to False");
        harness.settle().await;
        harness.model.remove("pods", "s");
        let suspended = until("PodTerminated").await;
        assert!(suspended > last, "{suspended} after {last}");
        harness.settle().await;
        mode("Running");
        last = until("NotSuspended").await;
        assert!(last > suspended, "{last} after {suspended}");
        harness.until_ready("sandboxes", "s").await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_sandboxes_than_workers_all_become_ready() {
    let mut harness = Harness::new();
    let mut config = Config::default();
    config.workers.sandboxes = 10;
    harness.run(config);
    let names: Vec<String> = (0..20).map(|index| format!("s{index}")).collect();
    for name in &names {
        harness.model.create("sandboxes", sandbox(name, json!({})));
    }
    for name in &names {
        harness.until_ready("sandboxes", name).await;
    }
    assert_eq!(harness.model.list("pods").len(), 20);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_too_long_for_a_service_is_a_mistake_and_not_a_loop() {
    let harness = Harness::start();
    let name = "s".repeat(64);
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    harness.model.disturb(move |call| {
        if call.resource != "services" || call.verb != "create" {
            return None;
        }
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let words = "metadata.name: Invalid value: must be no more than 63 characters";
        Some(Mischief::Refuse(422, "Invalid", words.to_owned()))
    });
    let more = json!({"service": true});
    harness.model.create("sandboxes", sandbox(&name, more));
    harness
        .eventually("InvalidConfiguration", |model| {
            let sandbox = model.get("sandboxes", &name).unwrap();
            condition(&sandbox, "Ready").is_some_and(|ready| {
                ready["reason"] == "InvalidConfiguration"
                    && ready["message"].as_str().unwrap().contains("63 characters")
            })
        })
        .await;
    harness.pass(Duration::from_secs(300)).await;
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 1);
    harness.assert_at_rest().await;
    // A change of the sandbox is another try; without the Service there is nothing wrong with it.
    let patch = json!({"spec": {"service": false}});
    harness.model.patch("sandboxes", &name, patch);
    harness.until_ready("sandboxes", &name).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_sandbox_still_expires_on_time() {
    let harness = Harness::start();
    harness.model.disturb(|call| {
        (call.resource == "pods" && call.verb == "create")
            .then(|| Mischief::Refuse(403, "Forbidden", "exceeded quota".to_owned()))
    });
    let at = harness.now() + jiff::SignedDuration::from_secs(150);
    let more = json!({"shutdownTime": at.to_string()});
    harness.model.create("sandboxes", sandbox("s", more));
    harness
        .eventually("it expires", |model| {
            said(&model.get("sandboxes", "s").unwrap(), "Ready").1 == "SandboxExpired"
        })
        .await;
    let late = harness.now().duration_since(at);
    assert!(late >= jiff::SignedDuration::ZERO, "{late:#}");
    assert!(late <= jiff::SignedDuration::from_secs(1), "{late:#}");
}
