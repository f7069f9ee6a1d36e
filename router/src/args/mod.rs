//! Flags, environment and configuration file of the router program, and their one conversion into
//! a [`Plan`].
//!
//! Precedence: command line, then file, then environment, then the default. The names are those of
//! the earlier routers, so that existing manifests keep working: one or two dashes, `=` or a blank,
//! booleans as `--flag` or `--flag=false`, durations such as `1m30s`. Zero means no limit where a
//! limit is meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::args::LogArgs;
use agent_sandbox_service::otlp::{OtlpArgs, OtlpError, OtlpSettings};
use clap::parser::ValueSource;
use clap::{ArgAction, Args as ClapArgs, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::config::{
    Config, Drain, Limits, Network, PodIpPolicy, PoolLimits, Resolution, Retry, Time,
};

mod authz;
mod file;
mod values;

pub use self::authz::{AuthzArgs, AuthzPlan};
pub use self::file::FileError;
pub use self::values::BindAddress;
use self::values::{GoDuration, seconds, truthy};

/// Routes requests to the sandbox named in their headers.
#[derive(Debug, Parser)]
#[command(name = "agent-sandbox-router", version, args_override_self = true)]
pub struct Args {
    /// YAML file with flags, by their names
    #[arg(long, env = "SANDBOX_ROUTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    resolution: ResolutionArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    authz: AuthzArgs,
    #[command(flatten)]
    python: PythonEnvironment,
    /// Log every request as a line of JSON on standard error
    #[arg(long, default_value = "true", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Logging")]
    access_log: bool,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Listeners")]
struct ListenArgs {
    /// Plain HTTP listener; empty for none
    #[arg(
        long,
        default_value = ":8080",
        value_name = "[IP]:PORT",
        allow_hyphen_values = false
    )]
    http_bind_address: String,
    /// HTTPS listener; empty for none
    #[arg(long, default_value = "", value_name = "[IP]:PORT")]
    https_bind_address: String,
    /// Listener of /metrics; empty for none
    #[arg(long, default_value = ":9090", value_name = "[IP]:PORT")]
    metrics_bind_address: String,
    /// Listener of /healthz and /readyz; empty for none
    #[arg(long, default_value = ":8081", value_name = "[IP]:PORT")]
    health_probe_bind_address: String,
    /// Keep accepting for this long after reporting not ready
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    shutdown_delay: GoDuration,
    /// Let requests and upgraded connections finish for this long
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    shutdown_timeout: GoDuration,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// PEM certificate chain; reloaded when it changes
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_cert_file: String,
    /// PEM private key
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_key_file: String,
    /// PEM bundle of authorities for client certificates
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_client_ca_file: String,
    /// What is asked of clients
    #[arg(long, value_enum, default_value_t = MtlsMode::Off)]
    mtls_mode: MtlsMode,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MtlsMode {
    /// No certificate
    Off,
    /// A certificate is verified if there is one
    Optional,
    /// No connection without a valid certificate
    Required,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Resolution")]
struct ResolutionArgs {
    /// Watch sandboxes and their pods, and route to the addresses they have
    #[arg(long, default_value = "true", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cache_enabled: bool,
    /// Watch this namespace only; empty for all
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    cache_namespace: String,
    /// Watch Sandbox objects beside pods, to tell absent, suspended and starting sandboxes apart
    #[arg(long, default_value = "true", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cache_sandboxes: bool,
    /// Make a DNS name for sandboxes that the watch does not know; always so without a watch
    #[arg(long, default_value = "false", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dns_fallback: bool,
    /// Domain of DNS names of sandboxes
    #[arg(
        long,
        env = "CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN"
    )]
    cluster_domain: String,
    #[command(flatten)]
    pod_ip: PodIpArgs,
    /// Hold requests for sandboxes that are unknown or not ready for this long
    #[arg(long, default_value = "1s", value_name = "DURATION")]
    resolve_wait: GoDuration,
    /// Hold at most this many requests
    #[arg(long, default_value_t = 1024, value_name = "NUMBER")]
    resolve_max_waiting: usize,
    /// Leave addresses that did not answer alone for this long
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    unreachable_quarantine: GoDuration,
    /// Kubeconfig file; by default the pod's own account, else the usual files
    #[arg(long, env = "KUBECONFIG", default_value = "", value_name = "FILE")]
    kubeconfig: String,
}

#[derive(ClapArgs, Debug)]
struct PodIpArgs {
    /// What X-Sandbox-Pod-IP is good for
    #[arg(long, value_enum, default_value_t = PodIpMode::Verify)]
    pod_ip_header: PodIpMode,
    /// Also dial loopback addresses that callers name, where their addresses are trusted
    #[arg(long, default_value = "false", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_loopback_pod_ip: bool,
}

