//! The router beside the operator: whatever happens to claims and pods, a request reaches the
//! sandbox it names or none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::{Config, Router};
use agent_sandbox_service::listen;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::{Cluster, eventually};
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpStream;

use crate::objects::*;

/// A router over the cluster, and one program that plays the runtime of every pod: it tells at which
/// address it was reached.
struct Platform {
    cluster: Cluster,
    client: Client,
    router: SocketAddr,
    runtime_port: u16,
    order: Shutdown,
    tasks: Tasks,
}

impl Platform {
    async fn start() -> Self {
        Self::with(Config::new(Authorizer::AllowAll)).await
    }

    /// One whose router may take a minute to hear of a sandbox, so that a slow machine is no miss.
    async fn patient() -> Self {
        let mut config = Config::new(Authorizer::AllowAll);
        config.resolution.wait = Duration::from_secs(60);
        Self::with(config).await
    }

    async fn with(config: Config) -> Self {
        let cluster = Cluster::in_process().await.unwrap();
        let client = cluster.client();
        let (order, tasks) = (Shutdown::new(), Tasks::new("platform"));
        // Every pod of the simulated node has a loopback address of its own.
        let runtime = listen::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let runtime_port = runtime.local_addr().unwrap().port();
        tasks.spawn("runtime", runtimes(runtime, order.clone()));
        let readiness = Readiness::new();
        let router = Router::builder(config)
            .client(client.clone())
            .readiness(&readiness)
            .access_log_to(std::io::sink())
            .build()
            .unwrap();
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn("router", router.serve(listener, order.clone()));
        eventually("the router is ready", || async { readiness.check().ok() }).await;
        Self {
            cluster,
            client,
            router: address,
            runtime_port,
            order,
            tasks,
        }
    }

    async fn stop(self) {
        self.order.trigger();
        self.tasks.shutdown(Duration::from_secs(10)).await;
        self.cluster.stop().await;
    }

    /// Sends a request for `sandbox` and returns the status and what answered.
    async fn ask(&self, sandbox: &str) -> (StatusCode, String) {
        self.ask_within(sandbox, "180").await
    }

    /// The same, as a client that waits for so many seconds.
    async fn ask_within(&self, sandbox: &str, seconds: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.router).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .unwrap();
        let request = Request::get("/")
            .header("host", "router")
            .header("x-sandbox-id", sandbox)
            .header("x-sandbox-namespace", self.cluster.namespace())
            .header("x-sandbox-port", self.runtime_port)
            .header("x-sandbox-timeout", seconds)
            .body(Empty::new())
            .unwrap();
        let exchange = async {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        // The router may close as soon as it has answered.
        let connection = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = exchange => answer,
            () = connection => unreachable!("it never completes"),
        }
    }

    /// Waits until requests for `sandbox` are answered with `status`.
    async fn answers(&self, sandbox: &str, status: StatusCode) -> String {
        eventually(&format!("{sandbox} answers {status}"), || async {
            let (got, body) = self.ask(sandbox).await;
            (got == status).then_some(body)
        })
        .await
    }

    /// The address of a sandbox's pod, as the API server has it.
    async fn address_of(&self, sandbox: &str) -> Option<String> {
        let pod = pods(&self.client).get_opt(sandbox).await.unwrap()?;
        pod.status?.pod_ip
    }

    /// The pod that each address belongs to, of all that there are from now on: the simulated node
    /// gives no address twice.
    fn record_holders(&self) -> Arc<Mutex<BTreeMap<String, String>>> {
        let holders = Arc::new(Mutex::new(BTreeMap::new()));
        let recorded = Arc::clone(&holders);
        let recording = watcher(pods(&self.client), watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .take_until(self.order.token().cancelled_owned())
            .filter_map(|pod| std::future::ready(pod.ok()))
            .for_each(move |pod| {
                let name = pod.name_any();
                if let Some(address) = pod.status.and_then(|status| status.pod_ip) {
                    recorded.lock().insert(address, name);
                }
                std::future::ready(())
            });
        self.tasks.spawn("addresses", recording);
        holders
    }
}

