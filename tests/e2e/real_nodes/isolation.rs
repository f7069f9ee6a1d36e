//! Who reaches a sandbox of a default template, and what it reaches.
//!
//! Each thing that must be out of reach is in reach of a pod without a policy, so that a cluster on
//! which nothing can be reached does not pass. The metadata address and two of the private ranges are
//! the exceptions: nothing listens there on a cluster that is made for tests.

use std::net::IpAddr;
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::PolicySettings;
use agent_sandbox_crds::names::SYSTEM_NAMESPACE;
use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::{Cluster, eventually};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{plain_pod, shell};
use crate::objects::*;

/// Where nothing listens on a test cluster, and what must be cut off all the same.
const NOWHERE: [(&str, u16); 4] = [
    ("169.254.169.254", 80),
    ("172.16.0.1", 80),
    ("192.168.0.1", 80),
    ("100.100.100.200", 80),
];

/// A command that makes a connection within this many seconds, or fails.
fn dial(address: &str, port: u16, seconds: u32) -> String {
    format!("timeout {seconds} bash -c '</dev/tcp/{address}/{port}' 2>/dev/null")
}

/// Whether a connection can be made from a pod.
async fn reaches(namespace: &str, pod: &str, address: &str, port: u16) -> bool {
    let script = format!("{}; echo $?", dial(address, port, 4));
    let (worked, output) = shell(namespace, pod, &script).await;
    assert!(worked, "{output}");
    output == "0\n"
}

/// The resolver that the cluster gives to pods without a policy.
async fn resolver(namespace: &str, pod: &str) -> IpAddr {
    let (worked, output) = shell(namespace, pod, "cat /etc/resolv.conf").await;
    assert!(worked, "{output}");
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "));
    line.unwrap().trim().parse().unwrap()
}

/// Addresses and ports that the cluster itself listens at: the API server by its Service and by its
/// own address, and the nodes' kubelets.
async fn cluster_addresses(cluster: &Cluster) -> Vec<(String, u16)> {
    let client = cluster.client();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = services.get("kubernetes").await.unwrap().spec.unwrap();
    let mut addresses = vec![(service.cluster_ip.unwrap(), 443)];
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    for slice in slices.list(&ListParams::default()).await.unwrap() {
        if !slice.name_any().starts_with("kubernetes") {
            continue;
        }
        let port = slice
            .ports
            .into_iter()
            .flatten()
            .find_map(|port| port.port)
            .unwrap();
        for endpoint in slice.endpoints.into_iter().flatten() {
            let at = |address| (address, u16::try_from(port).unwrap());
            addresses.extend(endpoint.addresses.into_iter().map(at));
        }
    }
    for node in Api::<Node>::all(client)
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        let status = node.status.unwrap();
        let port = status
            .daemon_endpoints
            .unwrap()
            .kubelet_endpoint
            .unwrap()
            .port;
        let internal = status.addresses.into_iter().flatten();
        let internal = internal.filter(|address| address.type_ == "InternalIP");
        addresses.extend(internal.map(|address| (address.address, u16::try_from(port).unwrap())));
    }
    addresses
}

