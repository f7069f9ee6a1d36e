//! Argument groups that several programs flatten into their own.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

mod go;
mod zap;

pub use self::go::{DurationError, GoDuration, two_dashes};
pub use self::zap::ZapArgs;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Plain,
    /// One JSON object per event.
    Json,
}

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Filter by level and module, such as `info,hyper=debug`
    #[arg(
        long = "log-filter",
        env = "AGENT_SANDBOX_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub filter: String,
    /// Line format
    #[arg(
        long = "log-format",
        env = "AGENT_SANDBOX_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub format: LogFormat,
}

impl Default for LogArgs {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Plain,
        }
    }
}

/// Where the admin endpoints listen.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Admin endpoints")]
pub struct AdminArgs {
    /// Address of `/livez`, `/readyz` and `/metrics`
    #[arg(
        long = "admin-address",
        env = "AGENT_SANDBOX_ADMIN_ADDRESS",
        default_value = "0.0.0.0:8081",
        value_name = "IP:PORT"
    )]
    pub address: SocketAddr,
}
