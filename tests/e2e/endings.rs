//! How claims end with pods that take their time: on real processes in every case.

use std::pin::pin;

use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::{Cluster, eventually};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::objects::*;

/// Creates a template, with a Service, whose pods are of this container.
async fn template_of(client: &Client, name: &str, container: Value, restart: &str) {
    let mut main = json!({"name": "main", "image": IMAGE, "ports": [{"containerPort": 8888}]});
    for (key, value) in container.as_object().unwrap() {
        main[key] = value.clone();
    }
    let spec = json!({
        "service": true,
        "networkPolicyManagement": "Unmanaged",
        "podTemplate": {"spec": {"containers": [main], "restartPolicy": restart}},
    });
    template(client, name, spec).await;
}

/// Claims straight from a template, with this lifecycle.
async fn claim_of(client: &Client, name: &str, template: &str, lifecycle: Value) {
    let spec = json!({
        "warmPoolRef": null,
        "sandboxTemplateRef": {"name": template},
        "lifecycle": lifecycle,
    });
    create_claim(client, name, "none", spec).await;
}

async fn set_lifecycle(client: &Client, name: &str, lifecycle: Value) {
    let patch = json!({"spec": {"lifecycle": lifecycle}});
    claims(client)
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

/// The state of the cluster when the object of this name, which is there, went.
async fn revision_of_end<K>(client: &Client, name: &str) -> u64
where
    K: Resource<Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher::watcher(api, config));
    loop {
        let event = events.try_next().await.unwrap().unwrap();
        if let Event::Delete(object) = event {
            return object.resource_version().unwrap().parse().unwrap();
        }
    }
}

fn services(client: &Client) -> Api<Service> {
    Api::default_namespaced(client.clone())
}

/// Whether sandbox, pod and Service of this name are there.
async fn children(client: &Client, name: &str) -> [bool; 3] {
    [
        sandboxes(client).get_opt(name).await.unwrap().is_some(),
        pods(client).get_opt(name).await.unwrap().is_some(),
        services(client).get_opt(name).await.unwrap().is_some(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreground_deletion_keeps_the_claim_until_a_slow_pod_is_gone() {
    let cluster = Cluster::with_real_pods().await.unwrap();
    let client = cluster.client();
    let slow = json!({
        "command": ["sleep", "infinity"],
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
    });
    template_of(&client, "slow", slow, "Always").await;
    let far = json!({"shutdownTime": "2100-01-01T00:00:00Z", "shutdownPolicy": "DeleteForeground"});
    claim_of(&client, "claim", "slow", far).await;
    assert_eq!(bound(&client, "claim").await, "claim");
    assert_eq!(children(&client, "claim").await, [true; 3]);

    let ends = async {
        tokio::join!(
            revision_of_end::<k8s_openapi::api::core::v1::Pod>(&client, "claim"),
            revision_of_end::<Service>(&client, "claim"),
            revision_of_end::<agent_sandbox_crds::Sandbox>(&client, "claim"),
            revision_of_end::<agent_sandbox_crds::SandboxClaim>(&client, "claim"),
        )
    };
    let expiry = async {
        set_lifecycle(
            &client,
            "claim",
            json!({"shutdownTime": "2020-01-01T00:00:00Z"}),
        )
        .await;
        eventually("claim and pod are on their way out", || async {
            let claim = claims(&client).get_opt("claim").await.ok()??;
            let pod = pods(&client).get_opt("claim").await.ok()??;
            let going = claim.metadata.deletion_timestamp.is_some()
                && pod.metadata.deletion_timestamp.is_some();
            going.then_some(())
        })
        .await;
    };
    let ((pod, service, sandbox, claim), ()) = tokio::join!(ends, expiry);
    assert!(
        pod < sandbox,
        "the pod went at {pod}, its sandbox at {sandbox}"
    );
    assert!(
        service < sandbox,
        "the Service went at {service}, its sandbox at {sandbox}"
    );
    assert!(
        sandbox < claim,
        "the sandbox went at {sandbox}, its claim at {claim}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_claim_goes_after_its_time_and_stays_without_one() {
    let cluster = Cluster::with_real_pods().await.unwrap();
    let client = cluster.client();
    template_of(&client, "short", json!({"command": ["true"]}), "Never").await;
    claim_of(
        &client,
        "kept",
        "short",
        json!({"shutdownPolicy": "Delete"}),
    )
    .await;
    reason(&client, "kept", "PodSucceeded").await;
    let lifecycle = json!({"shutdownPolicy": "Delete", "ttlSecondsAfterFinished": 5});
    claim_of(&client, "timed", "short", lifecycle).await;
    gone(&claims(&client), "timed").await;
    eventually("everything of it is gone", || async {
        (children(&client, "timed").await == [false; 3]).then_some(())
    })
    .await;
    // It finished before the other one, so it has been finished for more than five seconds.
    assert!(claims(&client).get_opt("kept").await.unwrap().is_some());
    assert_eq!(children(&client, "kept").await, [true; 3]);
    reason(&client, "kept", "PodSucceeded").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_claim_says_expired_and_finished_while_its_sandbox_is_held() {
    const HELD: &str = "tests.example/held";
    let cluster = Cluster::with_real_pods().await.unwrap();
    let client = cluster.client();
    template_of(&client, "short", json!({"command": ["true"]}), "Never").await;
    let lifecycle = json!({"shutdownPolicy": "Retain", "ttlSecondsAfterFinished": 3600});
    claim_of(&client, "claim", "short", lifecycle).await;
    reason(&client, "claim", "PodSucceeded").await;
    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    sandboxes(&client)
        .patch("claim", &PatchParams::default(), &finalizers(json!([HELD])))
        .await
        .unwrap();
    set_lifecycle(&client, "claim", json!({"ttlSecondsAfterFinished": 0})).await;

    reason(&client, "claim", "ClaimExpired").await;
    eventually("the sandbox is on its way out", || async {
        let sandbox = sandboxes(&client).get("claim").await.ok()?;
        sandbox.metadata.deletion_timestamp.map(drop)
    })
    .await;
    assert_eq!(
        finished(&client).await,
        ("True".to_owned(), "PodSucceeded".to_owned())
    );
    reason(&client, "claim", "ClaimExpired").await;
    assert!(
        sandboxes(&client).get_opt("claim").await.unwrap().is_some(),
        "all that was said while it was held"
    );

    sandboxes(&client)
        .patch("claim", &PatchParams::default(), &finalizers(Value::Null))
        .await
        .unwrap();
    eventually("everything of it is gone", || async {
        (children(&client, "claim").await == [false; 3]).then_some(())
    })
    .await;
    reason(&client, "claim", "ClaimExpired").await;
    assert_eq!(
        finished(&client).await,
        ("True".to_owned(), "PodSucceeded".to_owned())
    );
    cluster.stop().await;
}

/// Status and reason of the claim's Finished condition.
async fn finished(client: &Client) -> (String, String) {
    let status = claims(client).get_status("claim").await.unwrap().status;
    let conditions = status.unwrap().conditions;
    let finished = conditions
        .iter()
        .find(|condition| condition.type_ == "Finished")
        .unwrap();
    (finished.status.clone(), finished.reason.clone())
}
