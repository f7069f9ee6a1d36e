//! A cluster for one test: in its own process, with the API server, the platform's kinds and a
//! node, or the cluster that [`KUBECONFIG`] names. Either way the test has a namespace and a controller
//! of its own, and cannot tell the difference unless it asks.

mod target;

use std::convert::Infallible;
use std::time::Duration;

use agent_sandbox_controller::{Config, Controller};
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tower::ServiceExt;
use tower::util::MapRequestLayer;

pub use self::target::{IMAGE, KUBECONFIG, in_process_only, kubeconfig};
use self::target::{Nodes, Target};
use crate::eventually::eventually;
use crate::writes::Writes;

/// How long the parts may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// On every namespace of a test, so that those of a test that was killed can be found.
const MARK: (&str, &str) = ("app.kubernetes.io/part-of", "agent-sandbox-tests");

/// A running cluster. Call [`Cluster::stop`] at the end of a test; a dropped one stops in the
/// background.
pub struct Cluster {
    target: Target,
    namespace: String,
    controller_writes: Writes,
    controller: Option<Running>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Tasks and the order that ends them.
struct Running {
    order: Shutdown,
    tasks: Tasks,
}

impl Running {
    fn new(name: &'static str, order: Shutdown) -> Self {
        let tasks = Tasks::new(name);
        Self { order, tasks }
    }

    async fn stop(&self) {
        self.order.trigger();
        self.tasks.shutdown(STOP).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match &self.target {
            Target::InProcess(own) => own.order.trigger(),
            Target::Named(_) => self.forget_namespace(),
        }
    }
}

impl Cluster {
    /// The cluster under test, with a controller of the default configuration. In process, pods are
    /// simulated.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start() -> Result<Self> {
        Self::with(Config::default()).await
    }

    /// The cluster under test, with this configuration of the controller.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn with(config: Config) -> Result<Self> {
        let mut cluster = Self::without_controller().await?;
        cluster.start_controller(config).await?;
        Ok(cluster)
    }

    /// The cluster under test with pods that are real in every case: in process, they run on the
    /// process node.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn with_real_pods() -> Result<Self> {
        let mut cluster = Self::on(Target::new(Nodes::Processes).await?).await?;
        cluster.start_controller(Config::default()).await?;
        Ok(cluster)
    }

    /// A cluster in this process, whatever is named: for what cannot be tried on another.
    ///
    /// # Errors
    /// When a part does not start, and when a cluster is named, for this would not test it.
    pub async fn in_process() -> Result<Self> {
        in_process_only()?;
        Self::start().await
    }

    /// The cluster under test, with nobody who acts on our kinds.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn without_controller() -> Result<Self> {
        Self::on(Target::new(Nodes::Simulated).await?).await
    }

    async fn on(target: Target) -> Result<Self> {
        let mut cluster = Self {
            target,
            namespace: String::new(),
            controller_writes: Writes::default(),
            controller: None,
        };
        let client = cluster.client();
        let (key, value) = MARK;
        let object = json!({"metadata": {"generateName": "e2e-", "labels": {key: value}}});
        let created = Api::<Namespace>::all(client)
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await
            .context("creating the test's namespace")?;
        cluster.namespace = created.name_any();
        // Pods are refused until their namespace has its default service account.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
        eventually("the namespace has its service account", || async {
            accounts.get_opt("default").await.ok()?
        })
        .await;
        Ok(cluster)
    }

    /// Starts the controller, for the test's namespace alone, and waits until it has read the
    /// cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_controller(&mut self, mut config: Config) -> Result<()> {
        config
            .namespace
            .get_or_insert_with(|| self.namespace.clone());
        let readiness = Readiness::new();
        let client = self.connect(Some(self.controller_writes.clone()))?;
        let controller = Controller::builder(client, config)
            .readiness(&readiness)
            .build()?;
        let running = Running::new("controller", self.target.order().child());
        let order = running.order.clone();
        running.tasks.spawn("controller", async move {
            if let Err(error) = controller.run(order).await {
                tracing::error!(%error, "the controller ended");
            }
        });
        self.controller = Some(running);
        eventually("the controller has read the cluster", || async {
            readiness.check().ok()
        })
        .await;
        Ok(())
    }

    /// Stops the controller, as if its process ended; what it wrote stays.
    pub async fn stop_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.stop().await;
        }
    }

    /// A client with full rights, whose requests are not counted. Its default namespace is the
    /// test's.
    ///
    /// # Panics
    /// When the kubeconfig, which has served before, no longer does.
    #[allow(clippy::expect_used, reason = "a cluster that is lost fails the test")]
    pub fn client(&self) -> Client {
        self.connect(None).expect("the cluster is configured")
    }

    /// The API server itself, when it is in process: to be reached by programs over a socket.
    pub fn router(&self) -> Option<axum::Router> {
        match &self.target {
            Target::InProcess(own) => Some(own.server.router()),
            Target::Named(_) => None,
        }
    }

    /// The test's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The writes of the controller.
    pub fn controller_writes(&self) -> &Writes {
        &self.controller_writes
    }

    /// How many of something a test makes: `simulated` where pods cost nothing, and no more than a
    /// node of two processors starts in a minute where they are real.
    pub fn crowd(&self, simulated: usize) -> usize {
        match self.target {
            Target::InProcess(_) => simulated,
            Target::Named(_) => simulated.min(20),
        }
    }

    /// Stops everything and removes what the test made.
    pub async fn stop(mut self) {
        self.stop_controller().await;
        match &self.target {
            Target::InProcess(own) => own.stop().await,
            Target::Named(_) => {}
        }
    }

    /// A client whose requests are noted.
    fn connect(&self, writes: Option<Writes>) -> Result<Client> {
        let note = move |request: Request<Body>| {
            if let Some(writes) = &writes {
                writes.note(&request);
            }
            request
        };
        let client = match &self.target {
            Target::InProcess(own) => {
                let service = own.server.router().map_request(move |request| {
                    let request: Request<Body> = note(request);
                    request.map(axum::body::Body::new)
                });
                let service = service.map_err(|never: Infallible| match never {});
                Client::new(service, self.namespace.clone())
            }
            Target::Named(config) => {
                let mut config = config.as_ref().clone();
                config.default_namespace.clone_from(&self.namespace);
                ClientBuilder::try_from(config)?
                    .with_layer(&MapRequestLayer::new(note))
                    .build()
            }
        };
        Ok(client)
    }

    /// Deletes the test's namespace, whose contents go with it.
    fn forget_namespace(&self) {
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.namespace.is_empty() {
            return;
        }
        let namespaces: Api<Namespace> = Api::all(self.client());
        let delete = async {
            let options = DeleteParams::default();
            if let Err(error) = namespaces.delete(&self.namespace, &options).await {
                tracing::error!(%error, namespace = self.namespace, "it cannot be deleted");
            }
        };
        tokio::task::block_in_place(|| handle.block_on(delete));
    }
}
