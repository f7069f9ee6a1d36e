//! A cluster in the test's own process: API server, the platform's kinds, the controller and a
//! simulated node.

use std::convert::Infallible;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_controller::Controller;
use agent_sandbox_local::definitions;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::Context;
use http::Request;
use kube::Client;
use tower::ServiceExt;

use crate::eventually::eventually;
use crate::simulated_node;
use crate::writes::Writes;

/// How long the parts may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A running cluster. Call [`Cluster::stop`] at the end of a test; a dropped one stops in the
/// background.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    controller_writes: Writes,
    controller: Option<Running>,
    node: Running,
    api: Shutdown,
}

#[derive(Debug)]
struct Running {
    order: Shutdown,
    tasks: Tasks,
}

impl Running {
    async fn stop(&self) {
        self.order.trigger();
        self.tasks.shutdown(STOP).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.api.trigger();
    }
}

impl Cluster {
    /// Starts everything, with the controller's default configuration.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn in_process() -> anyhow::Result<Self> {
        Self::with(agent_sandbox_controller::Config::default()).await
    }

    /// Starts everything, with this configuration of the controller.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn with(config: agent_sandbox_controller::Config) -> anyhow::Result<Self> {
        let api = Shutdown::new();
        let server = Server::builder().start(&api).context("the API server")?;
        definitions::install(&server.client()).await?;
        let node = Running {
            order: api.child(),
            tasks: Tasks::new("simulated node"),
        };
        node.tasks.spawn(
            "pods",
            simulated_node::run(server.client(), node.order.clone()),
        );
        let mut cluster = Self {
            server,
            controller_writes: Writes::default(),
            controller: None,
            node,
            api,
        };
        cluster.start_controller(config).await?;
        Ok(cluster)
    }

    /// Starts the controller and waits until it has read the cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_controller(
        &mut self,
        config: agent_sandbox_controller::Config,
    ) -> anyhow::Result<()> {
        let readiness = Readiness::new();
        let controller = Controller::builder(self.counting_client(), config)
            .readiness(&readiness)
            .build()?;
        let running = Running {
            order: self.api.child(),
            tasks: Tasks::new("controller"),
        };
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

    /// A client with full rights, whose requests are not counted.
    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// The writes of the controller.
    pub fn controller_writes(&self) -> &Writes {
        &self.controller_writes
    }

    /// Stops everything.
    pub async fn stop(mut self) {
        self.stop_controller().await;
        self.node.stop().await;
        self.api.trigger();
        self.server.stop(STOP).await;
    }

    fn counting_client(&self) -> Client {
        let writes = self.controller_writes.clone();
        let service =
            self.server
                .router()
                .map_request(move |request: Request<kube::client::Body>| {
                    writes.note(&request);
                    request.map(axum::body::Body::new)
                });
        Client::new(
            service.map_err(|never: Infallible| match never {}),
            "default",
        )
    }
}
