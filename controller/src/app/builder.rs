//! What an operator is made from, and how its parts are put together before it runs. Reads no flags and
//! starts nothing: [`Controller::run`] does.

use std::sync::Arc;

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::readiness::Readiness;
use kube::Client;

use super::{Controller, ControllerError};
use crate::allocation::Desks;
use crate::api::{self, Api, RateLimit};
use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::expiry::Deadlines;
use crate::fence::Fence;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::store::{Queues, Store};
use crate::trace::Tracer;

/// What an operator is made from.
#[derive(Debug)]
pub struct Builder {
    client: ClientHandle,
    more_writers: Vec<ClientHandle>,
    watcher: Option<ClientHandle>,
    config: Config,
    clock: Clock,
    host: String,
    traces: Option<Exporter>,
    metrics: agent_sandbox_service::metrics::Metrics,
    readiness: Readiness,
}

/// A client that prints as nothing but itself.
#[derive(Clone)]
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Controller {
    /// An operator that talks through `client`.
    pub fn builder(client: Client, config: Config) -> Builder {
        Builder {
            client: ClientHandle(client),
            more_writers: Vec::new(),
            watcher: None,
            config,
            clock: Clock::system(),
            host: "in-process".to_owned(),
            traces: None,
            metrics: agent_sandbox_service::metrics::Metrics::new(),
            readiness: Readiness::new(),
        }
    }
}

impl Builder {
    /// Watches through a client, and so a connection, of their own.
    #[must_use]
    pub fn watch_client(mut self, client: Client) -> Self {
        self.watcher = Some(ClientHandle(client));
        self
    }

    /// One more client, and so connection, for writes.
    #[must_use]
    pub fn write_client(mut self, client: Client) -> Self {
        self.more_writers.push(ClientHandle(client));
        self
    }

    /// Where the time comes from; the system's clock unless set.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What the API server is called in metrics.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Where spans go; nowhere unless set. The operator runs the exporter.
    #[must_use]
    pub fn traces(mut self, exporter: Exporter) -> Self {
        self.traces = Some(exporter);
        self
    }

    /// Where metrics are registered; a registry of its own unless set.
    #[must_use]
    pub fn metrics(mut self, metrics: &agent_sandbox_service::metrics::Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Where readiness is reported; nowhere unless set.
    #[must_use]
    pub fn readiness(mut self, readiness: &Readiness) -> Self {
        self.readiness = readiness.clone();
        self
    }

    /// The operator.
    ///
    /// # Errors
    /// When the metrics registry already belongs to another operator.
    pub fn build(self) -> Result<Controller, ControllerError> {
        let Self {
            client,
            more_writers,
            watcher,
            config,
            clock,
            host,
            traces,
            metrics: exposed,
            readiness,
        } = self;
        let metrics = Metrics::register(exposed.registry())?;
        let fence = if config.leader_election.is_some() {
            Fence::closed()
        } else {
            Fence::open()
        };
        let watcher = watcher.unwrap_or_else(|| client.clone()).0;
        let writers = std::iter::once(client)
            .chain(more_writers)
            .map(|handle| handle.0)
            .collect();
        let queues = Queues::default();
        let deadlines = Deadlines::new();
        let store = Store::new(queues.clone(), deadlines.clone());
        Metrics::register_computed(
            exposed.registry(),
            &store,
            queues.clone(),
            deadlines.clone(),
        )?;
        let (events, recorder) = Events::new(metrics.events_dropped.clone());
        let settings = api::Settings {
            fence: fence.clone(),
            limit: RateLimit::new(config.api_qps, config.api_burst),
            metrics: metrics.api.clone(),
            host,
            timeout: config.api_timeout,
        };
        let api = Api::new(writers, watcher, settings);
        let cx = Arc::new(Context {
            api,
            store,
            desks: Desks::default(),
            lanes: Lanes::new(config.background_writes, config.background_patience),
            clock,
            config: Arc::new(config),
            events,
            metrics,
            tracer: traces.clone().map_or_else(Tracer::default, Tracer::to),
        });
        Ok(Controller {
            cx,
            queues,
            deadlines,
            recorder,
            traces,
            caches: readiness.register("caches"),
            leadership: readiness.register("leadership"),
            fence,
        })
    }
}
