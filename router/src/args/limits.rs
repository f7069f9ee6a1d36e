//! Flags that bound numbers and sizes, and name the peers whose headers are believed.
//!
//! [`Args`](super::Args) flattens them. Zero means any number, except where no request could pass.

use clap::Args as ClapArgs;

use super::python::Python;
use super::{ArgsError, GoDuration};
use crate::config::{Limits, Network, NetworkError, PoolLimits};

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
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
    /// Idle connections kept to sandboxes in all [default: 4096]
    #[arg(long, value_name = "NUMBER")]
    upstream_max_idle: Option<usize>,
    /// Keep idle connections to sandboxes for this long
    #[arg(long, default_value = "4s", value_name = "DURATION")]
    upstream_idle_timeout: GoDuration,
}

impl LimitArgs {
    pub(super) fn decide(
        self,
        python: &Python,
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
        let per_client = max_upgrades_per_client.or(python.upgrades_per_client);
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
            idle: upstream_max_idle
                .or(python.idle_connections)
                .unwrap_or_else(|| PoolLimits::default().idle),
            idle_timeout: upstream_idle_timeout.0,
        };
        let trusted = trusted_proxy_cidrs
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse().map_err(|error: NetworkError| {
                    ArgsError::value("trusted-proxy-cidrs", error.to_string())
                })
            })
            .collect::<Result<_, _>>()?;
        Ok((limits, pool, trusted))
    }
}

/// Smallest limit under which ordinary requests still pass.
const MIN_HEAD: usize = 8 * 1024;
