//! The platform in one process: start order, hand-over, and the stop in reverse.
//!
//! ```text
//!   listeners -> API server -> CRDs -> node, controller, router -> kubeconfig -> manifests -> ready
//! ```
//!
//! Both listeners are bound first, so that a port in use is found before anything was started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::auth::{Authenticator, User};
use agent_sandbox_apiserver::certificate::{CertificateError, ServingCertificate};
use agent_sandbox_controller::Controller;
use agent_sandbox_node::{InitProgram, InvalidImageName, Isolation, Node};
use agent_sandbox_router::Router;
use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_service::listen::{self, ListenError};
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::server;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::args::Config;
use crate::definitions::{self, DefinitionError};
use crate::manifest::{self, ManifestError};
use crate::state_dir::{StateDir, StateDirError};
use crate::{images, kubeconfig};

/// How long the parts may take to report ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(2);
/// How long requests in flight may take when the platform stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How long pods may take to end when the platform stops, whatever their grace period.
const POD_GRACE: Duration = Duration::from_secs(2);
/// How long each part may take to stop before it is cut.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A running platform. It must be stopped with [`Platform::stop`]; a dropped one leaves its files.
#[derive(Debug)]
pub struct Platform {
    state: StateDir,
    client: ClientHandle,
    api_url: String,
    router_url: String,
    isolation: Isolation,
    parts: Parts,
    failures: mpsc::Receiver<Failure>,
}

/// What runs, each with its own order to stop, because the stop has an order too.
#[derive(Debug)]
struct Parts {
    router: Part,
    controller: Part,
    node: Part,
    listener: Part,
    api: Shutdown,
    server: Server,
}

#[derive(Debug)]
struct Part {
    shutdown: Shutdown,
    tasks: Tasks,
}

/// A part that ended while it should run.
#[derive(Debug, thiserror::Error)]
#[error("the {part} stopped by itself: {cause}")]
pub struct Failure {
    part: &'static str,
    cause: String,
}

