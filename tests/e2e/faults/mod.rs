//! Bursts of claims on a cluster with real nodes while two replicas of the operator, or the API
//! server under them, are killed and paused. Afterwards every claim is Ready, nothing is shared and
//! nothing is orphaned.

mod api_server;
mod controller;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_crds::{Sandbox, SandboxClaim};
use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::{Cluster, Replica, eventually};
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::objects::*;

const CLAIMS: usize = 50;
const MEMBERS: usize = 15;
/// How long one request may take: a paused server answers none.
const REQUEST: Duration = Duration::from_secs(5);

/// A pool of real pods, and two replicas of the operator of which one acts.
struct Arena {
    cluster: Cluster,
    client: Client,
    replicas: [Replica; 2],
}

impl Arena {
    async fn start() -> Result<Self> {
        let cluster = Cluster::without_controller().await?;
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let replicas = [
            Replica::start(&cluster, "one", logs)?,
            Replica::start(&cluster, "two", logs)?,
        ];
        for replica in &replicas {
            println!("log of a replica: {}", replica.log().display());
        }
        let client = cluster.client();
        template_with_everything(&client).await;
        pool(&client, "pool", "template", MEMBERS).await;
        Ok(Self {
            cluster,
            client,
            replicas,
        })
    }

    /// Who holds the lease, and since when, by that replica's clock, which is this machine's.
    async fn leader(&self) -> Option<(String, Timestamp)> {
        let leases: Api<Lease> = Api::default_namespaced(self.client.clone());
        let lease = leases.get(agent_sandbox_crds::names::LEADER_LEASE);
        let lease = tokio::time::timeout(REQUEST, lease)
            .await
            .ok()?
            .ok()?
            .spec?;
        // What follows the name is another one every time that the replica starts.
        let holder = lease.holder_identity?;
        Some((holder.rsplit_once('_')?.0.to_owned(), lease.acquire_time?.0))
    }

    /// The number of the replica that leads, and the other's.
    async fn leads(&self) -> (usize, usize) {
        let (leader, _) = eventually("one replica leads", || self.leader()).await;
        if self.replicas[0].name() == leader {
            (0, 1)
        } else {
            (1, 0)
        }
    }

    /// Waits until that replica leads, which must be within the lease time of when the former leader was
    /// stopped.
    async fn taken_over_by(&self, other: usize, stopped: Timestamp) {
        let name = self.replicas[other].name();
        let (_, acquired) = eventually(&format!("{name} leads"), || async {
            self.leader().await.filter(|(leader, _)| leader == name)
        })
        .await;
        let took = Duration::try_from(acquired.duration_since(stopped)).unwrap();
        println!("taken over by replica {name} after {took:?}");
        let limit = longest_take_over();
        assert!(took <= limit, "it took {took:?}, of {limit:?}");
    }

    /// Waits until that replica's process has ended.
    async fn ended(&mut self, what: &str, replica: usize) {
        let replica = Mutex::new(&mut self.replicas[replica]);
        eventually(what, || async {
            let ended = replica.lock().has_ended().unwrap();
            ended.then_some(())
        })
        .await;
    }

    /// Creates the claims of the burst, trying again while the server does not answer.
    async fn burst(&self) {
        let names = names();
        futures::future::join_all(names.iter().map(|name| self.claim(name))).await;
    }

    async fn claim(&self, name: &str) {
        eventually("the claim is created", || async {
            let object = claim(name, "pool", &json!({}));
            let api = claims(&self.client);
            let parameters = PostParams::default();
            let create = api.create(&parameters, &object);
            match tokio::time::timeout(REQUEST, create).await {
                Ok(Ok(_)) => Some(()),
                // What was created by a request whose answer was lost.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => Some(()),
                _ => None,
            }
        })
        .await;
    }

    /// Waits until so many claims of the burst are Ready: it has begun and is not over.
    async fn some_are_ready(&self, count: usize) {
        eventually(&format!("{count} claims are ready"), || async {
            (self.ready().await?.len() >= count).then_some(())
        })
        .await;
    }

    /// The claims that are Ready, and their sandboxes.
    async fn ready(&self) -> Option<BTreeMap<String, String>> {
        let api = claims(&self.client);
        let parameters = ListParams::default();
        let list = tokio::time::timeout(REQUEST, api.list(&parameters)).await;
        Some(given(list.ok()?.ok()?))
    }

