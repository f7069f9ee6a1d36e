//! The network policy of a template.

use agent_sandbox_tests::{Cluster, eventually};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use serde_json::json;

use crate::objects::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_network_policy_precedes_the_pods_and_outlives_the_template() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let policies: Api<NetworkPolicy> = Api::default_namespaced(client.clone());
    policies.get("template-network-policy").await.unwrap();
    let writes = cluster.controller_writes();
    assert!(
        writes.first_before("networkpolicies", "pods"),
        "{:?}",
        writes.counts()
    );
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    // Until then the sandbox is the pool's as well.
    pod_left_pool(&client, &sandbox).await;
    delete(&pools(&client), "pool").await;
    delete(&templates(&client), "template").await;
    eventually("the pool's member is gone", || async {
        (sandbox_names(&client).await.len() == 1).then_some(())
    })
    .await;
    assert!(
        policies
            .get_opt("template-network-policy")
            .await
            .unwrap()
            .is_some()
    );
    delete(&claims(&client), "claim").await;
    nothing_left(&client).await;
    // It goes with the last pod.
    gone(&policies, "template-network-policy").await;
    cluster.stop().await;
}
