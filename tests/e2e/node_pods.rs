//! Pods on the process node behind the embedded API server, as kubectl and controllers see them:
//! scheduled, run, reported, logged, deleted; and nothing is left.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_node::{InitProgram, Node};
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::cluster::in_process_only;
use agent_sandbox_tests::eventually;
use anyhow::{Context, Result, bail, ensure};
use http_body_util::BodyExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node as NodeObject, PersistentVolumeClaim, Pod, PodCondition,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const DEADLINE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "node-tests";

/// An API server and a node that runs real processes.
struct Cluster {
    server: Server,
    client: Client,
    router: axum::Router,
    api: Shutdown,
    node: Shutdown,
    tasks: Tasks,
    state: TempDir,
}

impl Cluster {
    async fn start() -> Result<Self> {
        in_process_only()?;
        let api = Shutdown::new();
        let server = Server::builder().start(&api)?;
        let client = server.client();
        let state = tempfile::tempdir()?;
        let readiness = Readiness::new();
        let node = Node::builder(client.clone(), state.path().join("node"))
            .init(InitProgram::at(env!("CARGO_BIN_EXE_node-init")))
            .stop_grace(Duration::from_millis(500))
            .gate(readiness.register("node"))
            .build()
            .await?;
        let router = node.router();
        let tasks = Tasks::new("node under test");
        let shutdown = Shutdown::new();
        let order = shutdown.clone();
        tasks.spawn("node", async move {
            if let Err(error) = node.run(order).await {
                tracing::error!(%error, "the node failed");
            }
        });
        let namespaces: Api<Namespace> = Api::all(client.clone());
        create(&namespaces, json!({"metadata": {"name": NAMESPACE}})).await?;
        Ok(Self {
            server,
            client,
            router,
            api,
            node: shutdown,
            tasks,
            state,
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn pod_directories(&self) -> PathBuf {
        self.state.path().join("node/pods")
    }

    async fn logs(&self, pod: &str, query: &str) -> Result<String> {
        let uri = format!("/containerLogs/{NAMESPACE}/{pod}/main{query}");
        let request = http::Request::get(uri).body(axum::body::Body::empty())?;
        let response = self.router.clone().oneshot(request).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec())?)
    }

    /// Stops the node and proves that it left nothing.
    async fn stop(self) -> Result<()> {
        self.node.trigger();
        ensure!(
            self.tasks.shutdown(DEADLINE).await == 0,
            "the node did not stop"
        );
        ensure!(
            !self.state.path().join("node").exists(),
            "the node left files"
        );
        self.api.trigger();
        self.server.stop(DEADLINE).await;
        Ok(())
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let object = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// A pod of one container that runs a shell script.
fn shell(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "containers": [{
                "name": "main", "image": "busybox:1.36", "command": ["sh", "-c", script],
            }],
        },
    })
}

fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn holds(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition.status == "True")
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

async fn until(
    api: &Api<Pod>,
    name: &str,
    what: &str,
    check: impl Fn(&Pod) -> bool,
) -> Result<Pod> {
    let condition = |pod: Option<&Pod>| pod.is_some_and(&check);
    let waited = tokio::time::timeout(DEADLINE, await_condition(api.clone(), name, condition));
    match waited.await {
        Ok(pod) => pod?.context("the pod is there"),
        Err(_) => bail!("{name} is not {what}: {:#?}", api.get(name).await?.status),
    }
}

async fn until_ready(api: &Api<Pod>, name: &str) -> Result<Pod> {
    until(api, name, "ready", |pod| holds(pod, "Ready")).await
}

async fn delete_and_wait(api: &Api<Pod>, name: &str, grace: u32) -> Result<()> {
    let uid = api.get(name).await?.uid().context("a uid")?;
    let params = DeleteParams::default().grace_period(grace);
    api.delete(name, &params).await?;
    let gone = await_condition(api.clone(), name, conditions::is_deleted(&uid));
    tokio::time::timeout(DEADLINE, gone)
        .await
        .context("it stays")??;
    Ok(())
}

