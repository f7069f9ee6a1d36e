//! The command line: every flag that existing manifests pass is accepted. Flags become a validated
//! [`Config`] once, here; flags that no longer mean anything are accepted with a warning, and flags
//! that ask for what this program cannot do are refused.

mod former;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::args::LogArgs;
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::{self, Shutdown};
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_service::{admin, log, process, tls};
use anyhow::Context as _;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs, Parser};

use self::former::{FormerArgs, ZapArgs};
use self::values::Bind;
use crate::app::Controller;
use crate::config::{
    ClaimSettings, Config, DEFAULT_LABEL_DOMAIN, LeaderElection, PolicySettings, PoolSettings,
    Workers,
};
use crate::kubeconfig::Connection;

/// How long the admin servers may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// Workers beyond which a warning is due.
const MANY_WORKERS: usize = 1000;

/// Runs sandboxes, their claims, templates and warm pools on a Kubernetes cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "agent-sandbox-controller", version)]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    sandboxes: SandboxArgs,
    #[command(flatten)]
    claims: ClaimArgs,
    #[command(flatten)]
    pools: PoolArgs,
    #[command(flatten)]
    templates: TemplateArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    zap: ZapArgs,
    #[command(flatten)]
    former: FormerArgs,
}

/// What is run.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Controllers")]
struct ScopeArgs {
    /// Run the controllers for claims, templates and pools
    #[arg(long, env = "AGENT_SANDBOX_EXTENSIONS", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    extensions: bool,
}

/// What is served.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Serving")]
struct ServerArgs {
    /// Address of `/metrics`; 0 serves none
    #[arg(long, env = "AGENT_SANDBOX_METRICS_BIND_ADDRESS", default_value = ":8080", value_parser = values::bind, value_name = "ADDRESS")]
    metrics_bind_address: Bind,
    /// Address of `/livez`, `/healthz` and `/readyz`; 0 serves none
    #[arg(long, env = "AGENT_SANDBOX_HEALTH_PROBE_BIND_ADDRESS", default_value = ":8081", value_parser = values::bind, value_name = "ADDRESS")]
    health_probe_bind_address: Bind,
    /// Serve metrics over TLS
    #[arg(long, env = "AGENT_SANDBOX_METRICS_SECURE_SERVING", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    metrics_secure_serving: bool,
    /// Directory with `tls.crt` and `tls.key` for secure metrics
    #[arg(
        long,
        env = "AGENT_SANDBOX_METRICS_CERT_DIR",
        value_name = "DIR",
        required_if_eq("metrics_secure_serving", "true")
    )]
    metrics_cert_dir: Option<PathBuf>,
    /// Lowest TLS version; only the default, TLS 1.2, can be chosen
    #[arg(long, value_name = "VERSION")]
    tls_min_version: Option<String>,
    /// TLS 1.2 cipher suites; cannot be chosen
    #[arg(long, value_name = "SUITES", value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
}

/// Leader election.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Leader election")]
struct ElectionArgs {
    /// Let one of several replicas act
    #[arg(long, env = "AGENT_SANDBOX_LEADER_ELECT", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    leader_elect: bool,
    /// Namespace of the lease; the service account's (or context's) unless set
    #[arg(
        long,
        env = "AGENT_SANDBOX_LEADER_ELECTION_NAMESPACE",
        default_value = "",
        value_name = "NAMESPACE"
    )]
    leader_election_namespace: String,
    /// What this replica calls itself
    #[arg(
        long,
        env = "HOSTNAME",
        default_value = "agent-sandbox-controller",
        value_name = "NAME"
    )]
    identity: String,
}