/// What a client's `X-Sandbox-Pod-IP` is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum PodIpMode {
    /// Used when the watch agrees that the sandbox has the address
    Verify,
    /// Dialled as it is: any caller reaches any address
    Trust,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Time")]
struct TimeArgs {
    /// Wait for the head of a response; caps X-Sandbox-Timeout [default: 180s]
    #[arg(long, value_name = "DURATION")]
    proxy_timeout: Option<GoDuration>,
    /// A tighter bound on the same wait; 0 for none
    #[arg(long, default_value = "0", value_name = "DURATION")]
    response_header_timeout: GoDuration,
    /// One attempt to connect to a sandbox
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    connect_timeout: GoDuration,
    /// End responses in which nothing moves for this long
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    idle_timeout: GoDuration,
    /// End responses after this long; 0 for never
    #[arg(long, default_value = "0", value_name = "DURATION")]
    stream_timeout: GoDuration,
    /// Close upgraded connections in which nothing moves for this long; 0 for never [default: 1h]
    #[arg(long, value_name = "DURATION")]
    upgrade_idle_timeout: Option<GoDuration>,
    /// Close upgraded connections after this long; 0 for never [default: 24h]
    #[arg(long, value_name = "DURATION")]
    upgrade_timeout: Option<GoDuration>,
    /// Wait for the head of a request
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    request_header_timeout: GoDuration,
    /// Keep idle client connections open for this long
    #[arg(long, default_value = "120s", value_name = "DURATION")]
    keep_alive_timeout: GoDuration,
    /// Repeat failed attempts to connect this often
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    upstream_max_retries: u32,
    /// Wait before the first repetition; doubles from there
    #[arg(long, default_value = "200ms", value_name = "DURATION")]
    upstream_retry_initial_delay: GoDuration,
    /// Longest wait between repetitions
    #[arg(long, default_value = "800ms", value_name = "DURATION")]
    upstream_retry_max_delay: GoDuration,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Bytes of a request body; 0 for any
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    max_request_body_bytes: u64,
    /// Bytes of a request head
    #[arg(long, default_value_t = 128 * 1024, value_name = "BYTES")]
    max_request_header_bytes: usize,
    /// Client connections
    #[arg(long, default_value_t = 65_536, value_name = "NUMBER")]
    max_connections: usize,
    /// Requests in flight; 0 for any
    #[arg(long, default_value_t = 32_768, value_name = "NUMBER")]
    max_requests: u32,
    /// Requests in flight to one sandbox; 0 for any
    #[arg(long, default_value_t = 1024, value_name = "NUMBER")]
    max_requests_per_sandbox: u32,
    /// Upgraded connections; 0 for any
    #[arg(long, default_value_t = 32_768, value_name = "NUMBER")]
    max_upgrades: u32,
    /// Upgraded connections to one sandbox; 0 for any
    #[arg(long, default_value_t = 1024, value_name = "NUMBER")]
    max_upgrades_per_sandbox: u32,
    /// Upgraded connections of one client address; 0 for any [default: 0]
    #[arg(long, value_name = "NUMBER")]
    max_upgrades_per_client: Option<u32>,
    /// Peers whose X-Forwarded-* headers are believed: addresses or blocks, separated by commas
    #[arg(
        long,
        env = "TRUSTED_PROXY_CIDRS",
        default_value = "",
        value_name = "CIDRS"
    )]
    trusted_proxy_cidrs: String,
    /// Idle connections kept to one port of one pod
    #[arg(long, default_value_t = 128, value_name = "NUMBER")]
    upstream_max_idle_per_target: usize,
    /// Idle connections kept to sandboxes in all
    #[arg(long, default_value_t = 4096, value_name = "NUMBER")]
    upstream_max_idle: usize,
    /// Keep idle connections to sandboxes for this long
    #[arg(long, default_value = "4s", value_name = "DURATION")]
    upstream_idle_timeout: GoDuration,
}

/// Variables of the Python router that mean the same as a flag in another notation.
#[derive(ClapArgs, Debug)]
struct PythonEnvironment {
    #[arg(long, env = "PROXY_TIMEOUT_SECONDS", hide = true)]
    proxy_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_IDLE_TIMEOUT_SECONDS", hide = true)]
    websocket_idle_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_LIFETIME_SECONDS", hide = true)]
    websocket_max_lifetime_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT", hide = true)]
    websocket_max_connections_per_client: Option<String>,
}

