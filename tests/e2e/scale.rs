//! Many claims, in process: simulated pods cost nothing, so what is tried is the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use agent_sandbox_crds::allocation::Allocation;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::{Cluster, eventually};
use futures::{Stream, StreamExt};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::objects::*;

/// What makes a difference to the number of a pool's members.
enum Change {
    /// A sandbox, by its UID, is owned by the pool now, or not any more.
    Owned(Option<String>, bool),
    /// The UIDs of the sandboxes that are the pool's no longer, though it owns them still.
    Given(BTreeSet<String>),
}

/// Every change of a kind, with the state of the cluster that it led to.
fn changes<K>(api: Api<K>, of: fn(&K, bool) -> Change) -> impl Stream<Item = (u64, Change)>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let events = watcher::watcher(api, watcher::Config::default());
    events.filter_map(move |event| {
        let (object, exists) = match event.unwrap() {
            Event::Apply(object) | Event::InitApply(object) => (object, true),
            Event::Delete(object) => (object, false),
            // The test began before there were any, and a watch that begins anew misses nothing but
            // what came and went.
            Event::Init | Event::InitDone => return std::future::ready(None),
        };
        let revision = object.resource_version().unwrap().parse().unwrap();
        std::future::ready(Some((revision, of(&object, exists))))
    })
}

/// The most members that the pool ever had at once.
///
/// Sandboxes and pools are watched apart, so that only the order of the changes' revisions tells what there
/// was at one time.
async fn most_members(client: Client, until: Shutdown) -> usize {
    let sandboxes = changes(sandboxes(&client), |sandbox, exists| {
        let owner = controller(sandbox).filter(|owner| owner.kind == "SandboxWarmPool");
        Change::Owned(sandbox.uid(), exists && owner.is_some())
    });
    let pools = changes(pools(&client), |pool, _| {
        let given = pool.status.iter().flat_map(|status| &status.allocations);
        let given = given.map(|text| Allocation::parse(text).unwrap().sandbox.uid.to_owned());
        Change::Given(given.collect())
    });
    let mut changes = pin!(futures::stream::select(sandboxes, pools));
    let mut history = BTreeMap::new();
    loop {
        tokio::select! {
            change = changes.next() => history.extend(change),
            () = until.triggered() => break,
        }
    }
    let (mut owned, mut given) = (BTreeSet::new(), BTreeSet::new());
    let numbers = history.into_values().map(|change| {
        match change {
            Change::Owned(Some(sandbox), true) => drop(owned.insert(sandbox)),
            Change::Owned(Some(sandbox), false) => drop(owned.remove(&sandbox)),
            Change::Owned(None, _) => unreachable!("every object has a UID"),
            Change::Given(now) => given = now,
        }
        owned.difference(&given).count()
    });
    numbers.max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_claims_on_a_pool_of_three_hundred_share_nothing() {
    const CLAIMS: usize = 1000;
    const MEMBERS: usize = 300;
    let cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    let (enough, tasks) = (Shutdown::new(), Tasks::new("observer"));
    let (tell, most) = tokio::sync::oneshot::channel();
    let observer = most_members(client.clone(), enough.clone());
    tasks.spawn("members", async move {
        tell.send(observer.await).unwrap();
    });
    template_and_pool(&client, "pool", MEMBERS).await;

    let began = Instant::now();
    let created = (0..CLAIMS).map(|number| {
        let client = &client;
        async move { create_claim(client, &format!("claim-{number}"), "pool", json!({})).await }
    });
    futures::stream::iter(created)
        .buffer_unordered(50)
        .collect::<()>()
        .await;
    let given = eventually("every claim is ready", || async {
        let list = claims(&client).list(&ListParams::default()).await.ok()?;
        let given = given(list);
        (given.len() == CLAIMS).then_some(given)
    })
    .await;
    println!("{CLAIMS} claims were ready after {:?}", began.elapsed());
    refilled(&client, "pool", MEMBERS, CLAIMS + MEMBERS).await;

    handed_over(&client, &given).await;
    let sandboxes: BTreeSet<&String> = given.values().collect();
    assert_eq!(sandboxes.len(), CLAIMS, "no sandbox is shared");
    record_is_empty(&client, "pool").await;

    eventually("writes have stopped", || async {
        let before = cluster.controller_writes().total();
        // Unrelated writes and their delivery give the controller every chance to react.
        for tick in 0..50 {
            let note =
                json!({"metadata": {"annotations": {"tests/tick": format!("{before}-{tick}")}}});
            let note = Patch::Merge(&note);
            let parameters = PatchParams::default();
            pools(&client)
                .patch("pool", &parameters, &note)
                .await
                .ok()?;
            claims(&client)
                .patch("claim-0", &parameters, &note)
                .await
                .ok()?;
        }
        (cluster.controller_writes().total() == before).then_some(())
    })
    .await;
    enough.trigger();
    let most = most.await.unwrap();
    assert_eq!(most, MEMBERS, "the pool was full and never more than that");
    cluster.stop().await;
}
