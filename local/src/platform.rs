//! The platform in one process: start order, hand-over, and the stop in reverse.
//!
//! ```text
//!   listeners -> API server -> CRDs -> node, controller, router -> kubeconfig -> manifests -> ready
//! ```
//!
//! Both listeners are bound first, so that a port in use is found before anything was started. What
//! had been started when a later step fails is stopped in the same order as at the end.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_controller::Controller;
use agent_sandbox_node::{ClaimData, ImageTable, InitProgram, Isolation, Node};
use agent_sandbox_router::Router;
use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_service::listen::{self, ListenError};
use agent_sandbox_service::readiness::Readiness;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::api::{Api, ApiError};
use crate::args::{Config, Keep};
use crate::definitions::{self, DefinitionError};
use crate::images::{self, TableError};
use crate::manifest::{self, ManifestError};
use crate::part::{Failure, Part};
use crate::state_dir::{StateDir, StateDirError};

/// How long the parts may take to report ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(2);
/// How long requests in flight may take when the platform stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How long pods may take to end when the platform stops, whatever their grace period.
const POD_GRACE: Duration = Duration::from_secs(2);

/// A running platform. It must be stopped with [`Platform::stop`]; a dropped one leaves its files.
#[derive(Debug)]
pub struct Platform {
    state: StateDir,
    api: Api,
    api_url: String,
    router_url: String,
    isolation: Isolation,
    parts: Parts,
    failures: mpsc::Receiver<Failure>,
}

/// What runs beside the API server. Parts are filled in as they start.
#[derive(Debug, Default)]
struct Parts {
    router: Option<Part>,
    controller: Option<Part>,
    node: Option<Part>,
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
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The resource kinds cannot be installed.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// The image table has a bad entry.
    #[error(transparent)]
    Images(#[from] TableError),
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

impl Platform {
    /// Starts everything and applies the manifests. When it returns, claims and requests are served.
    ///
    /// # Errors
    /// Names the flag, file or part at fault. Whatever had been started has been stopped.
    pub async fn start(config: &Config) -> Result<Self, PlatformError> {
        // A typo is found before anything runs.
        let manifests = manifest::read(&config.apply)?;
        let program = std::env::current_exe().map_err(PlatformError::Program)?;
        let images = images::table(&program, &config.images)?;
        let state = StateDir::open(&config.state_dir)?;
        let (api_listener, api_address) = bind("--api-port", config.api_port)?;
        let (router_listener, router_address) = bind("--router-port", config.router_port)?;
        let (failed, failures) = mpsc::channel(4);
        let journal = match config.keep {
            Keep::Nothing => None,
            Keep::Objects => Some(state.create_journal()?),
        };
        let api = Api::start(api_listener, journal, DRAIN, &failed)?;
        let mut parts = Parts::default();
        let composed = parts
            .start(&api, &state, config.keep, images, router_listener, &failed)
            .await;
        let (readiness, isolation) = match composed {
            Ok(composed) => composed,
            Err(error) => {
                parts.stop(&api).await;
                return Err(error);
            }
        };
        let platform = Self {
            state,
            api,
            api_url: format!("https://{api_address}"),
            router_url: format!("http://{router_address}"),
            isolation,
            parts,
            failures,
        };
        match platform.open(&readiness, router_address, manifests).await {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.stop().await;
                Err(error)
            }
        }
    }

    /// Lets users in: everything is ready, what they need is written, what they gave is applied.
    async fn open(
        &self,
        readiness: &Readiness,
        router: SocketAddr,
        manifests: Vec<manifest::Manifest>,
    ) -> Result<(), PlatformError> {
        let client = self.client();
        definitions::publish_router(&client, router).await?;
        let kubeconfig = self.api.kubeconfig(&self.api_url);
        self.state
            .write_private(&self.state.kubeconfig(), &kubeconfig)?;
        ready(readiness).await?;
        manifest::apply(&client, manifests).await?;
        Ok(())
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
        self.api.client()
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
        let Self {
            state, parts, api, ..
        } = self;
        parts.stop(&api).await;
        if let Err(error) = state.remove(&state.kubeconfig()) {
            tracing::warn!(%error, "a stale kubeconfig is left");
        }
    }
}

impl Parts {
    /// Installs the kinds and starts everything that works through the API. On failure the parts
    /// that had been started are still in `self`.
    async fn start(
        &mut self,
        api: &Api,
        state: &StateDir,
        keep: Keep,
        images: ImageTable,
        router_listener: TcpListener,
        failed: &mpsc::Sender<Failure>,
    ) -> Result<(Readiness, Isolation), PlatformError> {
        definitions::install(&api.client()).await?;
        let readiness = Readiness::new();

        let (directory, claim_data) = match keep {
            Keep::Nothing => (state.node(), ClaimData::Remove),
            Keep::Objects => (state.kept_node(), ClaimData::Keep),
        };
        let node = Node::builder(api.client(), directory)
            .images(images)
            .init(InitProgram::current())
            .stop_grace(POD_GRACE)
            .claim_data(claim_data)
            .gate(readiness.register("node"))
            .build()
            .await?;
        let isolation = node.isolation().clone();
        api.connect(&node);
        self.node = Some(Part::run("node", failed, |order| node.run(order)));

        let controller =
            Controller::builder(api.client(), agent_sandbox_controller::Config::default())
                .readiness(&readiness)
                .build()?;
        self.controller = Some(Part::run("controller", failed, |order| {
            controller.run(order)
        }));

        // Everybody who can reach this machine's loopback device may use its sandboxes: that is one
        // developer, or one CI job.
        let mut settings = agent_sandbox_router::Config::new(Authorizer::AllowAll);
        settings.drain.timeout = DRAIN;
        settings.access_log = false;
        let router = Router::builder(settings)
            .client(api.client())
            .readiness(&readiness)
            .build()?;
        self.router = Some(Part::run("router", failed, |order| async move {
            router.serve(router_listener, order).await;
            Ok::<(), Infallible>(())
        }));
        Ok((readiness, isolation))
    }

    async fn stop(&self, api: &Api) {
        let Self {
            router,
            controller,
            node,
        } = self;
        let stop = async |part: &Option<Part>| {
            if let Some(part) = part {
                part.stop().await;
            }
        };
        tokio::join!(stop(router), stop(controller));
        stop(node).await;
        api.stop().await;
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
