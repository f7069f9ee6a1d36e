//! Variables of the Python router that mean the same as a flag in another notation.
//!
//! The groups whose flags they stand in for read them; a flag that is given wins.

use clap::Args as ClapArgs;

/// Variables of the Python router that mean the same as a flag in another notation.
#[derive(ClapArgs, Debug)]
pub(super) struct PythonEnvironment {
    #[arg(long, env = "PROXY_TIMEOUT_SECONDS", hide = true)]
    pub(super) proxy_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_IDLE_TIMEOUT_SECONDS", hide = true)]
    pub(super) websocket_idle_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_LIFETIME_SECONDS", hide = true)]
    pub(super) websocket_max_lifetime_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT", hide = true)]
    pub(super) websocket_max_connections_per_client: Option<String>,
}
