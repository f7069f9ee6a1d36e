//! Claims, pools and templates written in `v1alpha1`.

use agent_sandbox_tests::Cluster;
use agent_sandbox_tests::cluster::IMAGE;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::objects::*;

/// The v1alpha1 face of a kind.
fn older(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("extensions.agents.x-k8s.io", "v1alpha1", kind);
    Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk(&kind))
}

async fn create_older(client: &Client, kind: &str, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    older(client, kind)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_the_older_version_start_warm_and_cold() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let template =
        json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": IMAGE}]}}});
    create_older(&client, "SandboxTemplate", "old", template).await;
    let pool = json!({"replicas": 2, "sandboxTemplateRef": {"name": "old"}});
    create_older(&client, "SandboxWarmPool", "old-pool", pool).await;
    pool_ready(&client, "old-pool", 2).await;
    let claim =
        |warmpool: &str| json!({"sandboxTemplateRef": {"name": "old"}, "warmpool": warmpool});
    create_older(&client, "SandboxClaim", "any", claim("default")).await;
    create_older(&client, "SandboxClaim", "named", claim("old-pool")).await;
    create_older(&client, "SandboxClaim", "cold", claim("none")).await;
    assert!(bound(&client, "any").await.starts_with("old-pool-"));
    assert!(bound(&client, "named").await.starts_with("old-pool-"));
    assert_eq!(bound(&client, "cold").await, "cold");
    cluster.stop().await;
}
