//! Flags that say where the program listens, and how its listeners end.
//!
//! [`Args`](super::Args) flattens them. An empty address means no listener; a router without any
//! listener for requests is a mistake.

use clap::Args as ClapArgs;

use super::{ArgsError, BindAddress, GoDuration};
use crate::config::Drain;

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Listeners")]
pub(super) struct ListenArgs {
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

impl ListenArgs {
    pub(super) fn decide(self) -> Result<(Listeners, Drain), ArgsError> {
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
