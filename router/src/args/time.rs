//! Flags that bound waiting: for heads, bodies, connections and repetitions.
//!
//! [`Args`](super::Args) flattens them. Zero means no limit where a limit is meant, and is refused
//! where waiting for nothing would refuse every request.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::python::Python;
use super::{ArgsError, GoDuration};
use crate::config::{Retry, Time};

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Time")]
pub(super) struct TimeArgs {
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

impl TimeArgs {
    pub(super) fn decide(self, python: &Python) -> Result<(Time, Retry), ArgsError> {
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
        let either = |flag: Option<GoDuration>, variable: Option<Duration>, default| {
            flag.map(|flag| flag.0).or(variable).unwrap_or(default)
        };
        let request = either(proxy_timeout, python.proxy_timeout, defaults.request);
        let upgrade_idle = either(
            upgrade_idle_timeout,
            python.upgrade_idle,
            defaults.upgrade_idle,
        );
        let upgrade = either(
            upgrade_timeout,
            python.upgrade_lifetime,
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
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);
