//! The table fed by watches, over a scripted API server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use agent_sandbox_router::Router;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn text(value: &Value) -> Answer {
    Full::from(value.to_string()).boxed_unsync()
}

/// An API server that lists what it has and then sends the events it is told to.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pods: Resource,
    sandboxes: Resource,
    pools: Resource,
    requests: Vec<String>,
}

#[derive(Default)]
struct Resource {
    objects: Vec<Value>,
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
    refusals: VecDeque<u16>,
    version: u64,
}

impl Resource {
    fn list(&self) -> Value {
        json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": self.objects})
    }

    fn send(&mut self, kind: &str, object: &Value) {
        self.version += 1;
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.watchers
            .retain(|watcher| watcher.send(Bytes::from(line.clone())).is_ok());
    }
}

impl Cluster {
    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<Answer> {
        let mut state = self.0.lock();
        state.requests.push(request.uri().to_string());
        let path = request.uri().path();
        let resource = if path.ends_with("/pods") {
            &mut state.pods
        } else if path.ends_with("/sandboxes") {
            &mut state.sandboxes
        } else if path.ends_with("/sandboxwarmpools") {
            &mut state.pools
        } else {
            panic!("unexpected request for {path}");
        };
        let query = request.uri().query().unwrap_or_default();
        if let Some(code) = resource.refusals.pop_front() {
            let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Refused", "message": "no"});
            return Response::builder()
                .status(StatusCode::from_u16(code).unwrap())
                .body(text(&status))
                .unwrap();
        }
        if !query.contains("watch=") {
            return Response::new(text(&resource.list()));
        }
        let (sender, events) = mpsc::unbounded_channel();
        resource.watchers.push(sender);
        let events = futures::stream::unfold(events, |mut events| async move {
            events
                .recv()
                .await
                .map(|bytes| (Ok::<_, Infallible>(Frame::data(bytes)), events))
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }

    fn pods(&self, apply: impl FnOnce(&mut Resource)) {
        apply(&mut self.0.lock().pods);
    }

    fn sandboxes(&self, apply: impl FnOnce(&mut Resource)) {
        apply(&mut self.0.lock().sandboxes);
    }

    fn pools(&self, apply: impl FnOnce(&mut Resource)) {
        apply(&mut self.0.lock().pools);
    }

    async fn watched(&self) {
        rig::eventually("both watches are open", async || {
            let state = self.0.lock();
            !state.pods.watchers.is_empty() && !state.sandboxes.watchers.is_empty()
        })
        .await;
    }
}

fn pod(name: &str, uid: &str, ip: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "resourceVersion": "1",
            "labels": {"agents.x-k8s.io/sandbox-name-hash": "00000000"},
            "ownerReferences": [{
                "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
                "name": name, "uid": format!("sandbox-{name}"), "controller": true,
            }],
        },
        "status": {
            "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    })
}

fn sandbox(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("sandbox-{name}"),
            "resourceVersion": "1", "labels": labels,
        },
        "spec": {"operatingMode": "Running"},
    })
}

fn start(cluster: &Cluster) -> Rig {
    Rig::build(Router::builder(rig::config()).client(cluster.client()))
}

/// Waits until a request is answered with this status.
async fn until(rig: &Rig, request: &str, status: u16) {
    rig::eventually(&format!("an answer {status}"), async || {
        rig.send(request).await.status == status
    })
    .await;
}

#[tokio::test]
async fn what_is_there_at_the_start_is_routed_once_both_lists_are_in() {
    let cluster = Cluster::default();
    let stub = Sandbox::answering(ok(b"found"));
    cluster.pods(|pods| pods.objects.push(pod("box", "p1", "127.0.0.1", true)));
    cluster.sandboxes(|sandboxes| {
        sandboxes.objects.push(sandbox("box", &json!({})));
        sandboxes.refusals.extend([500; 1000]);
    });
    let rig = start(&cluster);
    assert!(rig.readiness.check().is_err());
    assert_eq!(rig.send(&stub.get("/")).await.reason(), "loading");
    cluster.sandboxes(|sandboxes| sandboxes.refusals.clear());
    rig::eventually("ready", async || rig.readiness.check().is_ok()).await;
    assert_eq!(rig.send(&stub.get("/")).await.text(), "found");
    let requests = cluster.0.lock().requests.clone();
    let pods = requests.iter().find(|uri| uri.contains("/pods?")).unwrap();
    assert!(
        pods.contains("labelSelector=agents.x-k8s.io%2Fsandbox-name-hash"),
        "{pods}"
    );
    assert!(pods.contains("limit=500"), "{pods}");
    rig.stop().await;
}

