//! The life of a claim with a real pod, on a runtime of its choice, from a pool that an autoscaler
//! drives.

use agent_sandbox_tests::Cluster;
use agent_sandbox_tests::cluster::IMAGE;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::shell;
use crate::objects::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e nodes"]
async fn a_claim_is_bound_used_suspended_resumed_and_gone() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let namespace = cluster.namespace();
    template_and_pool(&client, "pool", 2).await;
    let members = sandbox_names(&client).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    assert!(members.contains(&sandbox), "it was in the pool");
    let status = claims(&client)
        .get_status("claim")
        .await
        .unwrap()
        .status
        .unwrap();
    let pod = pods(&client).get(&sandbox).await.unwrap();
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    assert_eq!(status.sandbox.unwrap().pod_ips.first(), address.as_ref());

    let (worked, output) = shell(namespace, &sandbox, "echo used; hostname").await;
    assert!(worked, "{output}");
    assert_eq!(output, format!("used\n{sandbox}\n"));

    set_mode(&client, &sandbox, "Suspended").await;
    reason(&client, "claim", "SandboxSuspended").await;
    gone(&pods(&client), &sandbox).await;
    set_mode(&client, &sandbox, "Running").await;
    assert_eq!(bound(&client, "claim").await, sandbox);
    assert_ne!(pods(&client).get(&sandbox).await.unwrap().uid(), pod.uid());

    let over = json!({"spec": {"lifecycle": {
        "shutdownTime": "2020-01-01T00:00:00Z", "shutdownPolicy": "Delete",
    }}});
    claims(&client)
        .patch("claim", &PatchParams::default(), &Patch::Merge(&over))
        .await
        .unwrap();
    gone(&claims(&client), "claim").await;
    gone(&sandboxes(&client), &sandbox).await;
    gone(&pods(&client), &sandbox).await;
    delete(&pools(&client), "pool").await;
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e nodes"]
async fn a_runtime_class_reaches_members_and_their_pods() {
    let handler = std::env::var_os("AGENT_SANDBOX_TEST_RUNTIME_HANDLER").unwrap();
    let handler = handler.to_str().unwrap().to_owned();
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let class = cluster.namespace();
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let object = json!({"metadata": {"name": class}, "handler": handler});
    let object = serde_json::from_value(object).unwrap();
    classes
        .create(&PostParams::default(), &object)
        .await
        .unwrap();

    let pod = json!({"runtimeClassName": class, "containers": [{"name": "main", "image": IMAGE}]});
    template(&client, "chosen", json!({"podTemplate": {"spec": pod}})).await;
    pool(&client, "pool", "chosen", 1).await;
    let mut seen = Vec::new();
    for (name, sandboxes_in_all) in [("first", 2), ("second", 3)] {
        let members = sandbox_names(&client).await;
        create_claim(&client, name, "pool", json!({})).await;
        let sandbox = bound(&client, name).await;
        assert!(members.contains(&sandbox), "it was in the pool");
        let object = sandboxes(&client).get(&sandbox).await.unwrap();
        let object = serde_json::to_value(object).unwrap();
        let wanted = object.pointer("/spec/podTemplate/spec/runtimeClassName");
        assert_eq!(wanted.and_then(Value::as_str), Some(class));
        let pod = pods(&client).get(&sandbox).await.unwrap();
        assert_eq!(pod.spec.unwrap().runtime_class_name.as_deref(), Some(class));
        refilled(&client, "pool", 1, sandboxes_in_all).await;
        seen.push(sandbox);
    }
    assert_ne!(seen[0], seen[1]);
    classes
        .delete(class, &DeleteParams::default())
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e nodes"]
async fn an_autoscaler_drives_the_size_of_a_pool() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client.clone());
    // No metrics are needed to keep a number within its limits.
    let limits = |least: i32, most: i32| {
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "pool"},
            "spec": {
                "minReplicas": least,
                "maxReplicas": most,
                "scaleTargetRef": {
                    "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
                    "kind": "SandboxWarmPool",
                    "name": "pool",
                },
            },
        })
    };
    for (least, most, replicas) in [(3, 4, 3), (1, 2, 2)] {
        let parameters = PatchParams::apply("tests").force();
        autoscalers
            .patch("pool", &parameters, &Patch::Apply(&limits(least, most)))
            .await
            .unwrap();
        pool_ready(&client, "pool", replicas).await;
        let spec = pools(&client).get("pool").await.unwrap().spec;
        assert_eq!(usize::try_from(spec.replicas.unwrap()).unwrap(), replicas);
    }
    cluster.stop().await;
}
