//! The command line: every flag that existing manifests pass is accepted. Flags become a validated
//! [`Config`] once, here; flags that no longer mean anything are accepted with a warning, and flags
//! that ask for what this program cannot do are refused.

mod former;
mod serve;
mod spelling;
mod values;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::args::{LogArgs, ZapArgs};
use agent_sandbox_service::log;
use agent_sandbox_service::otlp::{OtlpArgs, OtlpSettings};
use anyhow::Context as _;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs, CommandFactory, FromArgMatches, Parser};

use self::former::FormerArgs;
use self::serve::{ServerArgs, Serving};
use crate::config::{
    ClaimSettings, Config, DEFAULT_LABEL_DOMAIN, LeaderElection, PolicySettings, PoolSettings,
    Workers,
};

/// Workers beyond which a warning is due.
const MANY_WORKERS: usize = 1000;

/// What `--version` says.
const LONG_VERSION: &str = concat!(
    "v",
    env!("CARGO_PKG_VERSION"),
    "\ncommit:   ",
    env!("AGENT_SANDBOX_GIT_COMMIT"),
    "\ndate:     ",
    env!("AGENT_SANDBOX_BUILD_DATE"),
    "\ncompiler: ",
    env!("AGENT_SANDBOX_COMPILER"),
    "\nplatform: ",
    env!("AGENT_SANDBOX_PLATFORM"),
);

/// Runs sandboxes, their claims, templates and warm pools on a Kubernetes cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "agent-sandbox-controller", version, long_version = LONG_VERSION)]
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
    otlp: OtlpArgs,
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
    /// Name no IPv6 ranges in the default network policy: for clusters without IPv6, and network
    /// plugins that refuse a policy which names them. Nothing is then allowed over IPv6
    #[arg(long, env = "AGENT_SANDBOX_NETWORK_POLICY_IPV4_ONLY", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    network_policy_ipv4_only: bool,
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
    traces: Option<OtlpSettings>,
    log: LogArgs,
    warnings: Vec<String>,
}

impl Args {
    /// Reads a command line, with the program's name in front.
    ///
    /// # Errors
    /// What is wrong with it; or, as clap has it, that help or the version was asked for.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        // Programs of this kind write their logs for machines unless told otherwise.
        let mut command = Self::command().mut_arg("format", |arg| arg.default_value("json"));
        let mut matches = command.try_get_matches_from_mut(spelling::normal(line))?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }

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
            .block_on(serve::serve(plan))
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
            otlp,
            former,
        } = self;
        let mut warnings: Vec<String> = former
            .passed()
            .into_iter()
            .map(|(name, why)| format!("{name} has no effect: {why}"))
            .collect();
        let (log, ignored) = zap.apply(log);
        warnings.extend(ignored);
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
            traces: otlp.settings("agent-sandbox-controller")?,
            log,
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
            network_policy_ipv4_only,
            router_namespace,
        } = self;
        let settings = PolicySettings {
            router_namespace,
            resolvers,
            legacy_ranges: network_policy_legacy_ranges,
            ipv4_only: network_policy_ipv4_only,
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

#[cfg(test)]
mod tests;
