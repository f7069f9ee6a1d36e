//! Serving: the flags that say what is served where, and the program's run from its settings to its
//! end.

use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::{self, Shutdown};
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_service::tls::{Followed, Terms};
use agent_sandbox_service::{admin, pprof, process};
use anyhow::Context;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs};

use super::Plan;
use super::values::{self, Bind};
use crate::app::Controller;
use crate::kubeconfig::Connection;

/// How long the admin servers may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// What is served.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub(super) struct ServerArgs {
    /// Address of `/metrics`; 0 serves none
    #[arg(long, env = "AGENT_SANDBOX_METRICS_BIND_ADDRESS", default_value = ":8080", value_parser = values::bind, value_name = "ADDRESS")]
    metrics_bind_address: Bind,
    /// Address of `/livez`, `/healthz` and `/readyz`; 0 serves none
    #[arg(long, env = "AGENT_SANDBOX_HEALTH_PROBE_BIND_ADDRESS", default_value = ":8081", value_parser = values::bind, value_name = "ADDRESS")]
    health_probe_bind_address: Bind,
    /// Serve metrics over TLS
    #[arg(long, env = "AGENT_SANDBOX_METRICS_SECURE_SERVING", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    metrics_secure_serving: bool,
    /// Directory with `tls.crt` and `tls.key` for secure metrics; read again when they change
    #[arg(
        long,
        env = "AGENT_SANDBOX_METRICS_CERT_DIR",
        value_name = "DIR",
        required_if_eq("metrics_secure_serving", "true")
    )]
    metrics_cert_dir: Option<PathBuf>,
    /// Lowest TLS version: `VersionTLS12` or `VersionTLS13`
    #[arg(
        long,
        env = "AGENT_SANDBOX_TLS_MIN_VERSION",
        default_value = "VersionTLS12",
        value_name = "VERSION"
    )]
    tls_min_version: String,
    /// Serve `/debug/pprof/profile` beside the metrics: processor time by thread
    #[arg(long, env = "AGENT_SANDBOX_ENABLE_PPROF", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    enable_pprof: bool,
    /// Serve everything below `/debug/pprof/`: memory, tasks and the command line too
    #[arg(long, env = "AGENT_SANDBOX_ENABLE_PPROF_DEBUG", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    enable_pprof_debug: bool,
    /// Cipher suites of TLS 1.2, all sound ones unless set
    #[arg(
        long,
        env = "AGENT_SANDBOX_TLS_CIPHER_SUITES",
        value_name = "SUITES",
        value_delimiter = ','
    )]
    tls_cipher_suites: Vec<String>,
}

/// What to serve where.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) metrics: Bind,
    pub(super) metrics_tls: Option<(PathBuf, Terms)>,
    pub(super) health: Bind,
    pub(super) profiles: Option<pprof::Scope>,
}

impl ServerArgs {
    pub(super) fn check(self) -> anyhow::Result<Serving> {
        let Self {
            metrics_bind_address,
            health_probe_bind_address,
            metrics_secure_serving,
            metrics_cert_dir,
            enable_pprof,
            enable_pprof_debug,
            tls_min_version,
            tls_cipher_suites,
        } = self;
        let terms = Terms::default()
            .from_version(&tls_min_version)
            .map_err(|error| anyhow::anyhow!("--tls-min-version: {error}"))?
            .with_suites(&tls_cipher_suites)
            .map_err(|error| anyhow::anyhow!("--tls-cipher-suites: {error}"))?;
        Ok(Serving {
            metrics: metrics_bind_address,
            metrics_tls: metrics_cert_dir
                .filter(|_| metrics_secure_serving)
                .map(|dir| (dir, terms)),
            health: health_probe_bind_address,
            profiles: if enable_pprof_debug {
                Some(pprof::Scope::Everything)
            } else {
                enable_pprof.then_some(pprof::Scope::Processor)
            },
        })
    }
}

/// Connects, serves and reconciles.
pub(super) async fn serve(plan: Plan) -> anyhow::Result<()> {
    let Plan {
        mut config,
        server,
        kubeconfig,
        connections,
        own_watch_connection,
        traces,
        log: _,
        warnings: _,
    } = plan;
    // Before anything can be seen from outside: who sees this program may signal it.
    let shutdown = Shutdown::new();
    let signalled = shutdown::signals(&shutdown).context("cannot listen for signals")?;
    let tasks = Tasks::new("admin");
    let admin_shutdown = Shutdown::new();
    let metrics = Metrics::new();
    process::register(metrics.registry())?;
    let readiness = Readiness::new();
    // Without a gate the probe would find the program ready until the operator has registered its own.
    let connected = readiness.register("connection");

    // Ports first: a port in use is the likeliest mistake and the quickest to find.
    let mut servers = Vec::new();
    if let Some(listener) = server.metrics.listen()? {
        let mut router = admin::metrics_router(metrics.clone());
        if let Some(scope) = server.profiles {
            router = router.merge(pprof::router(scope));
        }
        let mut endpoint = Server::new(router);
        if let Some((dir, terms)) = server.metrics_tls {
            let pair = (dir.join("tls.crt"), dir.join("tls.key"));
            let (certificate, tls) = Followed::load(pair.0, pair.1, &terms)?;
            tasks.spawn("certificate", certificate.follow(admin_shutdown.clone()));
            endpoint = endpoint.tls(tls);
        }
        servers.push((endpoint, listener));
    }
    if let Some(listener) = server.health.listen()? {
        let endpoint = Server::new(admin::health_router(readiness.clone()));
        servers.push((endpoint, listener));
    }
    for (server, listener) in servers {
        let stop = admin_shutdown.clone();
        tasks.spawn("admin", async move {
            server.serve(listener, stop, ADMIN_DRAIN).await;
        });
    }

    let connection = Connection::find(kubeconfig.as_deref()).await?;
    tracing::info!(origin = connection.origin(), "connecting to the API server");
    if let Some(election) = &mut config.leader_election
        && election.namespace.is_empty()
    {
        connection.namespace().clone_into(&mut election.namespace);
    }
    let mut builder = Controller::builder(connection.client()?, config)
        .host(connection.host())
        .metrics(&metrics)
        .readiness(&readiness);
    if let Some(settings) = traces {
        builder = builder.traces(Exporter::new(settings));
    }
    for _ in 1..connections {
        builder = builder.write_client(connection.client()?);
    }
    if own_watch_connection {
        builder = builder.watch_client(connection.client()?);
    }
    let controller = builder.build()?;
    connected.set_ready();

    tasks.spawn("signals", async move {
        let signal = signalled.await;
        tracing::info!(signal, "stopping");
    });
    let result = controller.run(shutdown.clone()).await;
    shutdown.trigger();
    admin_shutdown.trigger();
    tasks.shutdown(ADMIN_DRAIN * 2).await;
    result.map_err(Into::into)
}
