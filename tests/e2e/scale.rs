//! Many claims, in process: simulated pods cost nothing, so what is tried is the operator.

use std::collections::BTreeSet;
use std::pin::pin;

use agent_sandbox_crds::Sandbox;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::{Cluster, eventually};
use futures::{StreamExt, TryStreamExt};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::objects::*;

/// The kind and UID of a sandbox's controller.
fn controller(sandbox: &Sandbox) -> Option<(String, String)> {
    let owners = sandbox.owner_references();
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some((owner.kind.clone(), owner.uid.clone()))
}

/// Counts the pool's members at every change of a sandbox, and returns the most there ever were at
/// once.
async fn most_members(client: Client, until: Shutdown) -> usize {
    let mut members = BTreeSet::new();
    let mut most = 0;
    let events = watcher::watcher(sandboxes(&client), watcher::Config::default());
    let mut events = pin!(events);
    loop {
        let event = tokio::select! {
            event = events.try_next() => event.unwrap().unwrap(),
            () = until.triggered() => return most,
        };
        match event {
            Event::Apply(sandbox) | Event::InitApply(sandbox) => {
                let owned = controller(&sandbox).is_some_and(|(kind, _)| kind == "SandboxWarmPool");
                if owned {
                    members.insert(sandbox.uid());
                } else {
                    members.remove(&sandbox.uid());
                }
            }
            Event::Delete(sandbox) => {
                members.remove(&sandbox.uid());
            }
            // The test began before there were any, and a watch that begins anew misses nothing but
            // what came and went.
            Event::Init | Event::InitDone => {}
        }
        most = most.max(members.len());
    }
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
        let bound: Vec<(String, String)> = list
            .into_iter()
            .filter_map(|claim| {
                let uid = claim.uid()?;
                let status = claim.status?;
                let ready = status
                    .conditions
                    .iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                ready.then_some((status.sandbox?.name, uid))
            })
            .collect();
        (bound.len() == CLAIMS).then_some(bound)
    })
    .await;
    println!("{CLAIMS} claims were ready after {:?}", began.elapsed());
    refilled(&client, "pool", MEMBERS, CLAIMS + MEMBERS).await;

    let all = sandboxes(&client)
        .list(&ListParams::default())
        .await
        .unwrap();
    let owned: BTreeSet<(String, String)> = all
        .iter()
        .filter_map(|sandbox| {
            let (kind, uid) = controller(sandbox)?;
            (kind == "SandboxClaim").then(|| (sandbox.name_any(), uid))
        })
        .collect();
    let given: BTreeSet<(String, String)> = given.into_iter().collect();
    assert_eq!(given.len(), CLAIMS);
    assert!(
        given == owned,
        "each claim owns the sandbox that it names, and no other"
    );
    let names: BTreeSet<&String> = given.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), CLAIMS, "no sandbox is shared");

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