/// Everything the program does, decided and checked.
#[derive(Debug)]
pub struct Plan {
    /// Where it listens.
    pub listeners: Listeners,
    /// Certificates for the HTTPS listener.
    pub tls: Option<crate::tls::Files>,
    /// Whether sandboxes are watched.
    pub watch: bool,
    /// Kubeconfig file, when not the default.
    pub kubeconfig: Option<PathBuf>,
    /// How callers are judged.
    pub authz: AuthzPlan,
    /// Everything else, with the authorizer to be filled in.
    pub settings: Settings,
    /// What is logged, and how.
    pub log: LogArgs,
}

/// Where the program listens; `None` where it does not.
#[derive(Debug)]
pub struct Listeners {
    /// Plain HTTP.
    pub http: Option<BindAddress>,
    /// HTTPS.
    pub https: Option<BindAddress>,
    /// Metrics.
    pub metrics: Option<BindAddress>,
    /// Probes.
    pub probes: Option<BindAddress>,
}

/// A [`Config`] without its authorizer, which may need a cluster to be made.
#[derive(Debug)]
pub struct Settings {
    resolution: Resolution,
    time: Time,
    retry: Retry,
    limits: Limits,
    pool: PoolLimits,
    drain: Drain,
    trusted_proxies: Vec<Network>,
    access_log: bool,
    traces: Option<OtlpSettings>,
}

impl Settings {
    /// The configuration with this authorizer.
    pub fn with(self, authorizer: crate::authz::Authorizer) -> Config {
        let Self {
            resolution,
            time,
            retry,
            limits,
            pool,
            drain,
            trusted_proxies,
            access_log,
            traces,
        } = self;
        Config {
            resolution,
            time,
            retry,
            limits,
            authorizer: std::sync::Arc::new(authorizer),
            trusted_proxies,
            pool,
            drain,
            access_log,
            traces,
        }
    }
}

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A flag is unknown or malformed, or help was asked for.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Traces cannot be exported as asked.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// A value is impossible, alone or together with others.
    #[error("--{flag}: {problem}")]
    Value {
        /// The flag to change.
        flag: &'static str,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl ArgsError {
    fn value(flag: &'static str, problem: impl Into<String>) -> Self {
        Self::Value {
            flag,
            problem: problem.into(),
        }
    }
}

impl Args {
    /// Reads a command line, the program's name included, and the file it names.
    ///
    /// # Errors
    /// A flag or key that does not parse, or a file that cannot be read.
    pub fn read(command_line: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut command_line: Vec<OsString> =
            command_line.into_iter().map(values::two_dashes).collect();
        let command = Self::command();
        let first = command.clone().try_get_matches_from(&command_line)?;
        if let Some(path) = first.get_one::<PathBuf>("config")
            && !path.as_os_str().is_empty()
        {
            let flags = file::flags(path, &command)?;
            // Before the command line, which then overrides them.
            let after_name = 1.min(command_line.len());
            command_line.splice(after_name..after_name, flags);
        }
        let matches = command.try_get_matches_from(&command_line)?;
        let mut args = Self::from_arg_matches(&matches)?;
        // An empty variable is as good as none; an empty flag is a mistake, found below.
        if matches.value_source("cluster_domain") == Some(ValueSource::EnvVariable)
            && args.resolution.cluster_domain.is_empty()
        {
            "cluster.local".clone_into(&mut args.resolution.cluster_domain);
        }
        Ok(args)
    }

    /// Checks everything and decides.
    ///
    /// # Errors
    /// Names the flag that is impossible, and what was expected.
    pub fn plan(self) -> Result<Plan, ArgsError> {
        let Self {
            config: _,
            listen,
            tls,
            resolution,
            time,
            limits,
            authz,
            python,
            access_log,
            otlp,
            log,
        } = self;
        let (listeners, drain) = listen.decide()?;
        let tls = tls.decide(listeners.https.is_some())?;
        let watch = resolution.cache_enabled;
        let kubeconfig =
            (!resolution.kubeconfig.is_empty()).then(|| PathBuf::from(&resolution.kubeconfig));
        let resolution = resolution.decide()?;
        let (time, retry) = time.decide(&python)?;
        let (limits, pool, trusted_proxies) = limits.decide(&python)?;
        Ok(Plan {
            listeners,
            tls,
            watch,
            kubeconfig,
            authz: authz.decide()?,
            settings: Settings {
                resolution,
                time,
                retry,
                limits,
                pool,
                drain,
                trusted_proxies,
                access_log,
                traces: otlp.settings("sandbox-router")?,
            },
            log,
        })
    }
}

