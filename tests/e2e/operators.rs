//! Operators that stop, start and take over from each other.

use std::collections::BTreeSet;

use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_controller::{Config, Controller};
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::Cluster;
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::objects::*;

/// The resource versions of `claim`, of its sandbox and of the sandbox's pod.
async fn revisions(client: &Client, sandbox: &str) -> [Option<String>; 3] {
    [
        claims(client)
            .get("claim")
            .await
            .unwrap()
            .resource_version(),
        sandboxes(client)
            .get(sandbox)
            .await
            .unwrap()
            .resource_version(),
        pods(client).get(sandbox).await.unwrap().resource_version(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_finds_everything_as_it_was_and_writes_nothing() {
    let mut cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 3).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    pool_ready(&client, "pool", 3).await;
    pod_left_pool(&client, &sandbox).await;
    let before = revisions(&client, &sandbox).await;
    cluster.stop_controller().await;
    cluster.controller_writes().clear();
    cluster.start_controller(Config::default()).await.unwrap();
    // A claim that comes after proves that the queues have been worked through.
    create_claim(&client, "probe", "pool", json!({})).await;
    bound(&client, "probe").await;
    assert_eq!(bound(&client, "claim").await, sandbox);
    assert_eq!(revisions(&client, &sandbox).await, before);
    let writes = cluster.controller_writes().counts();
    assert_eq!(
        writes.get("PATCH sandboxclaims/status"),
        Some(&1),
        "{writes:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_acts_and_the_other_takes_over() {
    let mut cluster = Cluster::without_controller().await.unwrap();
    let namespace = cluster.namespace().to_owned();
    let replica = |identity: &str| Config {
        namespace: Some(namespace.clone()),
        leader_election: Some(LeaderElection::new(&namespace, identity)),
        ..Config::default()
    };
    cluster.start_controller(replica("one")).await.unwrap();
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
