//! Wiring: from a [`Config`] to a serving runtime, without globals, so that several can run in one
//! process.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::listen::{self, ListenError};
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use axum::Router;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::api::App;
use crate::api::auth::{Gate, TokenError};
use crate::api::grpc::Health;
use crate::config::{Config, OWN_VARIABLES};
use crate::exec::{Environment, Processes, Settings};
use crate::files::{Root, RootError};
use crate::metrics::RuntimeMetrics;
use crate::routes;

/// Why a runtime cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root directory.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The metrics registry is already used by another runtime.
    #[error("metrics of another runtime are in the same registry")]
    Metrics(#[from] prometheus::Error),
    /// The definitions of the gRPC services.
    #[error("the definitions of the gRPC services are broken")]
    Definitions(#[from] tonic_reflection::server::Error),
    /// Something every machine has is missing.
    #[error("cannot prepare the process engine")]
    System(#[from] io::Error),
}

/// How long commands may take to end after SIGTERM at a shutdown.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much output a command's journal keeps.
const JOURNAL_BYTES: usize = 256 << 10;

/// More servers than this nobody starts in a sandbox.
const MAX_LEFTOVERS: usize = 1024;

/// A runtime that is set up and can serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    app: App,
    router: Router,
}

/// Builds a [`Runtime`].
#[derive(Debug)]
pub struct Builder {
    config: Config,
    metrics: Metrics,
}

impl Builder {
    /// Registers the runtime's metrics here instead of in a registry of its own.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Opens the root directory and checks the token.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn build(self) -> Result<Runtime, StartError> {
        let Self { config, metrics } = self;
        let gate = Gate::new(config.token.clone())?;
        let variables = config
            .environment
            .iter()
            .filter(|(name, _)| !is_own(name))
            .cloned();
        let app = App {
            root: Root::open(&config.root)?,
            processes: Processes::new(Settings {
                environment: Environment::new(variables),
                max_processes: config.max_processes,
                kept: config.kept_processes,
                leftovers: MAX_LEFTOVERS,
                open_files: config.command_open_files,
                limits: config.command_limits.clone(),
                journal_bytes: JOURNAL_BYTES,
                collected_bytes: config.max_collected_bytes,
            })?,
            metrics: RuntimeMetrics::register(&metrics)?,
            health: Health::new(),
            config: Arc::new(config),
            began: Instant::now(),
        };
        let router = routes::router(&app, gate, metrics)?;
        Ok(Runtime { app, router })
    }
}

fn is_own(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(OWN_VARIABLES.as_bytes())
}

impl Runtime {
    /// Starts setting up a runtime.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            metrics: Metrics::new(),
        }
    }

    /// Every face as a service.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What handlers work with.
    #[cfg(test)]
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// The commands of this runtime.
    pub fn processes(&self) -> &Processes {
        &self.app.processes
    }

    /// Binds every configured port.
    ///
    /// # Errors
    /// Names the address, the cause and the remedy.
    pub fn bind(&self) -> Result<Vec<TcpListener>, ListenError> {
        self.app.config.addresses().map(listen::bind).collect()
    }

    /// Serves on `listeners` until `shutdown`, then ends every command and its descendants, lets
    /// requests in flight finish within the configured time, and returns.
    pub async fn serve(self, listeners: Vec<TcpListener>, shutdown: Shutdown) {
        let config = &self.app.config;
        self.app.health.serving().await;
        let connections = Tasks::new("listeners");
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, root = %config.root.display(), "serving");
            }
            let server = Server::new(self.router.clone())
                .max_connections(config.max_connections)
                .header_timeout(config.idle_timeout);
            connections.spawn(
                "listener",
                server.serve(listener, shutdown.clone(), config.shutdown_timeout),
            );
        }
        shutdown.triggered().await;
        self.app.health.not_serving().await;
        // Ended commands answer their requests, so this comes before the connections are waited for.
        self.app.processes.shutdown(PATIENCE).await;
        // Each listener keeps its own deadline; the margin only covers a stuck one.
        connections
            .shutdown(config.shutdown_timeout + PATIENCE)
            .await;
    }
}
