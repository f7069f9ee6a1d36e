//! Pools: members, refill, scaling, and what deletes them.

use agent_sandbox_tests::{Cluster, eventually};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::objects::*;

#[tokio::test(flavor = "multi_thread")]
async fn members_carry_the_pools_marks_and_go_with_it() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 3).await;
    for name in sandbox_names(&client).await {
        assert!(name.starts_with("pool-"), "{name}");
        let sandbox = sandboxes(&client).get(&name).await.unwrap();
        assert_eq!(
            sandbox.owner_references().first().unwrap().kind,
            "SandboxWarmPool"
        );
        assert!(
            sandbox
                .labels()
                .contains_key("agents.x-k8s.io/warm-pool-sandbox")
        );
        let pod = pods(&client).get(&name).await.unwrap();
        assert_eq!(pod.owner_references().first().unwrap().kind, "Sandbox");
        let spec = pod.spec.unwrap();
        assert_eq!(
            spec.automount_service_account_token,
            Some(false),
            "pods get no token"
        );
    }
    delete(&pools(&client), "pool").await;
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_follows_its_replica_count_and_refills_behind_claims() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 2).await;
    for replicas in [5, 1] {
        let patch = json!({"spec": {"replicas": replicas}});
        pools(&client)
            .patch("pool", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        pool_ready(&client, "pool", replicas).await;
    }
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    refilled(&client, "pool", 1, 2).await;
    let patch = json!({"spec": {"replicas": 0}});
    pools(&client)
        .patch("pool", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    pool_ready(&client, "pool", 0).await;
    eventually("only the claimed sandbox is left", || async {
        (sandbox_names(&client).await == [sandbox.clone()]).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_written() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 5).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    bound(&client, "claim").await;
    pool_ready(&client, "pool", 5).await;
    record_is_empty(&client, "pool").await;
    eventually("writes have stopped", || async {
        let before = cluster.controller_writes().total();
        // Unrelated writes and their delivery give the controller every chance to react: what the
        // first ones cause is written long before the last.
        for tick in 0..50 {
            let tick = format!("{before}-{tick}");
            let note = json!({"metadata": {"annotations": {"tests/tick": tick}}});
            pools(&client)
                .patch("pool", &PatchParams::default(), &Patch::Merge(&note))
                .await
                .ok()?;
            claims(&client)
                .patch("claim", &PatchParams::default(), &Patch::Merge(&note))
                .await
                .ok()?;
        }
        (cluster.controller_writes().total() == before).then_some(())
    })
    .await;
    cluster.stop().await;
}