/// Talking to the API server.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "API server")]
struct ApiArgs {
    /// Kubeconfig; the cluster this program runs in unless set
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Watch one namespace only
    #[arg(long, env = "AGENT_SANDBOX_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Calls per second; not above zero means unlimited
    #[arg(long, env = "AGENT_SANDBOX_KUBE_API_QPS", default_value_t = -1.0, allow_negative_numbers = true, value_name = "N")]
    kube_api_qps: f64,
    /// Calls at once above the rate
    #[arg(long, env = "AGENT_SANDBOX_KUBE_API_BURST", default_value = "10", value_parser = values::count, value_name = "N")]
    kube_api_burst: usize,
    /// Connections for calls other than watches, used in turn. API servers answer about 100 calls at
    /// once on each, and the default workers make up to 170
    #[arg(long, env = "AGENT_SANDBOX_API_CONNECTIONS", default_value = "2", value_parser = values::count, value_name = "N")]
    api_connections: usize,
    /// Watch through a connection of its own
    #[arg(long, env = "AGENT_SANDBOX_SEPARATE_WATCH_CONNECTION", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    separate_watch_connection: bool,
    /// Accepted; caches of pods, Services and volume claims are always scoped by label
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    cache_label_selectors: bool,
    /// Background writes (refills, tidying) in flight at once
    #[arg(long, env = "AGENT_SANDBOX_BACKGROUND_WRITES", default_value = "16", value_parser = values::count, value_name = "N")]
    background_writes: usize,
}

/// Sandboxes.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Sandboxes")]
struct SandboxArgs {
    /// Suffix of Service names
    #[arg(
        long,
        env = "AGENT_SANDBOX_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN"
    )]
    cluster_domain: String,
    /// Sandboxes worked on at once
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_CONCURRENT_WORKERS", default_value = "100", value_parser = values::count, value_name = "N")]
    sandbox_concurrent_workers: usize,
    /// How long a change of a pod's metadata may wait for others, at most 1s
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WRITE_BEHIND_WINDOW", default_value = "0", value_parser = values::duration, value_name = "DURATION")]
    sandbox_write_behind_window: Duration,
}

/// Claims.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Claims")]
struct ClaimArgs {
    /// Claims worked on at once
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_CLAIM_CONCURRENT_WORKERS", default_value = "50", value_parser = values::count, value_name = "N")]
    sandbox_claim_concurrent_workers: usize,
    /// Record no events on claims
    #[arg(long, env = "AGENT_SANDBOX_DISABLE_CLAIM_EVENTS", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    disable_claim_events: bool,
    /// Record an event for every warm adoption too: one more write per claim
    #[arg(long, env = "AGENT_SANDBOX_ENABLE_ADOPTION_EVENTS", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    enable_adoption_events: bool,
    /// Write no first-observed, first-ready and sandbox-name annotations; `=false` writes them, one
    /// more write per claim after it is Ready
    #[arg(long, env = "AGENT_SANDBOX_DISABLE_CLAIM_OBSERVABILITY_ANNOTATIONS", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    disable_claim_observability_annotations: bool,
    /// File with the domains that claims may use for pod labels, separated by commas or lines
    #[arg(
        long,
        env = "AGENT_SANDBOX_ALLOWED_LABEL_DOMAINS_FILE",
        default_value = "/etc/sandbox-config/allowed-label-domains",
        value_name = "FILE"
    )]
    allowed_label_domains_file: PathBuf,
}