#[tokio::test]
async fn a_pod_is_scheduled_run_reported_and_deleted() -> Result<()> {
    let cluster = Cluster::start().await?;
    let pods = cluster.api::<Pod>();
    let script =
        "trap 'echo bye; exit 0' TERM; echo \"I am $0 at $IP\"; while :; do sleep 0.02; done";
    let mut pod = shell("life", script);
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    create(&pods, pod).await?;
    let pod = until_ready(&pods, "life").await?;
    let status = pod.status.clone().context("a status")?;
    assert_eq!(
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
        Some("local")
    );
    assert_eq!(phase(&pod), Some("Running"));
    for kind in [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
    ] {
        assert!(holds(&pod, kind), "{kind}: {status:#?}");
    }
    let ip = status.pod_ip.context("an address")?;
    assert!(ip.starts_with("127."), "{ip}");
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, pod.metadata.generation);
    let printed = eventually("the line is logged", || async {
        let logs = cluster.logs("life", "").await.ok()?;
        logs.ends_with('\n').then_some(logs)
    });
    assert_eq!(printed.await, format!("I am sh at {ip}\n"));
    let uid = pod.uid().context("a uid")?;
    let events = cluster.api::<Event>();
    let selector = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let reasons = eventually("four events", || async {
        let list = events.list(&selector).await.ok()?;
        let reasons: BTreeSet<String> = list.into_iter().filter_map(|event| event.reason).collect();
        (reasons.len() >= 4).then_some(reasons)
    });
    let expected = ["Created", "Pulled", "Scheduled", "Started"].map(str::to_owned);
    assert_eq!(reasons.await, expected.into());
    delete_and_wait(&pods, "life", 30).await?;
    let directories = cluster.pod_directories();
    eventually("its files are gone", || async {
        let count = std::fs::read_dir(&directories).ok()?.count();
        (count == 0).then_some(())
    })
    .await;
    cluster.stop().await
}

#[tokio::test]
async fn many_pods_at_once_each_get_their_own_address() -> Result<()> {
    const COUNT: usize = 25;
    let cluster = Cluster::start().await?;
    let pods = cluster.api::<Pod>();
    for number in 0..COUNT {
        let mut pod = shell(&format!("crowd-{number}"), "exec sleep 1000");
        pod["metadata"]["labels"] = json!({"crowd": "yes"});
        create(&pods, pod).await?;
    }
    let mut addresses = BTreeSet::new();
    for number in 0..COUNT {
        let pod = until_ready(&pods, &format!("crowd-{number}")).await?;
        addresses.extend(pod.status.and_then(|status| status.pod_ip));
    }
    assert_eq!(addresses.len(), COUNT);
    let crowd = ListParams::default().labels("crowd=yes");
    pods.delete_collection(&DeleteParams::default(), &crowd)
        .await?;
    eventually("all are gone", || async {
        let left = pods.list(&crowd).await.ok()?.items;
        left.is_empty().then_some(())
    })
    .await;
    cluster.stop().await
}

#[tokio::test]
async fn a_job_ends_with_its_status_and_keeps_its_log() -> Result<()> {
    let cluster = Cluster::start().await?;
    let pods = cluster.api::<Pod>();
    for (name, script, phase, code) in [
        ("good", "echo fine", "Succeeded", 0),
        ("bad", "echo broken >&2; exit 3", "Failed", 3),
    ] {
        let mut pod = shell(name, script);
        pod["spec"]["restartPolicy"] = json!("Never");
        create(&pods, pod).await?;
        let pod = until(&pods, name, phase, |pod| self::phase(pod) == Some(phase)).await?;
        let statuses = pod.status.and_then(|status| status.container_statuses);
        let state = statuses.and_then(|mut list| list.pop()?.state?.terminated);
        assert_eq!(state.context("it ended")?.exit_code, code);
    }
    assert_eq!(cluster.logs("good", "?tailLines=1").await?, "fine\n");
    assert_eq!(cluster.logs("bad", "").await?, "broken\n");
    cluster.stop().await
}

