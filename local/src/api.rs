//! The embedded API server as local mode runs it: its listener, who may use it, where it keeps its
//! objects, and the way from it to the node's logs.
//!
//! The server is started before the node, because the node is one of its clients; the node's routes
//! are handed over afterwards.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_sandbox_apiserver::auth::{Authenticator, User};
use agent_sandbox_apiserver::certificate::{CertificateError, ServingCertificate};
use agent_sandbox_apiserver::stream::{NodeConnector, NodeService};
use agent_sandbox_apiserver::{Server, StartError};
use agent_sandbox_node::Node;
use agent_sandbox_service::admin;
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::server;
use agent_sandbox_service::shutdown::Shutdown;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::kubeconfig;
use crate::part::{Failure, Part, STOP_DEADLINE};

/// Kinds of the API that neither the controller nor the node acts on.
const UNATTENDED: &[(&str, &str)] = &[
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
];

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No certificate for its listener.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The server does not start.
    #[error("the API server does not start")]
    Start(#[from] StartError),
}

/// A served Kubernetes API.
#[derive(Debug)]
pub struct Api {
    server: Server,
    background: Shutdown,
    listener: Part,
    nodes: Arc<LocalNode>,
    authority: String,
    token: String,
}

impl Api {
    /// Serves the API on a listener until [`Api::stop`]. Objects are kept in `journal`, or in memory
    /// alone.
    ///
    /// # Errors
    /// When there is no certificate, or the journal cannot be used.
    pub fn start(
        listener: TcpListener,
        journal: Option<PathBuf>,
        drain: Duration,
        failed: &mpsc::Sender<Failure>,
    ) -> Result<Self, ApiError> {
        let certificate = ServingCertificate::generate(&[Ipv4Addr::LOCALHOST.into()])?;
        let authority = certificate.authority_pem().to_owned();
        let token = Authenticator::generate_token();
        let (metrics, nodes, background) =
            (Metrics::new(), Arc::<LocalNode>::default(), Shutdown::new());
        let builder = UNATTENDED
            .iter()
            .fold(Server::builder(), |builder, (group, kind)| {
                builder.unattended(*group, *kind)
            });
        let mut builder = builder
            .root_ca(authority.clone())
            .metrics(&metrics)
            .nodes(nodes.clone());
        if let Some(path) = journal {
            builder = builder.journal(path);
        }
        let server = builder.start(&background)?;

        let engine = server.engine();
        let users = Authenticator::new([(token.as_str(), User::admin())])
            .with_service_accounts(engine.tokens.clone(), engine.clock.clone());
        let routes = server.router().merge(admin::metrics_router(metrics));
        let serving = server::Server::new(users.layer(routes)).tls(certificate.server_config());
        let listener = Part::run("API listener", failed, |order| async move {
            serving.serve(listener, order, drain).await;
            Ok::<(), Infallible>(())
        });
        Ok(Self {
            server,
            background,
            listener,
            nodes,
            authority,
            token,
        })
    }

    /// A client that calls the server without a socket, with full rights.
    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// Lets the server ask the node for logs. Only the first node is taken.
    pub fn connect(&self, node: &Node) {
        self.nodes
            .connect_once(node.name(), NodeService::new(node.router()));
    }

    /// A kubeconfig for the API at `url`.
    pub fn kubeconfig(&self, url: &str) -> String {
        kubeconfig::render(url, &self.authority, &self.token)
    }

    /// Ends watches, which would hold their connections open, then serves no more.
    pub async fn stop(&self) {
        self.background.trigger();
        self.listener.stop().await;
        self.server.stop(STOP_DEADLINE).await;
    }
}

/// The one node of local mode, once there is one.
#[derive(Default)]
struct LocalNode(OnceLock<(String, NodeService)>);

impl LocalNode {
    fn connect_once(&self, name: &str, routes: NodeService) {
        if self.0.set((name.to_owned(), routes)).is_err() {
            tracing::warn!(node = name, "a node is connected already");
        }
    }
}

impl NodeConnector for LocalNode {
    fn connect(&self, node: &str) -> Option<NodeService> {
        let (name, routes) = self.0.get()?;
        (name == node).then(|| routes.clone())
    }
}

impl std::fmt::Debug for LocalNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.get().map(|(name, _)| name);
        f.debug_tuple("LocalNode").field(&name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_node_is_reached_by_its_name_once_it_is_there() {
        let server = Server::builder().start(&Shutdown::new()).unwrap();
        let routes = || NodeService::new(server.router());
        let nodes = LocalNode::default();
        assert!(nodes.connect("local").is_none());
        nodes.connect_once("local", routes());
        nodes.connect_once("other", routes());
        assert!(nodes.connect("local").is_some());
        assert!(nodes.connect("other").is_none());
        assert_eq!(format!("{nodes:?}"), r#"LocalNode(Some("local"))"#);
    }
}