/// Why the platform cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A port cannot be bound.
    #[error("{flag}: {source}")]
    Listen {
        /// The flag that chose the port.
        flag: &'static str,
        /// Why.
        source: ListenError,
    },
    /// No certificate for the API.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The API server does not start.
    #[error("the API server does not start")]
    Api(#[from] agent_sandbox_apiserver::StartError),
    /// The resource kinds cannot be installed.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// The image table has a bad entry.
    #[error(transparent)]
    Images(#[from] InvalidImageName),
    /// The node does not start.
    #[error("the node does not start")]
    Node(#[from] agent_sandbox_node::BuildError),
    /// The controller does not start.
    #[error("the controller does not start")]
    Controller(#[from] agent_sandbox_controller::ControllerError),
    /// The router does not start.
    #[error("the router does not start")]
    Router(#[from] agent_sandbox_router::BuildError),
    /// A manifest cannot be applied.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Our own program cannot be found, and pods could not run it.
    #[error("the path of this program is unknown")]
    Program(#[source] std::io::Error),
    /// A part did not become ready.
    #[error("not ready after {} s: {}", READY_DEADLINE.as_secs(), .closed.join("; "))]
    NotReady {
        /// The parts, and what they wait for.
        closed: Vec<String>,
    },
}

/// A client that prints as nothing but itself.
#[derive(Clone)]
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Platform {
    /// Starts everything and applies the manifests. When it returns, claims and requests are served.
    ///
    /// # Errors
    /// Names the flag, file or part at fault. Whatever had been started has been stopped.
    pub async fn start(config: &Config) -> Result<Self, PlatformError> {
        // A typo is found before anything runs.
        let manifests = manifest::read(&config.apply)?;
        let state = StateDir::open(&config.state_dir)?;
        let api_listener = bind("--api-port", config.api_port)?;
        let router_listener = bind("--router-port", config.router_port)?;
        let platform = Self::compose(state, api_listener, router_listener).await?;
        match manifest::apply(&platform.client.0, manifests).await {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.stop().await;
                Err(error.into())
            }
        }
    }

    async fn compose(
        state: StateDir,
        (api_listener, api_address): (TcpListener, SocketAddr),
        (router_listener, router_address): (TcpListener, SocketAddr),
    ) -> Result<Self, PlatformError> {
        let (failed, failures) = mpsc::channel(4);
        let certificate = ServingCertificate::generate(&[Ipv4Addr::LOCALHOST.into()])?;
        let token = Authenticator::generate_token();
        let api = Shutdown::new();
        let server = Server::builder()
            .root_ca(certificate.authority_pem())
            .start(&api)?;
        let client = server.client();
        definitions::install(&client).await?;

        let listener = Part::new("API listener");
        let guarded = Authenticator::new([(token.as_str(), User::admin())]).layer(server.router());
        let serving = server::Server::new(guarded)
            .tls(certificate.server_config())
            .serve(api_listener, listener.shutdown.clone(), DRAIN);
        listener.tasks.spawn("serve", serving);

        let program = std::env::current_exe().map_err(PlatformError::Program)?;
        let readiness = Readiness::new();
        let node = Node::builder(server.client(), state.node())
            .images(images::table(&program)?)
            .init(InitProgram::current())
            .stop_grace(POD_GRACE)
            .gate(readiness.register("node"))
            .build()
            .await?;
        let isolation = node.isolation().clone();
        let node_part = Part::new("node");
        node_part.run("node", &failed, |order| async move {
            node.run(order).await.map_err(|error| error.to_string())
        });

        let controller =
            Controller::builder(server.client(), agent_sandbox_controller::Config::default())
                .readiness(&readiness)
                .build()?;
        let controller_part = Part::new("controller");
        controller_part.run("controller", &failed, |order| async move {
            controller
                .run(order)
                .await
                .map_err(|error| error.to_string())
        });

        // Everybody who can reach this machine's loopback device may use its sandboxes: that is one
        // developer, or one CI job.
        let mut settings = agent_sandbox_router::Config::new(Authorizer::AllowAll);
        settings.drain.timeout = DRAIN;
        settings.access_log = false;
        let router = Router::builder(settings)
            .client(server.client())
            .readiness(&readiness)
            .build()?;
        let router_part = Part::new("router");
        router_part.run("router", &failed, |order| async move {
            router.serve(router_listener, order).await;
            Ok(())
        });

        let platform = Self {
            client: ClientHandle(client),
            api_url: format!("https://{api_address}"),
            router_url: format!("http://{router_address}"),
            isolation,
            parts: Parts {
                router: router_part,
                controller: controller_part,
                node: node_part,
                listener,
                api,
                server,
            },
            failures,
            state,
        };
        let text = kubeconfig::render(&platform.api_url, certificate.authority_pem(), &token);
        platform
            .state
            .write_private(&platform.state.kubeconfig(), &text)?;
        match ready(&readiness).await {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.stop().await;
                Err(error)
            }
        }
    }

    /// Where the kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.kubeconfig()
    }

    /// Base URL of the Kubernetes API.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Base URL of the router.
    pub fn router_url(&self) -> &str {
        &self.router_url
    }

    /// How pods are confined.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// The state directory.
    pub fn state_dir(&self) -> &std::path::Path {
        self.state.path()
    }

    /// A client with full rights.
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// Completes when a part ends that should run.
    pub async fn failed(&mut self) -> Failure {
        match self.failures.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Stops everything: no new requests, no more decisions, no pods, and the API last, because the
    /// others still report to it. Afterwards nothing of the platform runs, and the files that would
    /// mislead are gone.
    pub async fn stop(self) {
        let Self { state, parts, .. } = self;
        let Parts {
            router,
            controller,
            node,
            listener,
            api,
            server,
        } = parts;
        tokio::join!(router.stop(), controller.stop());
        node.stop().await;
        listener.stop().await;
        api.trigger();
        server.stop(STOP_DEADLINE).await;
        if let Err(error) = state.remove(&state.kubeconfig()) {
            tracing::warn!(%error, "a stale kubeconfig is left");
        }
    }
}

impl Part {
    fn new(name: &'static str) -> Self {
        Self {
            shutdown: Shutdown::new(),
            tasks: Tasks::new(name),
        }
    }

    /// Runs a part; its end without an order to stop is a failure of the platform.
    fn run<F, R>(&self, part: &'static str, failed: &mpsc::Sender<Failure>, run: F)
    where
        F: FnOnce(Shutdown) -> R,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (failed, order) = (failed.clone(), self.shutdown.clone());
        let running = run(self.shutdown.clone());
        self.tasks.spawn(part, async move {
            let outcome = running.await;
            if order.is_triggered() {
                return;
            }
            let cause = outcome
                .err()
                .unwrap_or_else(|| "no reason given".to_owned());
            if failed.send(Failure { part, cause }).await.is_err() {
                tracing::debug!(part, "nobody waits for failures any more");
            }
        });
    }

    async fn stop(&self) {
        self.shutdown.trigger();
        self.tasks.shutdown(STOP_DEADLINE).await;
    }
}

fn bind(flag: &'static str, port: u16) -> Result<(TcpListener, SocketAddr), PlatformError> {
    let refused = |source| PlatformError::Listen { flag, source };
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = listen::bind(wanted).map_err(refused)?;
    let address = listener.local_addr().map_err(|source| {
        refused(ListenError {
            address: wanted,
            source,
        })
    })?;
    Ok((listener, address))
}

async fn ready(readiness: &Readiness) -> Result<(), PlatformError> {
    let deadline = tokio::time::Instant::now() + READY_DEADLINE;
    loop {
        let Err(closed) = readiness.check() else {
            return Ok(());
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(PlatformError::NotReady { closed });
        }
        tokio::time::sleep(READY_POLL).await;
    }
}