impl ListenArgs {
    fn decide(self) -> Result<(Listeners, Drain), ArgsError> {
        let Self {
            http_bind_address,
            https_bind_address,
            metrics_bind_address,
            health_probe_bind_address,
            shutdown_delay,
            shutdown_timeout,
        } = self;
        let bind = |flag, text: String| {
            BindAddress::parse(&text).map_err(|error| ArgsError::value(flag, error.to_string()))
        };
        let listeners = Listeners {
            http: bind("http-bind-address", http_bind_address)?,
            https: bind("https-bind-address", https_bind_address)?,
            metrics: bind("metrics-bind-address", metrics_bind_address)?,
            probes: bind("health-probe-bind-address", health_probe_bind_address)?,
        };
        if listeners.http.is_none() && listeners.https.is_none() {
            return Err(ArgsError::value(
                "http-bind-address",
                "is empty, and so is --https-bind-address; at least one of them is needed",
            ));
        }
        let drain = Drain {
            delay: shutdown_delay.0,
            timeout: shutdown_timeout.0,
        };
        Ok((listeners, drain))
    }
}

impl TlsArgs {
    fn decide(self, https: bool) -> Result<Option<crate::tls::Files>, ArgsError> {
        use crate::tls::ClientCertificates;
        let Self {
            tls_cert_file,
            tls_key_file,
            tls_client_ca_file,
            mtls_mode,
        } = self;
        if !https {
            return match mtls_mode {
                MtlsMode::Off => Ok(None),
                MtlsMode::Optional | MtlsMode::Required => Err(ArgsError::value(
                    "mtls-mode",
                    "needs an HTTPS listener; set --https-bind-address",
                )),
            };
        }
        for (flag, value) in [
            ("tls-cert-file", &tls_cert_file),
            ("tls-key-file", &tls_key_file),
        ] {
            if value.is_empty() {
                return Err(ArgsError::value(
                    flag,
                    "is needed with --https-bind-address",
                ));
            }
        }
        if mtls_mode != MtlsMode::Off && tls_client_ca_file.is_empty() {
            return Err(ArgsError::value(
                "tls-client-ca-file",
                "is needed unless --mtls-mode is off",
            ));
        }
        let authorities = PathBuf::from(tls_client_ca_file);
        Ok(Some(crate::tls::Files {
            certificate: tls_cert_file.into(),
            key: tls_key_file.into(),
            clients: match mtls_mode {
                MtlsMode::Off => ClientCertificates::Off,
                MtlsMode::Optional => ClientCertificates::Optional { authorities },
                MtlsMode::Required => ClientCertificates::Required { authorities },
            },
        }))
    }
}

impl ResolutionArgs {
    fn decide(self) -> Result<Resolution, ArgsError> {
        let Self {
            cache_enabled,
            cache_namespace,
            cache_sandboxes,
            dns_fallback,
            cluster_domain,
            pod_ip,
            resolve_wait,
            resolve_max_waiting,
            unreachable_quarantine,
            kubeconfig: _,
        } = self;
        if cluster_domain.is_empty() {
            return Err(ArgsError::value(
                "cluster-domain",
                "is empty; expected a domain such as cluster.local",
            ));
        }
        let PodIpArgs {
            pod_ip_header,
            allow_loopback_pod_ip,
        } = pod_ip;
        let pod_ip = match pod_ip_header {
            PodIpMode::Trust => PodIpPolicy::Trust {
                loopback: allow_loopback_pod_ip,
            },
            PodIpMode::Verify if allow_loopback_pod_ip => {
                return Err(ArgsError::value(
                    "allow-loopback-pod-ip",
                    "has a meaning only with --pod-ip-header=trust; verified addresses may be loopback addresses anyway",
                ));
            }
            PodIpMode::Verify => PodIpPolicy::Verify,
        };
        Ok(Resolution {
            namespace: (!cache_namespace.is_empty()).then_some(cache_namespace),
            sandboxes: cache_sandboxes,
            dns: (dns_fallback || !cache_enabled)
                .then(|| cluster_domain.trim_end_matches('.').into()),
            pod_ip,
            wait: resolve_wait.0,
            max_waiting: resolve_max_waiting,
            quarantine: unreachable_quarantine.0,
        })
    }
}