#[tokio::test]
async fn a_volume_follows_its_config_map_and_holds_a_token() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (pods, maps) = (cluster.api::<Pod>(), cluster.api::<ConfigMap>());
    create(
        &maps,
        json!({"metadata": {"name": "config"}, "data": {"key": "old"}}),
    )
    .await?;
    let script = "wc -c < /etc/all/token; echo $(cat /etc/all/key); \
                  while [ \"$(cat /etc/all/key)\" = old ]; do sleep 0.02; done; \
                  echo $(cat /etc/all/key); exec sleep 1000";
    let mut pod = shell("reader", script);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "all", "mountPath": "/etc/all"}]);
    pod["spec"]["volumes"] = json!([{"name": "all", "projected": {"sources": [
        {"configMap": {"name": "config"}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
    ]}}]);
    create(&pods, pod).await?;
    until_ready(&pods, "reader").await?;
    let first = eventually("the first lines", || async {
        let logs = cluster.logs("reader", "").await.ok()?;
        logs.contains("old").then_some(logs)
    })
    .await;
    let size: usize = first.lines().next().context("a size")?.trim().parse()?;
    assert!(size > 20, "a token of {size} bytes");
    let change = Patch::Merge(json!({"data": {"key": "new"}}));
    maps.patch("config", &PatchParams::default(), &change)
        .await?;
    eventually("the new value", || async {
        let logs = cluster.logs("reader", "").await.ok()?;
        logs.ends_with("new\n").then_some(())
    })
    .await;
    cluster.stop().await
}

#[tokio::test]
async fn a_claim_is_bound_used_and_removed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    create(&claims, claim).await?;
    for (name, script) in [
        ("writer", "echo kept > /data/file"),
        ("reader", "cat /data/file"),
    ] {
        let mut pod = shell(name, script);
        pod["spec"]["restartPolicy"] = json!("Never");
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}]);
        pod["spec"]["volumes"] =
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        create(&pods, pod).await?;
        until(&pods, name, "done", |pod| phase(pod) == Some("Succeeded")).await?;
    }
    assert_eq!(cluster.logs("reader", "").await?, "kept\n");
    let bound = claims.get("data").await?;
    let status = bound.status.context("a status")?;
    assert_eq!(status.phase.as_deref(), Some("Bound"));
    assert!(
        status
            .capacity
            .is_some_and(|capacity| capacity["storage"].0 == "1Gi")
    );
    for name in ["writer", "reader"] {
        delete_and_wait(&pods, name, 0).await?;
    }
    let data = cluster.state.path().join("node/claims");
    assert_eq!(std::fs::read_dir(&data)?.count(), 1);
    claims.delete("data", &DeleteParams::default()).await?;
    eventually("the data is removed", || async {
        let count = std::fs::read_dir(&data).ok()?.count();
        (count == 0).then_some(())
    })
    .await;
    cluster.stop().await
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_so_until_the_node_changes() -> Result<()> {
    let cluster = Cluster::start().await?;
    let pods = cluster.api::<Pod>();
    let mut pod = shell("picky", "exec sleep 1000");
    pod["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    create(&pods, pod).await?;
    let told = |pod: &Pod| {
        condition(pod, "PodScheduled")
            .and_then(|condition| condition.message.clone())
            .is_some_and(|message| message.contains("node affinity/selector"))
    };
    let pod = until(&pods, "picky", "told", told).await?;
    assert_eq!(phase(&pod), Some("Pending"));
    let nodes: Api<NodeObject> = Api::all(cluster.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"disk": "ssd"}}}));
    nodes
        .patch("local", &PatchParams::default(), &label)
        .await?;
    until_ready(&pods, "picky").await?;
    cluster.stop().await
}

#[tokio::test]
async fn the_node_is_an_object_with_a_lease() -> Result<()> {
    let cluster = Cluster::start().await?;
    let nodes: Api<NodeObject> = Api::all(cluster.client.clone());
    let node = eventually("the node is registered", || async {
        let node = nodes.get_opt("local").await.ok()??;
        let known = node.status.as_ref()?.conditions.is_some();
        known.then_some(node)
    })
    .await;
    let status = node.status.context("a status")?;
    let ready = status
        .conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "Ready");
    assert_eq!(ready.context("a condition")?.status, "True");
    let info = status.node_info.context("system information")?;
    assert!(info.container_runtime_version.starts_with("process://"));
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let lease = eventually("a lease", || async { leases.get_opt("local").await.ok()? }).await;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), Some("local"));
    cluster.stop().await
}
