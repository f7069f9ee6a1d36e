//! Wiring: from a [`Config`] to a running router, and the order in which it stops.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::readiness::{Gate, Readiness};
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::access_log::AccessLog;
use crate::config::{Adjustable, Config};
use crate::forward::record::Reporters;
use crate::forward::{Proxy, Shared};
use crate::limits::Limits;
use crate::metrics::{MetricsError, RouterMetrics};
use crate::resolve::table::{Table, Trust};
use crate::resolve::{Resolve, Resolver, kube as watches};
use crate::server::{Server, Settings};
use crate::stack::App;
use crate::tls::Certificates;
use crate::upstream::Pool;

/// How long after the deadline of a drain upgraded connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long background work may take to stop at the end.
const BACKGROUND: Duration = Duration::from_secs(1);

/// A router that is ready to serve. One instance serves once.
pub struct Router {
    shared: Arc<Shared>,
    control: Control,
    orders: UnboundedReceiver<Order>,
    feeds: Option<Feeds>,
    serving: Gate,
    access_log: AccessLog,
    sink: Box<dyn Write + Send>,
    metrics: RouterMetrics,
}

/// Changes a router while it serves, without interrupting anything. Clones steer the same router.
#[derive(Clone, Debug)]
pub struct Control(UnboundedSender<Order>);

/// What a running router is told.
#[derive(Debug)]
enum Order {
    LookAgain,
    Adjust(Box<Adjustable>),
}

impl Control {
    /// Looks at certificates and secrets now. They are followed anyway, once a second.
    pub fn look_again(&self) {
        // A router that has stopped has nothing to look at.
        drop(self.0.send(Order::LookAgain));
    }

    /// Serves requests under other settings, on connections that are new or were idle. Requests under
    /// way keep theirs.
    pub fn adjust(&self, changes: Adjustable) {
        drop(self.0.send(Order::Adjust(Box::new(changes))));
    }
}

/// The watches of a router with a cluster.
struct Feeds {
    client: Client,
    namespace: Option<String>,
    table: Arc<Table>,
    pods: Gate,
    sandboxes: Option<Gate>,
}

/// Why a router cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing says where sandboxes are.
    #[error(
        "the router has nothing to resolve sandboxes with: give it a cluster to watch or a cluster domain for DNS"
    )]
    NoResolution,
    /// The metrics registry is used by another router.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Makes a [`Router`].
pub struct RouterBuilder {
    config: Config,
    client: Option<Client>,
    resolver: Option<Arc<dyn Resolve>>,
    metrics: Metrics,
    readiness: Readiness,
    sink: Box<dyn Write + Send>,
}

/// Where a router listens.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Certificates>,
}

impl Listener {
    /// Plain HTTP/1.1 and HTTP/2 with prior knowledge.
    pub fn plain(socket: TcpListener) -> Self {
        Self {
            socket,
            certificates: None,
        }
    }

    /// The same over TLS.
    pub fn tls(socket: TcpListener, certificates: Certificates) -> Self {
        Self {
            socket,
            certificates: Some(certificates),
        }
    }
}

impl RouterBuilder {
    /// Watches sandboxes through this client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Uses what this knows of sandboxes instead of watching.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Registers metrics here.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Reports readiness here: when the first lists have been applied, while serving, and not while
    /// draining.
    #[must_use]
    pub fn readiness(mut self, readiness: &Readiness) -> Self {
        self.readiness = readiness.clone();
        self
    }

    /// Writes the access log here instead of standard error.
    #[must_use]
    pub fn access_log_to(mut self, sink: impl Write + Send + 'static) -> Self {
        self.sink = Box::new(sink);
        self
    }

    /// Puts the router together. Nothing runs yet.
    ///
    /// # Errors
    /// When there is no way to find sandboxes, or the metrics registry is taken.
    pub fn build(self) -> Result<Router, BuildError> {
        let Self {
            config,
            client,
            resolver,
            metrics,
            readiness,
            sink,
        } = self;
        let resolution = &config.resolution;
        let mut feeds = None;
        let source = match (resolver, client) {
            (Some(resolver), _) => Some(resolver),
            (None, Some(client)) => {
                let trust = if resolution.sandboxes {
                    Trust::Sandboxes
                } else {
                    Trust::Pods
                };
                let table = Arc::new(Table::new(trust, resolution.namespace.as_deref()));
                feeds = Some(Feeds {
                    client,
                    namespace: resolution.namespace.clone(),
                    table: table.clone(),
                    pods: readiness.register("pods"),
                    sandboxes: resolution
                        .sandboxes
                        .then(|| readiness.register("sandboxes")),
                });
                Some(table as Arc<dyn Resolve>)
            }
            (None, None) if resolution.dns.is_some() => None,
            (None, None) => return Err(BuildError::NoResolution),
        };
        let serving = readiness.register("serving");
        let router_metrics = RouterMetrics::register(&metrics)?;
        let access_log = if config.access_log {
            AccessLog::buffered(router_metrics.access_log_dropped())
        } else {
            AccessLog::off()
        };
        let shared = Arc::new(Shared {
            resolver: Arc::new(Resolver::new(source, config.resolution.clone())),
            limits: Limits::new(config.limits),
            reporters: Reporters {
                metrics: router_metrics.clone(),
                access_log: access_log.clone(),
                traces: config.traces.clone().map(Exporter::new),
            },
            tasks: Tasks::new("tunnels"),
            closing: Shutdown::new(),
            config,
        });
        let resolver = shared.resolver.clone();
        RouterMetrics::live(
            &metrics,
            "sandbox_router_waiting_requests",
            "Requests waiting for the watch to deliver their sandbox.",
            move || i64::try_from(resolver.waiting()).unwrap_or(i64::MAX),
        )?;
        if let Some(feeds) = &feeds {
            let table = feeds.table.clone();
            RouterMetrics::live(
                &metrics,
                "sandbox_router_known_sandboxes",
                "Sandboxes in the routing table.",
                move || i64::try_from(table.len()).unwrap_or(i64::MAX),
            )?;
        }
        let (control, orders) = mpsc::unbounded_channel();
        Ok(Router {
            shared,
            control: Control(control),
            orders,
            feeds,
            serving,
            access_log,
            sink,
            metrics: router_metrics,
        })
    }
}