/// Answers at every address with that address.
async fn runtimes(listener: tokio::net::TcpListener, order: Shutdown) {
    let connections = Tasks::new("runtime connections");
    loop {
        let accepted = tokio::select! {
            () = order.triggered() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let address = stream.local_addr().unwrap().ip().to_string();
        connections.spawn("connection", async move {
            let service = hyper::service::service_fn(move |_| {
                let address = address.clone();
                async move {
                    let body = http_body_util::Full::new(Bytes::from(address));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "the router hung up");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_of_a_burst_is_reached_at_its_own_pod_as_soon_as_it_is_ready() {
    let platform = Platform::patient().await;
    let client = platform.client.clone();
    template_and_pool(&client, "pool", 30).await;
    let claims = (0..30).map(|number| {
        let (platform, client) = (&platform, client.clone());
        async move {
            let name = format!("claim-{number}");
            create_claim(&client, &name, "pool", json!({})).await;
            let sandbox = bound(&client, &name).await;
            // No waiting: a client that sees its claim Ready goes ahead.
            let (status, reached) = platform.ask(&sandbox).await;
            assert_eq!(status, StatusCode::OK, "{sandbox}: {reached}");
            assert_eq!(Some(reached.clone()), platform.address_of(&sandbox).await);
            reached
        }
    });
    let mut reached = futures::future::join_all(claims).await;
    reached.sort_unstable();
    reached.dedup();
    assert_eq!(reached.len(), 30, "no pod is shared");
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_members_have_no_name_until_they_are_claimed() {
    let platform = Platform::patient().await;
    let client = platform.client.clone();
    template_and_pool(&client, "pool", 1).await;
    let member = sandbox_names(&client).await.remove(0);
    let early = platform.ask_within(&member, "0.2").await;
    assert_eq!(early.0, StatusCode::NOT_FOUND);
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    assert_eq!(sandbox, member);
    assert_eq!(platform.ask(&member).await.0, StatusCode::OK);
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_a_name_from_when_its_pools_record_gives_it_away() {
    let mut platform = Platform::patient().await;
    let client = platform.client.clone();
    template_and_pool(&client, "pool", 1).await;
    // Nobody makes a claim its owner, and nobody takes its labels off.
    platform.cluster.stop_controller().await;
    let member = sandbox_names(&client).await.remove(0);
    let early = platform.ask_within(&member, "0.2").await;
    assert_eq!(early.0, StatusCode::NOT_FOUND);
    let sandbox = sandboxes(&client).get(&member).await.unwrap();
    let uid = sandbox.uid().unwrap();
    let entry = format!("claim/c0000000-0000-4000-8000-000000000000={member}/{uid}");
    let record = json!({"status": {"allocations": [entry]}});
    pools(&client)
        .patch_status("pool", &PatchParams::default(), &Patch::Merge(&record))
        .await
        .unwrap();
    assert_eq!(platform.ask(&member).await.0, StatusCode::OK);
    let after = sandboxes(&client).get(&member).await.unwrap();
    assert_eq!(after.owner_references(), sandbox.owner_references());
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_resumption_and_deletion_are_told() {
    let platform = Platform::start().await;
    let client = platform.client.clone();
    template_and_pool(&client, "pool", 1).await;
    create_claim(&client, "claim", "pool", json!({})).await;
    let sandbox = bound(&client, "claim").await;
    let first = platform.answers(&sandbox, StatusCode::OK).await;
    set_mode(&client, &sandbox, "Suspended").await;
    platform.answers(&sandbox, StatusCode::CONFLICT).await;
    set_mode(&client, &sandbox, "Running").await;
    let second = platform.answers(&sandbox, StatusCode::OK).await;
    assert_ne!(first, second, "another pod, at another address");
    delete(&claims(&client), "claim").await;
    platform.answers(&sandbox, StatusCode::GONE).await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_goes_astray_while_pods_are_replaced() {
    let platform = Platform::start().await;
    let client = platform.client.clone();
    let holders = platform.record_holders();
    template_and_pool(&client, "pool", 5).await;
    let mut names = Vec::new();
    for number in 0..5 {
        let claim = format!("claim-{number}");
        create_claim(&client, &claim, "pool", json!({})).await;
        names.push(bound(&client, &claim).await);
    }
    // Every (sandbox, address) that answered.
    let answers = Mutex::new(BTreeSet::new());
    let done = Shutdown::new();
    let replacing = async {
        for round in 0..10_usize {
            let name = &names[round % names.len()];
            let before = platform.address_of(name).await;
            // A pod that vanishes at once, as from a node that is lost.
            let at_once = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            pods(&client).delete(name, &at_once).await.unwrap();
            eventually("the pod is replaced and the new one answers", || async {
                let now = platform.address_of(name).await;
                let answered = answers.lock().contains(&(name.clone(), now.clone()?));
                (answered && now != before).then_some(())
            })
            .await;
        }
        done.trigger();
    };
    let asking = names.iter().map(|name| {
        let (platform, done, answers) = (&platform, &done, &answers);
        async move {
            while !done.is_triggered() {
                let (status, reached) = platform.ask(name).await;
                if status == StatusCode::OK {
                    answers.lock().insert((name.clone(), reached));
                    continue;
                }
                // The pod was away: told as such, never a wrong answer.
                assert!(
                    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY].contains(&status),
                    "{name}: {status} {reached}"
                );
            }
        }
    });
    tokio::join!(futures::future::join_all(asking), replacing);
    for (name, reached) in answers.into_inner() {
        let holder = eventually(&format!("{reached} is some pod's address"), || async {
            holders.lock().get(&reached).cloned()
        })
        .await;
        assert_eq!(holder, name, "whose address {reached} is");
    }
    platform.stop().await;
}