impl TimeArgs {
    fn decide(self, python: &PythonEnvironment) -> Result<(Time, Retry), ArgsError> {
        let Self {
            proxy_timeout,
            response_header_timeout,
            connect_timeout,
            idle_timeout,
            stream_timeout,
            upgrade_idle_timeout,
            upgrade_timeout,
            request_header_timeout,
            keep_alive_timeout,
            upstream_max_retries,
            upstream_retry_initial_delay,
            upstream_retry_max_delay,
        } = self;
        let defaults = Time::default();
        // A flag, else the Python router's variable, else the default.
        let either = |flag: Option<GoDuration>, variable: &Option<String>, name, default| {
            flag.map(|flag| flag.0)
                .or_else(|| variable.as_deref().and_then(|text| seconds(name, text)))
                .unwrap_or(default)
        };
        let request = either(
            proxy_timeout,
            &python.proxy_timeout_seconds,
            "PROXY_TIMEOUT_SECONDS",
            defaults.request,
        );
        let upgrade_idle = either(
            upgrade_idle_timeout,
            &python.websocket_idle_timeout_seconds,
            "WEBSOCKET_IDLE_TIMEOUT_SECONDS",
            defaults.upgrade_idle,
        );
        let upgrade = either(
            upgrade_timeout,
            &python.websocket_max_lifetime_seconds,
            "WEBSOCKET_MAX_LIFETIME_SECONDS",
            defaults.upgrade.unwrap_or_default(),
        );
        for (flag, value) in [
            ("proxy-timeout", request),
            ("connect-timeout", connect_timeout.0),
            ("idle-timeout", idle_timeout.0),
            ("request-header-timeout", request_header_timeout.0),
            ("keep-alive-timeout", keep_alive_timeout.0),
        ] {
            if value.is_zero() {
                return Err(ArgsError::value(flag, "must be longer than zero"));
            }
        }
        let optional = |duration: Duration| (!duration.is_zero()).then_some(duration);
        let time = Time {
            request,
            response_header: optional(response_header_timeout.0),
            connect: connect_timeout.0,
            idle: idle_timeout.0,
            upgrade_idle: optional(upgrade_idle).unwrap_or(FOREVER),
            stream: optional(stream_timeout.0),
            upgrade: optional(upgrade),
            request_header: request_header_timeout.0,
            keep_alive: keep_alive_timeout.0,
        };
        let default = Retry::default();
        let retry = Retry {
            max: upstream_max_retries,
            initial_delay: optional(upstream_retry_initial_delay.0)
                .unwrap_or(default.initial_delay),
            max_delay: optional(upstream_retry_max_delay.0).unwrap_or(default.max_delay),
        };
        Ok((time, retry))
    }
}

/// Longer than any connection lives, and still a point in time that can be computed.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

impl LimitArgs {
    fn decide(
        self,
        python: &PythonEnvironment,
    ) -> Result<(Limits, PoolLimits, Vec<Network>), ArgsError> {
        let Self {
            max_request_body_bytes,
            max_request_header_bytes,
            max_connections,
            max_requests,
            max_requests_per_sandbox,
            max_upgrades,
            max_upgrades_per_sandbox,
            max_upgrades_per_client,
            trusted_proxy_cidrs,
            upstream_max_idle_per_target,
            upstream_max_idle,
            upstream_idle_timeout,
        } = self;
        if max_connections == 0 {
            return Err(ArgsError::value("max-connections", "must be at least 1"));
        }
        if max_request_header_bytes < MIN_HEAD {
            return Err(ArgsError::value(
                "max-request-header-bytes",
                format!("must be at least {MIN_HEAD}"),
            ));
        }
        let per_client = max_upgrades_per_client.or_else(|| {
            let text = python.websocket_max_connections_per_client.as_deref()?;
            let number = text.trim().parse().ok();
            if number.is_none() {
                tracing::warn!(
                    value = text,
                    "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT is not a number and is ignored"
                );
            }
            number
        });
        let bound = |number: u32| (number > 0).then_some(number);
        let limits = Limits {
            body: (max_request_body_bytes > 0).then_some(max_request_body_bytes),
            head: max_request_header_bytes,
            connections: max_connections,
            requests: bound(max_requests),
            requests_per_sandbox: bound(max_requests_per_sandbox),
            upgrades: bound(max_upgrades),
            upgrades_per_sandbox: bound(max_upgrades_per_sandbox),
            upgrades_per_client: per_client.and_then(bound),
        };
        let pool = PoolLimits {
            idle_per_target: upstream_max_idle_per_target,
            idle: upstream_max_idle,
            idle_timeout: upstream_idle_timeout.0,
        };
        let trusted = trusted_proxy_cidrs
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse().map_err(|error: crate::config::NetworkError| {
                    ArgsError::value("trusted-proxy-cidrs", error.to_string())
                })
            })
            .collect::<Result<_, _>>()?;
        Ok((limits, pool, trusted))
    }
}

/// Smallest limit under which ordinary requests still pass.
const MIN_HEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests;