#[tokio::test]
async fn pods_and_sandboxes_are_followed() {
    let cluster = Cluster::default();
    let rig = start(&cluster);
    cluster.watched().await;
    let here = Sandbox::answering(ok(b"here"));
    let request = here.get("/");
    until(&rig, &request, 404).await;
    cluster.sandboxes(|sandboxes| sandboxes.send("ADDED", &sandbox("box", &json!({}))));
    until(&rig, &request, 503).await;
    cluster.pods(|pods| pods.send("ADDED", &pod("box", "p1", "127.0.0.1", false)));
    until(&rig, &request, 503).await;
    cluster.pods(|pods| pods.send("MODIFIED", &pod("box", "p1", "127.0.0.1", true)));
    until(&rig, &request, 200).await;
    let mut terminating = pod("box", "p1", "127.0.0.1", true);
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    cluster.pods(|pods| pods.send("MODIFIED", &terminating));
    until(&rig, &request, 503).await;
    cluster.pods(|pods| {
        pods.send("ADDED", &pod("box", "p2", "127.0.0.1", true));
        // Late, and of the pod before.
        pods.send("DELETED", &terminating);
    });
    until(&rig, &request, 200).await;
    let mut suspended = sandbox("box", &json!({}));
    suspended["spec"]["operatingMode"] = "Suspended".into();
    cluster.sandboxes(|sandboxes| sandboxes.send("MODIFIED", &suspended));
    until(&rig, &request, 409).await;
    cluster.sandboxes(|sandboxes| sandboxes.send("MODIFIED", &sandbox("box", &json!({}))));
    until(&rig, &request, 200).await;
    cluster.sandboxes(|sandboxes| sandboxes.send("DELETED", &sandbox("box", &json!({}))));
    cluster.pods(|pods| pods.send("DELETED", &pod("box", "p2", "127.0.0.1", true)));
    until(&rig, &request, 410).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_pool_member_is_named_only_once_it_is_claimed() {
    let cluster = Cluster::default();
    let stub = Sandbox::answering(ok(b"claimed"));
    let pooled = json!({"agents.x-k8s.io/warm-pool-sandbox": "1234"});
    let mut member = pod("box", "p1", "127.0.0.1", true);
    member["metadata"]["labels"]["agents.x-k8s.io/warm-pool-sandbox"] = "1234".into();
    cluster.pods(|pods| pods.objects.push(member));
    cluster.sandboxes(|sandboxes| sandboxes.objects.push(sandbox("box", &pooled)));
    let rig = start(&cluster);
    cluster.watched().await;
    let by_name = stub.get("/");
    let by_uid = by_name.replace("Host:", "X-Sandbox-UID: sandbox-box\r\nHost:");
    until(&rig, &by_name, 404).await;
    assert_eq!(rig.send(&by_uid).await.status, 200);
    // The claim lets the Sandbox go from its pool; the pod's own label may follow much later.
    cluster.sandboxes(|sandboxes| sandboxes.send("MODIFIED", &sandbox("box", &json!({}))));
    until(&rig, &by_name, 200).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_pool_member_has_its_name_from_when_its_pools_record_gives_it_away() {
    for sandboxes_are_watched in [true, false] {
        let cluster = Cluster::default();
        let stub = Sandbox::answering(ok(b"given"));
        let pooled = json!({"agents.x-k8s.io/warm-pool-sandbox": "1234"});
        let mut member = pod("box", "p1", "127.0.0.1", true);
        member["metadata"]["labels"]["agents.x-k8s.io/warm-pool-sandbox"] = "1234".into();
        cluster.pods(|pods| pods.objects.push(member));
        cluster.sandboxes(|sandboxes| sandboxes.objects.push(sandbox("box", &pooled)));
        let mut pool = json!({
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxWarmPool",
            "metadata": {"name": "pool", "namespace": "ns", "uid": "pool-1", "resourceVersion": "1"},
        });
        cluster.pools(|pools| pools.objects.push(pool.clone()));
        let mut config = rig::config();
        config.resolution.sandboxes = sandboxes_are_watched;
        let rig = Rig::build(Router::builder(config).client(cluster.client()));
        rig::eventually("ready", async || rig.readiness.check().is_ok()).await;
        rig::eventually("pools are watched", async || {
            !cluster.0.lock().pools.watchers.is_empty()
        })
        .await;
        assert_eq!(rig.send(&stub.get("/")).await.status, 404);
        pool["status"] = json!({"allocations": ["claim/claim-1=box/sandbox-box"]});
        cluster.pools(|pools| pools.send("MODIFIED", &pool));
        until(&rig, &stub.get("/"), 200).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_pod_that_merely_claims_to_be_a_sandboxs_is_not_routed_to() {
    let cluster = Cluster::default();
    let stub = Sandbox::answering(ok(b"forged"));
    // Nobody has such a Sandbox, or it has another pod.
    let mut second = pod("box", "p2", "127.0.0.1", true);
    second["metadata"]["name"] = "not-the-pod-of-box".into();
    cluster.pods(|pods| {
        pods.objects.push(pod("nobody", "p1", "127.0.0.1", true));
        pods.objects.push(second);
    });
    cluster.sandboxes(|sandboxes| sandboxes.objects.push(sandbox("box", &json!({}))));
    let rig = start(&cluster);
    rig::eventually("ready", async || rig.readiness.check().is_ok()).await;
    assert_eq!(
        rig.send(&stub.get("/").replace("ID: box", "ID: nobody"))
            .await
            .status,
        404
    );
    assert_eq!(rig.send(&stub.get("/")).await.status, 503);
    assert_eq!(stub.connections(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn pods_alone_are_enough_where_sandboxes_are_not_watched() {
    let cluster = Cluster::default();
    let stub = Sandbox::answering(ok(b"by pod"));
    cluster.pods(|pods| pods.objects.push(pod("box", "p1", "127.0.0.1", true)));
    // Pools are asked for and may be out of bounds.
    cluster.pools(|pools| pools.refusals.extend([403; 1000]));
    let mut config = rig::config();
    config.resolution.sandboxes = false;
    config.resolution.namespace = Some("ns".to_owned());
    let rig = Rig::build(Router::builder(config).client(cluster.client()));
    rig::eventually("ready", async || rig.readiness.check().is_ok()).await;
    assert_eq!(rig.send(&stub.get("/")).await.text(), "by pod");
    let requests = cluster.0.lock().requests.clone();
    let pools = "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/ns/sandboxwarmpools?";
    assert!(
        requests
            .iter()
            .all(|uri| uri.starts_with("/api/v1/namespaces/ns/pods?") || uri.starts_with(pools)),
        "{requests:?}"
    );
    rig.stop().await;
}

/// While the watches are broken, one sandbox goes and another comes; `lose` says how they break.
async fn history_is_lost(lose: impl Fn(&mut Resource)) {
    let cluster = Cluster::default();
    let stub = Sandbox::answering(ok(b"x"));
    cluster.pods(|pods| pods.objects.push(pod("box", "p1", "127.0.0.1", true)));
    cluster.sandboxes(|sandboxes| sandboxes.objects.push(sandbox("box", &json!({}))));
    let rig = start(&cluster);
    cluster.watched().await;
    let (old, new) = (stub.get("/"), stub.get("/").replace("ID: box", "ID: newer"));
    until(&rig, &old, 200).await;
    cluster.sandboxes(|sandboxes| {
        sandboxes.objects = vec![sandbox("newer", &json!({}))];
        lose(sandboxes);
    });
    cluster.pods(|pods| {
        pods.objects = vec![pod("newer", "p2", "127.0.0.1", true)];
        lose(pods);
    });
    until(&rig, &new, 200).await;
    until(&rig, &old, 410).await;
    assert!(rig.readiness.check().is_ok(), "readiness does not flap");
    rig.stop().await;
}

#[tokio::test]
async fn a_lost_history_is_listed_again() {
    let expired = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
    history_is_lost(|resource| {
        resource.send("ERROR", &expired);
        resource.watchers.clear();
    })
    .await;
}

#[tokio::test]
async fn a_history_that_is_lost_when_the_watch_is_resumed_is_listed_again() {
    history_is_lost(|resource| {
        resource.refusals.push_back(410);
        resource.watchers.clear();
    })
    .await;
}

#[tokio::test]
async fn missing_permissions_are_named_by_readiness() {
    let cluster = Cluster::default();
    cluster.sandboxes(|sandboxes| sandboxes.refusals.extend([403; 1000]));
    let rig = start(&cluster);
    let reason = || rig.readiness.check().err().unwrap_or_default().join("\n");
    rig::eventually("the remedy is told", async || {
        reason().contains("grant get, list and watch on sandboxes.agents.x-k8s.io")
    })
    .await;
    cluster.sandboxes(|sandboxes| sandboxes.refusals.clear());
    rig::eventually("ready once granted", async || rig.readiness.check().is_ok()).await;
    rig.stop().await;
}