    /// Waits for the end of it, bringing back replicas that ended, and looks at everything.
    async fn settles(mut self) -> Result<()> {
        let began = Instant::now();
        let given = loop {
            for replica in &mut self.replicas {
                replica.revive()?;
            }
            if let Some(ready) = self.ready().await
                && ready.len() == CLAIMS
            {
                break ready;
            }
            assert!(
                began.elapsed() < Duration::from_secs(400),
                "not all claims became ready: {:?}",
                self.ready().await
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        println!(
            "all {CLAIMS} claims were ready after {:?} more",
            began.elapsed()
        );
        pool_ready(&self.client, "pool", MEMBERS).await;
        let distinct: BTreeSet<&String> = given.values().collect();
        assert_eq!(distinct.len(), CLAIMS, "no sandbox is shared");
        handed_over(&self.client, &given).await;
        eventually(
            "nothing is without its owner, and no sandbox has two pods",
            || async { self.orphans().await.is_empty().then_some(()) },
        )
        .await;
        let all = sandbox_names(&self.client).await;
        assert_eq!(all.len(), CLAIMS + MEMBERS, "{all:?}");

        claims(&self.client)
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        delete(&pools(&self.client), "pool").await;
        nothing_left(&self.client).await;
        eventually("no Service and no volume claim is left", || async {
            let services = list::<Service>(&self.client).await;
            let volumes = list::<PersistentVolumeClaim>(&self.client).await;
            (services.is_empty() && volumes.is_empty()).then_some(())
        })
        .await;
        self.cluster.stop().await;
        Ok(())
    }

    /// Everything whose controller is not there, and second pods of a sandbox.
    async fn orphans(&self) -> Vec<String> {
        let sandboxes = list::<Sandbox>(&self.client).await;
        let mut owners: BTreeSet<String> = uids(&list::<SandboxClaim>(&self.client).await);
        owners.extend(uids(
            &list::<agent_sandbox_crds::SandboxWarmPool>(&self.client).await,
        ));
        let mut orphans = without_owner(&sandboxes, &owners);
        let owners = uids(&sandboxes);
        let pods = list::<Pod>(&self.client).await;
        orphans.extend(without_owner(&pods, &owners));
        orphans.extend(without_owner(&list::<Service>(&self.client).await, &owners));
        let volumes = list::<PersistentVolumeClaim>(&self.client).await;
        orphans.extend(without_owner(&volumes, &owners));
        let mut seen = BTreeSet::new();
        let second = pods
            .iter()
            .filter(|pod| !seen.insert(controller(*pod).map(|owner| owner.uid)));
        orphans.extend(second.map(|pod| format!("a second pod, {}", pod.name_any())));
        orphans
    }
}

/// How long the successor of a leader that was stopped may take, by the lease that replicas use.
///
/// It counts the lease's duration from when it saw the last renewal, which is a pause between two looks
/// after it was made, and finds that it is over another pause later; pauses are spread by a fifth. Four
/// calls stand in between (a look that misses the renewal, one that sees it, one that comes too early,
/// one that finds the lease run out), each of which is given up after a quarter of the renew deadline.
fn longest_take_over() -> Duration {
    let lease = LeaderElection::new("", "");
    lease.duration + 2 * lease.retry.mul_f64(1.2) + 4 * (lease.renew_deadline / 4)
}

/// The names of the burst's claims.
fn names() -> Vec<String> {
    (0..CLAIMS)
        .map(|number| format!("claim-{number}"))
        .collect()
}

fn uids<K: ResourceExt>(objects: &[K]) -> BTreeSet<String> {
    objects.iter().filter_map(ResourceExt::uid).collect()
}

fn without_owner<K: ResourceExt>(objects: &[K], owners: &BTreeSet<String>) -> Vec<String> {
    let orphans = objects
        .iter()
        .filter(|object| !controller(*object).is_some_and(|owner| owners.contains(&owner.uid)));
    orphans.map(ResourceExt::name_any).collect()
}

async fn list<K>(client: &Client) -> Vec<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    api.list(&ListParams::default()).await.unwrap().items
}

/// A template whose sandboxes have a Service and a volume.
async fn template_with_everything(client: &Client) {
    let spec = json!({
        "service": true,
        "podTemplate": {"spec": {
            // The default class of a cluster may give volumes that belong to root.
            "securityContext": {"runAsUser": 0},
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "ports": [{"containerPort": 8888}],
                "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}],
            }],
        }},
        "volumeClaimTemplates": [{
            "metadata": {"name": "workspace"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
            },
        }],
    });
    template(client, "template", spec).await;
}
