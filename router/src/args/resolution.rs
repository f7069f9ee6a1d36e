//! Flags that say how a sandbox is found: the watch, names, and what callers claim.
//!
//! [`Args`](super::Args) flattens them. What makes callers choose the address they reach must be
//! asked for by name.

use clap::{ArgAction, Args as ClapArgs, ValueEnum};

use super::plan::Source;
use super::{ArgsError, GoDuration, fixed};
use crate::config::{PodIpPolicy, Resolution};

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Resolution")]
pub(super) struct ResolutionArgs {
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
    pub(super) cluster_domain: String,
    /// Route to these sandboxes and watch nothing: NAMESPACE/NAME=IP, separated by commas
    #[arg(long, default_value = "", value_name = "LIST")]
    static_sandboxes: String,
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
    pub(super) kubeconfig: String,
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
enum PodIpMode {
    /// Used when the watch agrees that the sandbox has the address
    Verify,
    /// Dialled as it is: any caller reaches any address
    Trust,
}

impl ResolutionArgs {
    pub(super) fn decide(self) -> Result<(Resolution, Source), ArgsError> {
        let Self {
            cache_enabled,
            cache_namespace,
            cache_sandboxes,
            dns_fallback,
            cluster_domain,
            static_sandboxes,
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
        let source = match fixed::parse(&static_sandboxes)? {
            Some(_) if !cache_namespace.is_empty() => {
                return Err(ArgsError::value(
                    "static-sandboxes",
                    "leaves nothing to watch, so --cache-namespace has no meaning beside it",
                ));
            }
            Some(fixed) => Source::Fixed {
                table: fixed.into_table(),
                given: static_sandboxes,
            },
            None if cache_enabled => Source::Watch,
            None => Source::Dns,
        };
        let resolution = Resolution {
            namespace: (!cache_namespace.is_empty()).then_some(cache_namespace),
            sandboxes: cache_sandboxes,
            dns: (dns_fallback || matches!(source, Source::Dns))
                .then(|| cluster_domain.trim_end_matches('.').into()),
            pod_ip,
            wait: resolve_wait.0,
            max_waiting: resolve_max_waiting,
            quarantine: unreachable_quarantine.0,
        };
        Ok((resolution, source))
    }
}
