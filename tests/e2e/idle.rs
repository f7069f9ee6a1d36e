//! Very many sandboxes that nobody uses: what they cost a controller in memory, and in time when it
//! starts among them. Simulated pods cost nothing, so what is tried is the controller.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_sandbox_service::listen;
use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_tests::replica::built;
use agent_sandbox_tests::{Cluster, eventually};
use kube::api::{DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::objects::*;

const LOCAL: &str = "127.0.0.1:0";

/// The API server of a cluster in this process, reachable by others.
struct Face {
    order: Shutdown,
    tasks: Tasks,
    directory: TempDir,
}

impl Face {
    fn of(cluster: &Cluster) -> Self {
        let (order, tasks) = (Shutdown::new(), Tasks::new("listener"));
        let listener = listen::bind(LOCAL.parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(cluster.router().unwrap());
        let serving = server.serve(listener, order.clone(), Duration::from_secs(1));
        tasks.spawn("server", serving);
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), config.to_string()).unwrap();
        Self {
            order,
            tasks,
            directory,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    async fn close(self) {
        self.order.trigger();
        self.tasks.shutdown(Duration::from_secs(10)).await;
    }
}

/// A controller as a process of its own, for what only a process has: an amount of memory.
struct Program {
    process: Child,
    admin: u16,
    metrics: u16,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nobody is left to be told.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Program {
    /// Starts it, waits until it has read the cluster with its `sandboxes`, whose time it returns, and
    /// then until it has worked through what it read.
    async fn start(kubeconfig: &Path, sandboxes: usize) -> (Self, Duration) {
        let [admin, metrics] = [free_port(), free_port()];
        let began = Instant::now();
        let process = Command::new(built("agent-sandbox-controller").unwrap())
            .args(["--extensions", "--leader-elect=false"])
            .arg(format!("--health-probe-bind-address=127.0.0.1:{admin}"))
            .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self {
            process,
            admin,
            metrics,
        };
        eventually("the controller has read the cluster", || async {
            let answer = get(program.admin, "/readyz").await?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        let synced = began.elapsed();
        let known = program.sum("agent_sandboxes").await.unwrap_or(0.0);
        assert_eq!(
            known.to_string(),
            sandboxes.to_string(),
            "ready means that everything has been read"
        );
        program.idle().await;
        (program, synced)
    }

    /// Waits until nothing is queued.
    async fn idle(&self) {
        eventually("the controller's queues are empty", || async {
            let depth = self.sum("workqueue_depth").await?;
            let begun = self.sum("workqueue_unfinished_work_seconds").await?;
            (depth + begun == 0.0).then_some(())
        })
        .await;
    }

    /// The sum of a metric's samples, if it has any.
    async fn sum(&self, name: &str) -> Option<f64> {
        let text = get(self.metrics, "/metrics").await?;
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().unwrap())
        });
        samples.reduce(|sum, value| sum + value)
    }

    /// The memory that it alone causes, in KiB.
    fn memory(&self) -> usize {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.unwrap().trim().strip_suffix(" kB");
        number.unwrap().parse().unwrap()
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(LOCAL).unwrap();
    listener.local_addr().unwrap().port()
}

/// What a server on this machine answers, if it does.
async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The state of the whole cluster, which every write moves on.
async fn revision(client: &Client) -> Option<String> {
    let list = pools(client).list(&ListParams::default()).await;
    list.unwrap().metadata.resource_version
}

/// Fills the pool by steps: how long all of it takes is the machine's business, and a step that
/// takes minutes is a fault.
async fn fill(client: &Client, members: usize) {
    const STEP: usize = 1000;
    for size in (STEP..=members).step_by(STEP) {
        template_and_pool(client, "pool", size).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and needs optimised programs: cargo xtask test scale"]
async fn ten_thousand_idle_sandboxes_cost_a_restart_no_write_and_leave_nothing_behind() {
    const SANDBOXES: usize = 10_000;
    /// What a sandbox with its pod may cost at the most, in KiB. More than it does: this notices
    /// whole objects being kept, the figure itself is printed.
    const EACH: usize = 8;
    let mut cluster = Cluster::in_process().await.unwrap();
    let client = cluster.client();
    let face = Face::of(&cluster);
    cluster.stop_controller().await;
    let (program, synced) = Program::start(&face.kubeconfig(), 0).await;
    println!(
        "no sandboxes: {} KiB, read after {synced:.1?}",
        program.memory()
    );
    let empty = program.memory();
    let began = Instant::now();
    fill(&client, SANDBOXES).await;
    program.idle().await;
    println!(
        "{SANDBOXES} sandboxes: {} KiB, made in {:.0?}",
        program.memory(),
        began.elapsed()
    );
    let all = sandboxes(&client).list(&ListParams::default()).await;
    let ready: BTreeSet<String> = all
        .unwrap()
        .iter()
        .filter(|sandbox| {
            let conditions = sandbox.status.iter().flat_map(|status| &status.conditions);
            let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
            ready.any(|condition| condition.status == "True")
        })
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(ready.len(), SANDBOXES, "each is Ready");
    let running: BTreeSet<String> = pods(&client)
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert!(
        running == ready,
        "and has a pod, of which there is one each"
    );
    drop(program);

    let before = revision(&client).await;
    let (program, synced) = Program::start(&face.kubeconfig(), SANDBOXES).await;
    let full = program.memory();
    println!("{SANDBOXES} after a restart: {full} KiB, read after {synced:.1?}");
    assert_eq!(revision(&client).await, before, "a restart writes nothing");
    assert!(
        full.saturating_sub(empty) < EACH * SANDBOXES,
        "{empty} KiB became {full}"
    );

    let began = Instant::now();
    pools(&client)
        .delete("pool", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the sandboxes are gone", || async {
        let rest = sandbox_names(&client).await.len() + running_pods(&client).await;
        (rest == 0).then_some(())
    })
    .await;
    eventually("the controller has forgotten them", || async {
        let known = program.sum("agent_sandboxes").await.unwrap_or(0.0);
        (known == 0.0).then_some(())
    })
    .await;
    program.idle().await;
    println!(
        "none again: {} KiB, gone in {:.0?}",
        program.memory(),
        began.elapsed()
    );
    drop(program);
    face.close().await;
    cluster.stop().await;
}

async fn running_pods(client: &Client) -> usize {
    let list = pods(client).list_metadata(&ListParams::default()).await;
    list.unwrap().items.len()
}
