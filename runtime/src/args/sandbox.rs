//! What the sandbox is.

use std::ffi::OsString;
use std::time::Duration;

use super::lenient::seconds;
use crate::config::DEFAULT_METADATA_PREFIX;

/// Where the original runtime serves files.
pub(super) const DEFAULT_ROOT: &str = "/app";

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sandbox")]
pub(super) struct SandboxArgs {
    /// Directory that files and commands live in; created if missing
    #[arg(
        long,
        env = "SANDBOX_BASE_DIR",
        default_value = DEFAULT_ROOT,
        value_name = "DIR"
    )]
    pub(super) root_dir: OsString,
    /// How long a command of /execute may run that names no timeout itself; the other APIs have no
    /// limit unless one is asked for
    #[arg(
        long,
        env = "SANDBOX_EXEC_TIMEOUT_SECONDS",
        default_value = "300",
        value_name = "SECONDS"
    )]
    pub(super) exec_timeout_seconds: OsString,
    /// Environment variables with this prefix appear in `/v1/metadata`, unless they look like
    /// credentials
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_METADATA_ENV_PREFIX",
        default_value = DEFAULT_METADATA_PREFIX,
        value_name = "PREFIX"
    )]
    pub(super) metadata_env_prefix: String,
    /// How long requests in flight may take after SIGTERM
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_SHUTDOWN_TIMEOUT_SECONDS",
        default_value = "10",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    pub(super) shutdown_timeout_seconds: Duration,
}