/// Pools.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Warm pools")]
struct PoolArgs {
    /// Pools worked on at once
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_CONCURRENT_WORKERS", default_value = "1", value_parser = values::count, value_name = "N")]
    sandbox_warm_pool_concurrent_workers: usize,
    /// Members created or deleted in one pass
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_MAX_BATCH_SIZE", default_value = "300", value_parser = values::count, value_name = "N")]
    sandbox_warm_pool_max_batch_size: usize,
    /// How long a pool that lost members waits before it is refilled
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_REPLENISH_DELAY", default_value = "0", value_parser = values::duration, value_name = "DURATION")]
    sandbox_warm_pool_replenish_delay: Duration,
    /// Members created per second and pool; 0 is unlimited
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_MAX_REFILL_RATE", default_value = "0", value_parser = values::rate, value_name = "N")]
    sandbox_warm_pool_max_refill_rate: f64,
    /// How long a member may stay unready before it is replaced
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_READINESS_GRACE_PERIOD", default_value = "5m", value_parser = values::positive_duration, value_name = "DURATION")]
    sandbox_warm_pool_readiness_grace_period: Duration,
    /// How often a pool with unschedulable members is looked at
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_UNSCHEDULABLE_RECHECK_INTERVAL", default_value = "1m", value_parser = values::positive_duration, value_name = "DURATION")]
    sandbox_warm_pool_unschedulable_recheck_interval: Duration,
    /// Let autoscalers evict members nobody has claimed
    #[arg(long, env = "AGENT_SANDBOX_ENABLE_WARM_POOL_EVICTION", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    enable_warm_pool_eviction: bool,
    /// The most members a pool may have, whatever its spec says
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_WARM_POOL_MAX_REPLICAS", default_value = "10000", value_parser = clap::value_parser!(i32).range(1..), value_name = "N")]
    sandbox_warm_pool_max_replicas: i32,
}

/// Templates and their network policies.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Templates")]
struct TemplateArgs {
    /// Templates worked on at once
    #[arg(long, env = "AGENT_SANDBOX_SANDBOX_TEMPLATE_CONCURRENT_WORKERS", default_value = "1", value_parser = values::count, value_name = "N")]
    sandbox_template_concurrent_workers: usize,
    /// Resolvers for sandboxes under the default network policy
    #[arg(
        long,
        env = "AGENT_SANDBOX_RESOLVERS",
        value_delimiter = ',',
        default_value = "8.8.8.8,1.1.1.1",
        value_name = "IP,..."
    )]
    resolvers: Vec<IpAddr>,
    /// More networks that the default network policy blocks, such as the API server's own
    #[arg(long, env = "AGENT_SANDBOX_NETWORK_POLICY_BLOCK", value_delimiter = ',', value_parser = values::cidr, value_name = "CIDR,...")]
    network_policy_block: Vec<String>,
    /// Block exactly the networks that older releases blocked
    #[arg(long, env = "AGENT_SANDBOX_NETWORK_POLICY_LEGACY_RANGES", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    network_policy_legacy_ranges: bool,
    /// Namespace of the router, the only one let in by the default network policy
    #[arg(long, env = "AGENT_SANDBOX_ROUTER_NAMESPACE", default_value = agent_sandbox_crds::names::SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    router_namespace: String,
}

/// What the command line amounts to, apart from the connection.
#[derive(Debug)]
struct Plan {
    config: Config,
    server: Serving,
    kubeconfig: Option<PathBuf>,
    connections: usize,
    own_watch_connection: bool,
    log: LogArgs,
    warnings: Vec<String>,
}

