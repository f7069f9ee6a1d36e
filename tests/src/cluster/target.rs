//! Where a test's cluster is: in the test's process, or named by a kubeconfig.

use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_local::definitions;
use agent_sandbox_node::{Image, ImageTable, InitProgram, Node};
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Running, STOP};
use crate::eventually::eventually;
use crate::replica::built;
use crate::simulated_node;

/// Names the kubeconfig of a cluster to test instead of one in the test's process.
pub const KUBECONFIG: &str = "AGENT_SANDBOX_TEST_KUBECONFIG";
/// The image that every pod of the suites runs. A named cluster's nodes must have it.
pub const IMAGE: &str = "localhost/agent-sandbox-shell:0.1.0";

/// The kubeconfig of the cluster under test, if one is named.
pub fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os(KUBECONFIG)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Refuses to go on when a cluster is named: a test that says this would pass without trying it.
///
/// # Errors
/// When a cluster is named.
pub fn in_process_only() -> Result<()> {
    if kubeconfig().is_some() {
        bail!(
            "{KUBECONFIG} names a cluster, and this test runs in its own process only; \
             tests/e2e/in_process_only.txt says why, and `cargo xtask e2e` leaves it out"
        );
    }
    Ok(())
}

/// What runs the pods of a cluster in process.
#[derive(Clone, Copy)]
pub(super) enum Nodes {
    /// Nothing: they are Ready at once.
    Simulated,
    /// The process node.
    Processes,
}

pub(super) enum Target {
    InProcess(Box<Own>),
    Named(Box<Config>),
}

/// The parts of a cluster in this process.
pub(super) struct Own {
    pub(super) server: Server,
    pub(super) order: Shutdown,
    node: Running,
    _state: TempDir,
}

impl Target {
    pub(super) async fn new(nodes: Nodes) -> Result<Self> {
        match kubeconfig() {
            Some(path) => Self::named(path).await,
            None => Ok(Self::InProcess(Box::new(Own::start(nodes).await?))),
        }
    }

    /// Connects to a cluster and gives it our kinds, once for all tests. They stay: other tests
    /// need them.
    async fn named(path: PathBuf) -> Result<Self> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let kubeconfig = Kubeconfig::read_from(&path)
            .with_context(|| format!("reading {} ({KUBECONFIG})", path.display()))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config.clone())?;
        INSTALLED
            .get_or_try_init(|| definitions::install(&client))
            .await?;
        Ok(Self::Named(Box::new(config)))
    }

    /// The order that ends what runs for this cluster.
    pub(super) fn order(&self) -> Shutdown {
        match self {
            Self::InProcess(own) => own.order.clone(),
            Self::Named(_) => Shutdown::new(),
        }
    }
}

impl Own {
    async fn start(nodes: Nodes) -> Result<Self> {
        let order = Shutdown::new();
        let server = Server::builder().start(&order).context("the API server")?;
        definitions::install(&server.client()).await?;
        let state = tempfile::tempdir()?;
        let node = Running::new("node", order.child());
        match nodes {
            Nodes::Simulated => {
                let run = simulated_node::run(server.client(), node.order.clone());
                node.tasks.spawn("simulated node", run);
            }
            Nodes::Processes => start_process_node(&server, &node, &state).await?,
        }
        Ok(Self {
            server,
            order,
            node,
            _state: state,
        })
    }

    pub(super) async fn stop(&self) {
        self.node.stop().await;
        self.order.trigger();
        self.server.stop(STOP).await;
    }
}

/// A node that runs pods as processes; [`IMAGE`] stands for the programs of this machine.
async fn start_process_node(server: &Server, node: &Running, state: &TempDir) -> Result<()> {
    let image = Image::host(["sleep", "infinity"]).names([IMAGE])?;
    let readiness = Readiness::new();
    let running = Node::builder(server.client(), state.path().join("node"))
        .images(ImageTable::host_defaults().with(image))
        .init(InitProgram::at(built("node-init")?))
        .stop_grace(Duration::from_millis(500))
        .gate(readiness.register("node"))
        .build()
        .await?;
    let order = node.order.clone();
    node.tasks.spawn("process node", async move {
        if let Err(error) = running.run(order).await {
            tracing::error!(%error, "the node failed");
        }
    });
    eventually("the node is ready", || async { readiness.check().ok() }).await;
    Ok(())
}
