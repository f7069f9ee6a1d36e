//! Sandboxes: children, suspension, adoption, refusals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Harness, condition, ready, said, sandbox};
use crate::model::{Mischief, Model};

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
    harness.create_twin(|_| {});
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

#[tokio::test(start_paused = true)]
async fn a_foreign_service_that_nobody_labelled_is_found_where_one_is_wanted_and_never_touched() {
    for (wanted, is_adoptable) in [(true, false), (false, false), (true, true)] {
        let harness = Harness::start();
        let mut service = json!({
            "metadata": {"name": "s", "labels": {"app": "mine"}},
            "spec": {"clusterIP": "None", "selector": {"app": "mine"}},
        });
        if is_adoptable {
            service["metadata"]["labels"]["agents.x-k8s.io/adoptable"] = json!("s");
        }
        let before = harness.model.create("services", service);
        let more = if wanted {
            json!({"service": true})
        } else {
            json!({})
        };
        harness.model.create("sandboxes", sandbox("s", more));
        let ready = |model: &Model| said(&model.get("sandboxes", "s").unwrap(), "Ready");
        let wants = if wanted && !is_adoptable {
            ("False".to_owned(), "ReconcilerError".to_owned())
        } else {
            ("True".to_owned(), "DependenciesReady".to_owned())
        };
        harness
            .eventually("the verdict", |model| ready(model) == wants)
            .await;
        harness.settle().await;
        assert_eq!(ready(&harness.model), wants);
        let after = harness.model.get("services", "s").unwrap();
        if is_adoptable {
            let owner = &after["metadata"]["ownerReferences"][0];
            assert_eq!(owner["kind"], "Sandbox");
            let selector = after["spec"]["selector"].as_object().unwrap();
            assert!(selector.contains_key("agents.x-k8s.io/sandbox-name-hash"));
            assert!(!selector.contains_key("app"), "{after}");
        } else {
            assert_eq!(after, before);
        }
    }
}