impl Args {
    /// Runs the operator until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// Flags that contradict each other, a configuration that cannot be used, a port in use, a lost
    /// lease.
    pub fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        log::init(&plan.log)?;
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(serve(plan))
    }

    /// Turns flags into settings.
    fn plan(self) -> anyhow::Result<Plan> {
        let Self {
            scope: ScopeArgs { extensions },
            server,
            election,
            api,
            sandboxes,
            claims,
            pools,
            templates,
            log,
            zap,
            former,
        } = self;
        let mut warnings: Vec<String> = former
            .passed()
            .into_iter()
            .map(|name| format!("{name} has no effect in this release"))
            .collect();
        let server = server.check()?;
        let ApiArgs {
            kubeconfig,
            namespace,
            kube_api_qps,
            kube_api_burst,
            api_connections,
            separate_watch_connection,
            cache_label_selectors,
            background_writes,
        } = api;
        if !cache_label_selectors {
            warnings.push(
                "--cache-label-selectors=false has no effect: caches are always scoped".to_owned(),
            );
        }
        let SandboxArgs {
            cluster_domain,
            sandbox_concurrent_workers,
            sandbox_write_behind_window,
        } = sandboxes;
        let (claim_workers, claims) = claims.settings()?;
        let (pool_workers, pools) = pools.settings();
        let (template_workers, policy) = templates.settings();
        let workers = Workers {
            sandboxes: sandbox_concurrent_workers,
            claims: claim_workers,
            templates: template_workers,
            pools: pool_workers,
        };
        warnings.extend(worker_warnings(workers, kube_api_qps, kube_api_burst));
        let config = Config {
            namespace: namespace.filter(|name| !name.is_empty()),
            extensions,
            cluster_domain,
            workers,
            pools,
            write_behind: sandbox_write_behind_window,
            claims,
            policy,
            leader_election: election.settings(),
            api_qps: kube_api_qps,
            api_burst: u32::try_from(kube_api_burst).unwrap_or(u32::MAX),
            background_writes,
            ..Config::default()
        };
        Ok(Plan {
            config,
            server,
            kubeconfig: kubeconfig.filter(|path| !path.as_os_str().is_empty()),
            connections: api_connections,
            own_watch_connection: separate_watch_connection,
            log: zap.apply(log),
            warnings,
        })
    }
}

fn worker_warnings(workers: Workers, qps: f64, burst: usize) -> Vec<String> {
    let all = workers.sandboxes + workers.claims + workers.templates + workers.pools;
    let mut warnings = Vec::new();
    if all > MANY_WORKERS {
        warnings.push(format!(
            "{all} workers in all are more than the API server is likely to serve well"
        ));
    }
    if qps > 0.0 && all > burst {
        warnings.push(format!(
            "{all} workers share --kube-api-burst {burst}; most will wait"
        ));
    }
    warnings
}

/// What to serve where.
#[derive(Debug)]
struct Serving {
    metrics: Bind,
    metrics_tls: Option<PathBuf>,
    health: Bind,
}

impl ServerArgs {
    fn check(self) -> anyhow::Result<Serving> {
        let Self {
            metrics_bind_address,
            health_probe_bind_address,
            metrics_secure_serving,
            metrics_cert_dir,
            tls_min_version,
            tls_cipher_suites,
        } = self;
        if let Some(version) = tls_min_version.filter(|version| version != "VersionTLS12") {
            anyhow::bail!(
                "--tls-min-version {version:?} is not supported: metrics are served with TLS 1.2 and 1.3 (VersionTLS12)"
            );
        }
        if !tls_cipher_suites.is_empty() {
            anyhow::bail!(
                "--tls-cipher-suites is not supported: the built-in list cannot be changed"
            );
        }
        Ok(Serving {
            metrics: metrics_bind_address,
            metrics_tls: metrics_cert_dir.filter(|_| metrics_secure_serving),
            health: health_probe_bind_address,
        })
    }
}

impl ElectionArgs {
    fn settings(self) -> Option<LeaderElection> {
        let Self {
            leader_elect,
            leader_election_namespace,
            identity,
        } = self;
        leader_elect.then(|| {
            let unique = format!("{identity}_{:08x}", fastrand::u32(..));
            LeaderElection::new(leader_election_namespace, unique)
        })
    }
}

impl TemplateArgs {
    fn settings(self) -> (usize, PolicySettings) {
        let Self {
            sandbox_template_concurrent_workers,
            resolvers,
            network_policy_block,
            network_policy_legacy_ranges,
            router_namespace,
        } = self;
        let settings = PolicySettings {
            router_namespace,
            resolvers,
            legacy_ranges: network_policy_legacy_ranges,
            blocked: network_policy_block,
            ..PolicySettings::default()
        };
        (sandbox_template_concurrent_workers, settings)
    }
}

