//! Where to listen, and to whom.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

use super::lenient::seconds;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub(super) struct ListenArgs {
    /// Address to listen on
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_ADDRESS",
        default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        value_name = "IP"
    )]
    pub(super) address: IpAddr,
    /// Port to listen on; may be repeated, every API answers on each (0 picks a free one)
    #[arg(
        long = "port",
        env = "AGENT_SANDBOX_RUNTIME_PORTS",
        default_value = "8888",
        value_delimiter = ',',
        value_name = "PORT"
    )]
    pub(super) ports: Vec<u16>,
    /// What every answer says in X-Sandbox-Identity, so that a client sees when an address has got
    /// another owner [default: the environment variable HOSTNAME, which is a pod's name]
    #[arg(long, env = "AGENT_SANDBOX_RUNTIME_IDENTITY", value_name = "TEXT")]
    pub(super) identity: Option<HeaderValue>,
    /// How long a connection may stay without a request
    #[arg(
        long,
        visible_alias = "idle-timeout",
        env = "AGENT_SANDBOX_RUNTIME_IDLE_TIMEOUT_SECONDS",
        default_value = "60",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    pub(super) idle_timeout_seconds: Duration,
    /// File with the bearer tokens, one in each line, of which every request but health checks must
    /// present one; read again when it changes. In its place the environment variable
    /// `AGENT_SANDBOX_RUNTIME_TOKEN` can be the token itself
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    pub(super) token_file: Option<PathBuf>,
    /// The bearer token itself; only through the environment, where other users do not see it
    #[arg(
        long = "token-from-environment",
        env = "AGENT_SANDBOX_RUNTIME_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
}
