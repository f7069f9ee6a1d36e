//! A running API server: assembled, started, reached in-process or through a router.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::background::{self, Settings, definitions};
use crate::http::metrics::RequestMetrics;
use crate::http::{Api, Limits, Unattended, router};
use crate::ops::{Engine, Ids, Target, TokenIssuer, WriteOptions};
use crate::registry::{Descriptor, Registry, builtin, custom};
use crate::status::ApiError;
use crate::store::journal::{Contents, Journal, JournalError};
use crate::store::{Draft, Store, WindowLimits};
use crate::stream::NodeConnector;

/// Namespaces that exist from the start.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be used.
    #[error("cannot restore the stored objects")]
    Journal(#[from] JournalError),
    /// The metrics registry is in use by another server.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    /// An object that must exist cannot be created.
    #[error("cannot create {what}: {cause}")]
    Provision {
        /// Which object.
        what: String,
        /// What the API answered.
        cause: ApiError,
    },
}

/// Settings of a server that has not started.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    clock: Clock,
    ids: Ids,
    window: WindowLimits,
    limits: Limits,
    settings: Settings,
    journal: Option<PathBuf>,
    metrics: Option<Metrics>,
    nodes: Option<Arc<dyn NodeConnector>>,
    unattended: Unattended,
}

impl Builder {
    /// Where the time comes from; the system's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Where UIDs come from; random ones by default.
    #[must_use]
    pub fn ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// How much history watches can go back to.
    #[must_use]
    pub fn window(mut self, window: WindowLimits) -> Self {
        self.window = window;
        self
    }

    /// Limits of the HTTP side.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long events and history are kept.
    #[must_use]
    pub fn expiry(mut self, limits: background::ExpiryLimits) -> Self {
        self.settings.expiry = limits;
        self
    }

    /// The certificate authority, in PEM, that `kube-root-ca.crt` publishes in every namespace.
    #[must_use]
    pub fn root_ca(mut self, pem: impl Into<String>) -> Self {
        self.settings.root_ca = Some(pem.into());
        self
    }

    /// Keeps objects in a file, so that the next server on it continues where this one stopped.
    /// Without it everything is lost with the process.
    #[must_use]
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Where requests are counted.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Who serves the logs and streams of pods; without it they are unavailable.
    #[must_use]
    pub fn nodes(mut self, connector: Arc<dyn NodeConnector>) -> Self {
        self.nodes = Some(connector);
        self
    }

    /// Adds a kind that nobody in this cluster acts on: who creates such an object is warned.
    #[must_use]
    pub fn unattended(mut self, group: impl Into<String>, kind: impl Into<String>) -> Self {
        self.unattended.add(group, kind);
        self
    }

    /// Starts the server. It runs until `shutdown`; [`Server::stop`] waits for its end.
    ///
    /// # Errors
    /// When the journal cannot be used, or is full of objects that contradict the start.
    pub fn start(self, shutdown: &Shutdown) -> Result<Server, StartError> {
        let Self {
            clock,
            ids,
            window,
            limits,
            settings,
            journal,
            metrics,
            nodes,
            unattended,
        } = self;
        let metrics = metrics
            .map(|metrics| RequestMetrics::register(metrics.registry()))
            .transpose()?;
        let registry = Registry::new(builtin::descriptors());
        let store = Store::new(window);
        if let Some(path) = journal {
            let (journal, contents) = Journal::open(&path)?;
            restore(&store, &registry, contents);
            store.attach_journal(journal);
        }
        let engine = Engine {
            store,
            registry,
            clock,
            ids,
            tokens: TokenIssuer::default(),
        };
        for descriptor in engine.registry.snapshot().descriptors() {
            engine.renormalise(descriptor);
        }
        provision(&engine)?;
        let mut definitions = definitions::Definitions::new(&engine);
        definitions.reconcile();
        let tasks = Tasks::new("apiserver");
        background::start(&engine, definitions, settings, &tasks, shutdown);
        let api = Api {
            engine,
            shutdown: shutdown.clone(),
            limits,
            metrics,
            nodes,
            unattended: Arc::new(unattended),
        };
        Ok(Server { api, tasks })
    }
}

/// A running server. Clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    api: Api,
    tasks: Tasks,
}

impl Server {
    /// A server with default settings, ready to be changed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The API as an axum router, without authentication: wrap it in
    /// [`crate::auth::Authenticator::layer`] before it listens anywhere.
    pub fn router(&self) -> Router {
        router::router(self.api.clone())
    }

    /// A client that calls the server without a socket, with full rights.
    pub fn client(&self) -> kube::Client {
        let service = self
            .router()
            .map_request(|request: Request<kube::client::Body>| request.map(Body::new));
        kube::Client::new(
            service.map_err(|never: Infallible| match never {}),
            "default",
        )
    }

    /// The operations underneath, for parts of one process that need no HTTP.
    pub fn engine(&self) -> &Engine {
        &self.api.engine
    }

    /// Waits for the background work to end after shutdown, aborts what is late, and flushes the
    /// journal.
    pub async fn stop(&self, deadline: Duration) {
        self.tasks.shutdown(deadline).await;
        if let Err(error) = self.api.engine.store.sync_journal() {
            tracing::warn!(%error, "the journal cannot be flushed");
        }
    }
}

/// Puts what a journal held into the store, indexed by the descriptors that apply.
fn restore(store: &Store, registry: &Registry, contents: Contents) {
    let snapshot = registry.snapshot();
    let defined: Vec<Descriptor> = contents
        .objects
        .iter()
        .filter(|(resource, ..)| resource == definitions::DEFINITIONS)
        .filter_map(|(_, _, definition)| {
            custom::descriptor(definition, custom::Phase::Serving).ok()
        })
        .collect();
    let indexed = contents
        .objects
        .into_iter()
        .map(|(resource, revision, value)| {
            let fields = snapshot
                .qualified(&resource)
                .map(AsRef::as_ref)
                .or_else(|| {
                    defined
                        .iter()
                        .find(|descriptor| descriptor.qualified() == resource)
                })
                .map(|descriptor| crate::ops::fields(descriptor, &value))
                .unwrap_or_default();
            let draft = Draft::new(&value, fields);
            (resource, revision, draft)
        });
    store.restore(contents.revision, indexed);
}

/// Creates the namespaces that exist from the start.
fn provision(engine: &Engine) -> Result<(), StartError> {
    let snapshot = engine.registry.snapshot();
    let Some(descriptor) = snapshot.resource("", "namespaces") else {
        return Ok(());
    };
    for name in NAMESPACES {
        let namespace: Value = json!({ "metadata": { "name": name } });
        let outcome = Target::stored(descriptor, "", "").and_then(|target| {
            engine.create(
                &target,
                namespace,
                &WriteOptions::internal("agent-sandbox-apiserver"),
            )
        });
        match outcome {
            Err(cause) if cause.reason() != "AlreadyExists" => {
                return Err(StartError::Provision {
                    what: format!("namespace {name}"),
                    cause,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
