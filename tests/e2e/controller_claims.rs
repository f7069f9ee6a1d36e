//! Claims beyond the common case: ends, older versions, shortage, several operators.

use std::collections::BTreeSet;

use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_controller::{Config, Controller};
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::simulated_node::PHASE;
use agent_sandbox_tests::{Cluster, eventually};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::objects::*;

/// The v1alpha1 face of a kind.
fn older(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("extensions.agents.x-k8s.io", "v1alpha1", kind);
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
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
    let cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    let template =
        json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "pause"}]}}});
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

#[tokio::test(flavor = "multi_thread")]
async fn more_claims_than_members_share_nothing_and_leave_nothing() {
    let cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 20).await;
    let names: Vec<String> = (0..60).map(|number| format!("claim-{number}")).collect();
    let created = names
        .iter()
        .map(|name| create_claim(&client, name, "pool", json!({})));
    futures::future::join_all(created).await;
    let mut given = BTreeSet::new();
    for name in &names {
        assert!(
            given.insert(bound(&client, name).await),
            "{name} shares its sandbox"
        );
    }
    pool_ready(&client, "pool", 20).await;
    let deleted = names.iter().map(|name| async {
        claims(&client)
            .delete(name, &DeleteParams::default())
            .await
            .map(|_| ())
    });
    for result in futures::future::join_all(deleted).await {
        result.unwrap();
    }
    pools(&client)
        .delete("pool", &DeleteParams::default())
        .await
        .unwrap();
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_claim_lives_for_its_time_and_goes_with_everything() {
    let cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    let template = json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxTemplate",
        "metadata": {"name": "short"},
        "spec": {"podTemplate": {
            "metadata": {"annotations": {PHASE: "Succeeded"}},
            "spec": {"containers": [{"name": "main", "image": "pause"}], "restartPolicy": "Never"},
        }},
    });
    let parameters = PatchParams::apply("tests").force();
    Api::<agent_sandbox_crds::SandboxTemplate>::namespaced(client.clone(), NAMESPACE)
        .patch("short", &parameters, &Patch::Apply(&template))
        .await
        .unwrap();
    let spec = json!({
        "warmPoolRef": null,
        "sandboxTemplateRef": {"name": "short"},
        "lifecycle": {"ttlSecondsAfterFinished": 1, "shutdownPolicy": "DeleteForeground"},
    });
    create_claim(&client, "claim", "none", spec).await;
    reason(&client, "claim", "PodSucceeded").await;
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_policy_precedes_the_pods_and_outlives_the_template() {
    let cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), NAMESPACE);
    let policy = policies.get("template-network-policy").await.unwrap();
    let member = sandbox_names(&client).await.remove(0);
    let pod = pods(&client).get(&member).await.unwrap();
    assert!(policy.creation_timestamp() <= pod.creation_timestamp());
    create_claim(&client, "claim", "pool", json!({})).await;
    bound(&client, "claim").await;
    let templates: Api<agent_sandbox_crds::SandboxTemplate> =
        Api::namespaced(client.clone(), NAMESPACE);
    pools(&client)
        .delete("pool", &DeleteParams::default())
        .await
        .unwrap();
    templates
        .delete("template", &DeleteParams::default())
        .await
        .unwrap();
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
    claims(&client)
        .delete("claim", &DeleteParams::default())
        .await
        .unwrap();
    nothing_left(&client).await;
    eventually("the policy went with the last pod", || async {
        let left = policies.get_opt("template-network-policy").await.ok()?;
        left.is_none().then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_acts_and_the_other_takes_over() {
    let replica = |identity: &str| Config {
        leader_election: Some(LeaderElection::new(NAMESPACE, identity)),
        ..Config::default()
    };
    let mut cluster = Cluster::with(replica("one")).await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 4).await;
    let second = Controller::builder(client.clone(), replica("two"))
        .build()
        .unwrap();
    let (order, tasks) = (Shutdown::new(), Tasks::new("second operator"));
    let stop = order.clone();
    tasks.spawn("operator", async move {
        second.run(stop).await.unwrap();
    });
    let names: Vec<String> = (0..8).map(|number| format!("claim-{number}")).collect();
    for name in names.iter().take(4) {
        create_claim(&client, name, "pool", json!({})).await;
    }
    cluster.stop_controller().await;
    for name in names.iter().skip(4) {
        create_claim(&client, name, "pool", json!({})).await;
    }
    let mut given = BTreeSet::new();
    for name in &names {
        assert!(
            given.insert(bound(&client, name).await),
            "{name} shares its sandbox"
        );
    }
    for sandbox in &given {
        let owned = pods(&client)
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let of_it = owned.iter().filter(|pod| pod.name_any() == *sandbox);
        assert_eq!(of_it.count(), 1);
    }
    order.trigger();
    tasks.shutdown(std::time::Duration::from_secs(10)).await;
    cluster.stop().await;
}
