//! Claims: what binds them, what they cost, and when they end.

use std::collections::{BTreeMap, BTreeSet};

use agent_sandbox_crds::Sandbox;
use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::simulated_node::PHASE;
use agent_sandbox_tests::{Cluster, eventually};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::objects::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_claim_costs_two_writes_before_ready_and_four_in_all() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    cluster.controller_writes().clear();
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    pod_left_pool(&client, &sandbox).await;
    refilled(&client, "pool", 1, 2).await;
    let told = "PATCH sandboxclaims/status";
    let before_ready = cluster.controller_writes().counts_up_to(told);
    let writes = cluster.controller_writes().counts();
    let of = |writes: &BTreeMap<String, usize>, kind| writes.get(kind).copied().unwrap_or(0);
    // The claim's own writes, once everything has settled; the rest belongs to the refill.
    for (kind, before, in_all) in [
        ("PATCH sandboxwarmpools/status", 1, None),
        (told, 1, Some(1)),
        ("PATCH sandboxes", 0, Some(1)),
        ("PATCH pods", 0, Some(1)),
    ] {
        assert_eq!(of(&before_ready, kind), before, "{kind}: {before_ready:?}");
        if let Some(in_all) = in_all {
            assert_eq!(of(&writes, kind), in_all, "{kind}: {writes:?}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_sandbox_and_its_pod_are_not_field_tracked_until_somebody_applies() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    pod_left_pool(&client, &sandbox).await;
    let bound = sandboxes(&client).get(&sandbox).await.unwrap();
    assert_eq!(bound.metadata.managed_fields, None);
    let pod = pods(&client).get(&sandbox).await.unwrap();
    let record = pod.metadata.managed_fields.unwrap_or_default();
    assert!(
        record.iter().all(|entry| entry.subresource.is_some()),
        "{record:?}"
    );
    let object = json!({
        "apiVersion": Sandbox::api_version(&()), "kind": Sandbox::kind(&()),
        "metadata": {"name": sandbox, "labels": {"by": "hand"}},
    });
    let applied = sandboxes(&client)
        .patch(
            &sandbox,
            &PatchParams::apply("a-user"),
            &Patch::Apply(object),
        )
        .await
        .unwrap();
    let record = applied.metadata.managed_fields.unwrap_or_default();
    assert!(
        record
            .iter()
            .any(|entry| entry.manager.as_deref() == Some("a-user")),
        "{record:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_claims_at_once_get_a_sandbox_each() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let crowd = cluster.crowd(100);
    template_and_pool(&client, "pool", crowd).await;
    let listed = sandboxes(&client)
        .list(&ListParams::default())
        .await
        .unwrap();
    let members: BTreeSet<String> = listed.iter().map(ResourceExt::name_any).collect();
    // The oldest are given out first, and ages are counted in seconds: what refills the pool behind
    // the claims must be younger than every member.
    let youngest = listed.iter().filter_map(Sandbox::creation_timestamp).max();
    let youngest = youngest.unwrap().0;
    eventually("the second of the youngest member is over", || async {
        (Timestamp::now().duration_since(youngest) >= SignedDuration::from_secs(1)).then_some(())
    })
    .await;
    let names: Vec<String> = (0..crowd).map(|number| format!("claim-{number}")).collect();
    let created = names
        .iter()
        .map(|name| create_claim(&client, name, "pool", json!({})));
    futures::future::join_all(created).await;

    let mut bindings = BTreeMap::new();
    for name in &names {
        bindings.insert(name.clone(), bound(&client, name).await);
    }
    let distinct: BTreeSet<String> = bindings.values().cloned().collect();
    assert_eq!(distinct.len(), crowd, "no sandbox is shared");
    assert_eq!(
        distinct, members,
        "every member was used before anything was created cold"
    );

    handed_over(&client, &bindings).await;
    for sandbox in sandboxes(&client)
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
    {
        let controllers = sandbox
            .owner_references()
            .iter()
            .filter(|owner| owner.controller == Some(true))
            .count();
        assert_eq!(controllers, 1, "{}", sandbox.name_any());
    }

    delete(&pools(&client), "pool").await;
    claims(&client)
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_none_makes_a_sandbox_of_the_claims_name() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 0).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    assert_eq!(bound(&client, "claim").await, "claim");
    let sandbox = sandboxes(&client).get("claim").await.unwrap();
    assert_eq!(
        sandbox.labels().get("agents.x-k8s.io/launch-type").unwrap(),
        "cold"
    );
    assert_eq!(
        sandbox.owner_references().first().unwrap().kind,
        "SandboxClaim"
    );
    delete(&claims(&client), "claim").await;
    delete(&pools(&client), "pool").await;
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_its_arrival_noticed() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    create_claim(&client, "claim", "later", json!({})).await;
    reason(&client, "claim", "WarmPoolNotFound").await;
    template_and_pool(&client, "later", 0).await;
    assert_eq!(bound(&client, "claim").await, "claim");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_terminal_and_makes_no_sandbox() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let env = json!({"env": [{"name": "A", "value": "b"}]});
    create_claim(&client, "env", "pool", env).await;
    reason(&client, "env", "EnvVarsInjectionRejected").await;
    let metadata = json!({"additionalPodMetadata": {"labels": {"kubernetes.io/x": "y"}}});
    create_claim(&client, "metadata", "pool", metadata).await;
    reason(&client, "metadata", "InvalidMetadata").await;
    assert_eq!(
        sandbox_names(&client).await.len(),
        1,
        "only the pool's member exists"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_with_policy_delete_is_gone_at_its_time() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let lifecycle = |at: Timestamp| {
        json!({"lifecycle": {
            "shutdownTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "shutdownPolicy": "Delete",
        }})
    };
    let far = lifecycle(Timestamp::now() + SignedDuration::from_hours(1));
    create_claim(&client, "claim", "pool", far).await;
    let sandbox = bound(&client, "claim").await;
    // Brought near only now: a claim that is due in a moment may be gone before anyone has seen it
    // bound.
    let at = Timestamp::now() + SignedDuration::from_secs(2);
    let near = json!({"spec": lifecycle(at)});
    claims(&client)
        .patch("claim", &PatchParams::default(), &Patch::Merge(&near))
        .await
        .unwrap();
    gone(&claims(&client), "claim").await;
    // Published times have whole seconds.
    assert!(Timestamp::now().as_second() >= at.as_second());
    gone(&sandboxes(&client), &sandbox).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_with_policy_retain_stays_and_says_why_its_sandbox_went() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    template_and_pool(&client, "pool", 1).await;
    let past = json!({"lifecycle": {"shutdownTime": "2020-01-01T00:00:00Z"}});
    create_claim(&client, "claim", "pool", past).await;
    reason(&client, "claim", "ClaimExpired").await;
    assert!(claims(&client).get_opt("claim").await.unwrap().is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_claims_than_members_share_nothing_and_leave_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let members = cluster.crowd(60) / 3;
    template_and_pool(&client, "pool", members).await;
    let names: Vec<String> = (0..3 * members)
        .map(|number| format!("claim-{number}"))
        .collect();
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
    pool_ready(&client, "pool", members).await;
    let deleted = names.iter().map(|name| async {
        claims(&client)
            .delete(name, &DeleteParams::default())
            .await
            .map(|_| ())
    });
    for result in futures::future::join_all(deleted).await {
        result.unwrap();
    }
    delete(&pools(&client), "pool").await;
    nothing_left(&client).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_claim_lives_for_its_time_and_goes_with_everything() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let short = json!({"podTemplate": {
        "metadata": {"annotations": {PHASE: "Succeeded"}},
        "spec": {"containers": [{"name": "main", "image": IMAGE, "command": ["true"]}], "restartPolicy": "Never"},
    }});
    template(&client, "short", short).await;
    let spec = json!({
        "warmPoolRef": null,
        "sandboxTemplateRef": {"name": "short"},
        "lifecycle": {"ttlSecondsAfterFinished": 3600, "shutdownPolicy": "DeleteForeground"},
    });
    create_claim(&client, "claim", "none", spec).await;
    reason(&client, "claim", "PodSucceeded").await;
    // Shortened only now: a claim that goes a moment after it finished may be gone before anyone
    // has read why it finished.
    let shorter = json!({"spec": {"lifecycle": {"ttlSecondsAfterFinished": 1}}});
    claims(&client)
        .patch("claim", &PatchParams::default(), &Patch::Merge(&shorter))
        .await
        .unwrap();
    nothing_left(&client).await;
    cluster.stop().await;
}