impl ClaimArgs {
    fn settings(self) -> anyhow::Result<(usize, ClaimSettings)> {
        let Self {
            sandbox_claim_concurrent_workers,
            disable_claim_events,
            enable_adoption_events,
            disable_claim_observability_annotations,
            allowed_label_domains_file: file,
        } = self;
        let listed = match std::fs::read_to_string(&file) {
            Ok(text) => values::label_domains(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot read --allowed-label-domains-file {}",
                        file.display()
                    )
                });
            }
        };
        let settings = ClaimSettings {
            events: !disable_claim_events,
            adoption_events: enable_adoption_events && !disable_claim_events,
            annotations: !disable_claim_observability_annotations,
            label_domains: if listed.is_empty() {
                vec![DEFAULT_LABEL_DOMAIN.to_owned()]
            } else {
                listed
            },
        };
        Ok((sandbox_claim_concurrent_workers, settings))
    }
}

impl PoolArgs {
    fn settings(self) -> (usize, PoolSettings) {
        let Self {
            sandbox_warm_pool_concurrent_workers,
            sandbox_warm_pool_max_batch_size,
            sandbox_warm_pool_replenish_delay,
            sandbox_warm_pool_max_refill_rate,
            sandbox_warm_pool_readiness_grace_period,
            sandbox_warm_pool_unschedulable_recheck_interval,
            enable_warm_pool_eviction,
            sandbox_warm_pool_max_replicas,
        } = self;
        let settings = PoolSettings {
            max_batch: sandbox_warm_pool_max_batch_size,
            replenish_delay: sandbox_warm_pool_replenish_delay,
            max_refill_rate: sandbox_warm_pool_max_refill_rate,
            readiness_grace: sandbox_warm_pool_readiness_grace_period,
            unschedulable_recheck: sandbox_warm_pool_unschedulable_recheck_interval,
            eviction: enable_warm_pool_eviction,
            replica_cap: sandbox_warm_pool_max_replicas,
            ..PoolSettings::default()
        };
        (sandbox_warm_pool_concurrent_workers, settings)
    }
}

/// Connects, serves and reconciles.
async fn serve(plan: Plan) -> anyhow::Result<()> {
    let Plan {
        mut config,
        server,
        kubeconfig,
        connections,
        own_watch_connection,
        log: _,
        warnings: _,
    } = plan;
    let shutdown = Shutdown::new();
    let tasks = Tasks::new("admin");
    let metrics = Metrics::new();
    process::register(metrics.registry())?;
    let readiness = Readiness::new();

    // Ports first: a port in use is the likeliest mistake and the quickest to find.
    let mut servers = Vec::new();
    if let Some(listener) = server.metrics.listen()? {
        let mut endpoint = Server::new(admin::metrics_router(metrics.clone()));
        if let Some(dir) = server.metrics_tls {
            endpoint = endpoint.tls(tls::load(&dir.join("tls.crt"), &dir.join("tls.key"))?);
        }
        servers.push((endpoint, listener));
    }
    if let Some(listener) = server.health.listen()? {
        let endpoint = Server::new(admin::health_router(readiness.clone()));
        servers.push((endpoint, listener));
    }
    let admin_shutdown = Shutdown::new();
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
    for _ in 1..connections {
        builder = builder.write_client(connection.client()?);
    }
    if own_watch_connection {
        builder = builder.watch_client(connection.client()?);
    }
    let controller = builder.build()?;

    let signals = shutdown.clone();
    tasks.spawn("signals", async move {
        match shutdown::signals(&signals).await {
            Ok(signal) => tracing::info!(signal, "stopping"),
            Err(error) => {
                tracing::error!(%error, "signals cannot be handled; stopping");
                signals.trigger();
            }
        }
    });
    let result = controller.run(shutdown.clone()).await;
    shutdown.trigger();
    admin_shutdown.trigger();
    tasks.shutdown(ADMIN_DRAIN * 2).await;
    result.map_err(Into::into)
}

#[cfg(test)]
mod tests;
