//! Sandboxes by themselves: children, suspension, refusals, ends.

use agent_sandbox_crds::Sandbox;
use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::{Cluster, eventually};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::objects::*;

async fn create(client: &Client, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "agents.x-k8s.io/v1beta1",
        "kind": "Sandbox",
        "metadata": {"name": name},
        "spec": spec,
    });
    let object: Sandbox = serde_json::from_value(object).unwrap();
    sandboxes(client)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

async fn edit(client: &Client, name: &str, spec: Value) {
    let patch = json!({ "spec": spec });
    sandboxes(client)
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

/// Waits until a condition has this status and reason, and returns the sandbox.
async fn says(client: &Client, name: &str, kind: &str, status: &str, reason: &str) -> Sandbox {
    eventually(&format!("{name}: {kind}={status}/{reason}"), || async {
        let sandbox = sandboxes(client).get(name).await.ok()?;
        let condition = sandbox.condition(kind)?;
        (condition.status == status && condition.reason == reason).then_some(sandbox)
    })
    .await
}

fn pod(container: &Value) -> Value {
    json!({"spec": {"containers": [container]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_and_resume_replace_the_pod_and_keep_the_rest() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    create(
        &client,
        "s",
        json!({
            "service": true,
            "podTemplate": pod(&json!({"name": "main", "image": IMAGE, "ports": [{"containerPort": 80}]})),
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        }),
    )
    .await;
    let ready = says(&client, "s", "Ready", "True", "DependenciesReady").await;
    let status = ready.status.unwrap();
    assert_eq!(
        status.service_fqdn.as_deref(),
        Some(format!("s.{}.svc.cluster.local", cluster.namespace()).as_str())
    );
    let first = pods(&client).get("s").await.unwrap();
    let volumes = &first.spec.as_ref().unwrap().volumes;
    let claimed = volumes.iter().flatten().any(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        claim.is_some_and(|claim| claim.claim_name == "data-s")
    });
    assert!(claimed, "{volumes:?}");

    edit(&client, "s", json!({"operatingMode": "Suspended"})).await;
    let suspended = says(&client, "s", "Suspended", "True", "PodTerminated").await;
    assert!(pods(&client).get_opt("s").await.unwrap().is_none());
    assert!(suspended.status.unwrap().selector.is_some());
    let services: Api<Service> = Api::default_namespaced(client.clone());
    assert!(services.get_opt("s").await.unwrap().is_some());
    let volumes: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    assert!(volumes.get_opt("data-s").await.unwrap().is_some());

    edit(&client, "s", json!({"operatingMode": "Running"})).await;
    says(&client, "s", "Ready", "True", "DependenciesReady").await;
    assert_ne!(pods(&client).get("s").await.unwrap().uid(), first.uid());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_pod_field_is_named_and_not_tried_again() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let container = json!({"name": "main", "image": IMAGE, "imagePullPolice": "Always"});
    create(&client, "s", json!({"podTemplate": pod(&container)})).await;
    let refused = says(&client, "s", "Ready", "False", "InvalidConfiguration").await;
    let message = &refused.condition("Ready").unwrap().message;
    assert!(
        message.contains("spec.containers[0].imagePullPolice"),
        "{message}"
    );
    cluster.controller_writes().clear();
    // Another sandbox that comes and becomes ready shows that time has passed without another try.
    let good = json!({"name": "main", "image": IMAGE});
    create(&client, "other", json!({"podTemplate": pod(&good)})).await;
    says(&client, "other", "Ready", "True", "DependenciesReady").await;
    let tries = cluster.controller_writes().counts();
    assert_eq!(tries.get("POST pods"), Some(&1), "{tries:?}");
    edit(&client, "s", json!({"podTemplate": pod(&good)})).await;
    says(&client, "s", "Ready", "True", "DependenciesReady").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_sandbox_keeps_its_conditions_and_lives_again() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let at = Timestamp::now() + SignedDuration::from_secs(2);
    create(
        &client,
        "s",
        json!({
            "podTemplate": pod(&json!({"name": "main", "image": IMAGE})),
            "shutdownTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }),
    )
    .await;
    says(&client, "s", "Ready", "False", "SandboxExpired").await;
    eventually("status and pod are cleared", || async {
        let status = sandboxes(&client).get("s").await.ok()?.status?;
        let gone = pods(&client).get_opt("s").await.ok()?.is_none();
        (gone && status.pod_ips.is_empty() && status.selector.is_none()).then_some(())
    })
    .await;
    edit(&client, "s", json!({"shutdownTime": null})).await;
    says(&client, "s", "Ready", "True", "DependenciesReady").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_version_suspends_by_replicas() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let template = pod(&json!({"name": "main", "image": IMAGE}));
    create(
        &client,
        "s",
        json!({"podTemplate": template, "replicas": 1}),
    )
    .await;
    says(&client, "s", "Ready", "True", "DependenciesReady").await;
    edit(&client, "s", json!({"replicas": 0})).await;
    says(&client, "s", "Suspended", "True", "PodTerminated").await;
    assert!(pods(&client).get_opt("s").await.unwrap().is_none());
    cluster.stop().await;
}