/// A cluster whose sandboxes use the cluster's own resolver, as an operator configured for it would
/// have it, and a pod without a policy.
async fn start() -> (Cluster, String) {
    let mut cluster = Cluster::without_controller().await.unwrap();
    let client = cluster.client();
    let neighbour = plain_pod(&pods(&client), "neighbour", json!({})).await;
    let resolver = resolver(cluster.namespace(), "neighbour").await;
    let config = Config {
        policy: PolicySettings {
            resolvers: vec![resolver],
            ipv4_only: resolver.is_ipv4(),
            ..PolicySettings::default()
        },
        ..Config::default()
    };
    cluster.start_controller(config).await.unwrap();
    (cluster, neighbour)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster that enforces network policies: cargo xtask e2e nodes"]
async fn a_sandbox_resolves_names_and_reaches_nothing_inside() {
    let (cluster, neighbour) = start().await;
    let client = cluster.client();
    let namespace = cluster.namespace();
    template_and_pool(&client, "pool", 2).await;
    let writes = cluster.controller_writes();
    assert!(
        writes.first_before("networkpolicies", "pods"),
        "the policy was there before the first pod: {:?}",
        writes.counts()
    );
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    let others = sandbox_names(&client).await;
    let other = others.iter().find(|name| **name != sandbox).unwrap();
    let other = super::address(&pods(&client), other).await;

    eventually("names resolve", || async {
        let lookup = "getent hosts kubernetes.default.svc.cluster.local";
        let (worked, _) = shell(namespace, &sandbox, lookup).await;
        worked.then_some(())
    })
    .await;

    let mut inside = cluster_addresses(&cluster).await;
    inside.push((neighbour.clone(), 8888));
    let allowed = join_all(
        inside
            .iter()
            .map(|(address, port)| reaches(namespace, "neighbour", address, *port)),
    );
    for ((address, port), reached) in inside.iter().zip(allowed.await) {
        assert!(
            reached,
            "a pod without a policy does not reach {address}:{port}"
        );
    }
    inside.push((other, 8888));
    inside.extend(NOWHERE.map(|(address, port)| (address.to_owned(), port)));
    let reached = join_all(
        inside
            .iter()
            .map(|(address, port)| reaches(namespace, &sandbox, address, *port)),
    );
    for ((address, port), reached) in inside.iter().zip(reached.await) {
        assert!(!reached, "the sandbox reaches {address}:{port}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster that enforces network policies: cargo xtask e2e nodes"]
async fn only_the_router_reaches_a_sandbox() {
    let (cluster, _) = start().await;
    let client = cluster.client();
    let namespace = cluster.namespace();
    template_and_pool(&client, "pool", 1).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    let address = super::address(&pods(&client), &sandbox).await;

    let router = json!({"app": "sandbox-router"});
    plain_pod(&pods(&client), "impostor", router.clone()).await;
    let system: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let (with, without) = (format!("{namespace}-router"), format!("{namespace}-other"));
    plain_pod(&system, &with, router).await;
    plain_pod(&system, &without, json!({"app": "other"})).await;

    eventually("the router's pod reaches the runtime", || async {
        let reached = reaches(SYSTEM_NAMESPACE, &with, &address, 8888).await;
        reached.then_some(())
    })
    .await;
    let strangers = [
        (
            SYSTEM_NAMESPACE,
            without.as_str(),
            "a pod beside the router",
        ),
        (
            namespace,
            "impostor",
            "a pod with the router's label elsewhere",
        ),
        (namespace, "neighbour", "a pod beside the sandbox"),
    ];
    for (namespace, pod, what) in strangers {
        assert!(
            !reaches(namespace, pod, &address, 8888).await,
            "{what} reaches it"
        );
    }
    for pod in [with, without] {
        system.delete(&pod, &DeleteParams::default()).await.unwrap();
    }
    cluster.stop().await;
}

/// What is left open at a pod's very first packets is the cluster's doing: the policy is there before
/// the pod, and only the network plugin decides when it applies. This prints how long that took.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster that enforces network policies: cargo xtask e2e nodes"]
async fn a_pod_that_dials_from_its_first_moment_is_cut_off() {
    const OPEN: &str = "open until ";
    let (cluster, neighbour) = start().await;
    let client = cluster.client();
    let script = format!(
        "read start rest < /proc/uptime; n=0; \
         while read end rest < /proc/uptime; {}; do n=$((n+1)); done; \
         echo \"{OPEN}$end from $start: $n connections\"; exec sleep 1000",
        dial(&neighbour, 8888, 1)
    );
    let container = json!({"name": "main", "image": IMAGE, "command": ["sh", "-c", script]});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 0});
    template(&client, "eager", json!({"podTemplate": {"spec": spec}})).await;
    pool(&client, "pool", "eager", 3).await;
    for name in sandbox_names(&client).await {
        let log = eventually("the pod is cut off", || async {
            let log = pods(&client)
                .logs(&name, &LogParams::default())
                .await
                .ok()?;
            log.contains(OPEN).then_some(log)
        })
        .await;
        println!("{name}: {}", log.trim());
        // And it stays so.
        let mut tries = 0;
        while tries < 3 {
            assert!(!reaches(cluster.namespace(), &name, &neighbour, 8888).await);
            tries += 1;
        }
    }
    tokio::time::timeout(Duration::from_secs(60), cluster.stop())
        .await
        .unwrap();
}