impl Router {
    /// A router with this configuration, to be given a client or a resolver.
    pub fn builder(config: Config) -> RouterBuilder {
        RouterBuilder {
            config,
            client: None,
            resolver: None,
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            sink: Box::new(std::io::stderr()),
        }
    }

    /// Changes the router while it serves.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves one plain listener until `shutdown`; see [`Self::serve_all`].
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        self.serve_all(vec![Listener::plain(listener)], shutdown)
            .await;
    }

    /// Serves until `shutdown`, then drains: reports not ready, keeps accepting for the configured
    /// delay, lets requests and upgraded connections finish within the configured time, and closes
    /// what is left. Completes when nothing of the router runs any more.
    pub async fn serve_all(self, listeners: Vec<Listener>, shutdown: Shutdown) {
        let Self {
            shared,
            control: _,
            orders,
            feeds,
            serving,
            access_log,
            sink,
            metrics,
        } = self;
        let background = Tasks::new("router background");
        if let Some(feeds) = feeds {
            feeds.start(&background);
        }
        // What is said about requests is said to the end, after the last of them.
        let reports = Tasks::new("reports");
        let last = Shutdown::new();
        reports.spawn("access log", access_log.run(sink, last.clone()));
        if let Some(exporter) = shared.reporters.traces.clone() {
            reports.spawn("traces", exporter.run(last.clone()));
        }
        let authorizer = shared.config.authorizer.clone();
        background.spawn("secrets", async move { authorizer.follow().await });
        let stopping = Shutdown::new();
        let settings = Settings::new(&shared.config.time, &shared.config.limits);
        let upstreams = Tasks::new("upstream connections");
        let accepting = Tasks::new("listeners");
        let mut servers = Vec::with_capacity(listeners.len());
        let mut steered = Steered {
            shared: shared.clone(),
            servers: Vec::with_capacity(listeners.len()),
            certificates: Vec::new(),
        };
        for listener in listeners {
            let pool = Pool::new(shared.config.pool, upstreams.clone(), metrics.clone());
            background.spawn("pool sweep", pool.clone().sweep());
            if let Some(certificates) = &listener.certificates {
                background.spawn("certificates", certificates.clone().follow(metrics.clone()));
                steered.certificates.push(certificates.clone());
            }
            let server = Server::new(
                App::new(Proxy::new(shared.clone(), pool.clone())),
                settings,
                listener.certificates,
                metrics.clone(),
                stopping.clone(),
            );
            let accept = server.clone();
            accepting.spawn(
                "accept",
                async move { accept.accept(listener.socket).await },
            );
            steered.servers.push((server.clone(), pool));
            servers.push(server);
        }
        background.spawn("control", steered.follow(orders));
        serving.set_ready();

        shutdown.triggered().await;
        let drain = shared.config.drain;
        serving.set_not_ready("draining");
        tokio::time::sleep(drain.delay).await;
        stopping.trigger();
        accepting.shutdown(BACKGROUND).await;
        let connections =
            futures::future::join_all(servers.iter().map(|server| server.finish(drain.timeout)));
        let finished = async {
            connections.await;
            // Started while their connections were still open, so none is missed here.
            shared.tasks.shutdown(drain.timeout + GOODBYE).await;
        };
        let late = async {
            tokio::time::sleep(drain.timeout).await;
            shared.closing.trigger();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = finished => {}
            () = late => {}
        }
        upstreams.shutdown(Duration::ZERO).await;
        background.shutdown(Duration::ZERO).await;
        last.trigger();
        reports.shutdown(BACKGROUND).await;
    }
}

/// What a running router is changed by.
struct Steered {
    shared: Arc<Shared>,
    servers: Vec<(Server, Arc<Pool>)>,
    certificates: Vec<Certificates>,
}

impl Steered {
    /// Does as told until cancelled.
    async fn follow(mut self, mut orders: UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::LookAgain => {
                    self.shared.config.authorizer.look_again();
                    for certificates in &self.certificates {
                        certificates.look_again();
                    }
                }
                Order::Adjust(changes) => {
                    self.shared = Arc::new(self.shared.adjusted(*changes));
                    for (server, pool) in &self.servers {
                        server.replace(App::new(Proxy::new(self.shared.clone(), pool.clone())));
                    }
                    tracing::info!("settings adjusted");
                }
            }
        }
    }
}

impl Feeds {
    fn start(self, tasks: &Tasks) {
        let Self {
            client,
            namespace,
            table,
            pods,
            sandboxes,
        } = self;
        if let Some(gate) = sandboxes {
            let feed = watches::watch::<watches::Sandbox>(
                client.clone(),
                namespace.clone(),
                table.clone(),
                Some(gate),
            );
            tasks.spawn("watch sandboxes", feed);
        }
        let feed =
            watches::watch::<watches::Pool>(client.clone(), namespace.clone(), table.clone(), None);
        tasks.spawn("watch pools", feed);
        tasks.spawn(
            "watch pods",
            watches::watch::<watches::Pod>(client, namespace, table, Some(pods)),
        );
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

impl fmt::Debug for RouterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterBuilder").finish_non_exhaustive()
    }
}
