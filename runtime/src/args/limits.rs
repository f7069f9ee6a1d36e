//! How much there may be at once.

use std::time::Duration;

use super::lenient::seconds;
use crate::exec::ResourceLimits;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Commands that may run at once; further ones are refused with 503
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_PROCESSES",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub(super) max_processes: usize,
    /// Commands started through /v1/processes that stay known after their end, with the end of their
    /// output
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_KEPT_PROCESSES",
        default_value_t = 64,
        value_name = "COUNT"
    )]
    pub(super) kept_processes: usize,
    /// What each command may use: as, core, cpu, data, fsize, nofile, nproc and stack, as in ulimit,
    /// such as nproc=256,as=2GiB [default: what the runtime itself may]
    #[arg(
        long = "command-limits",
        env = "AGENT_SANDBOX_RUNTIME_COMMAND_LIMITS",
        value_name = "NAME=VALUE,..."
    )]
    pub(super) command_limits: Option<ResourceLimits>,
    /// Bytes of output held for answers of all commands together, beyond 128 KiB each; when they are
    /// used up, answers leave out more of the middle
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_COLLECTED_BYTES",
        default_value_t = 256 << 20,
        value_name = "BYTES"
    )]
    pub(super) max_collected_bytes: usize,
    /// Bytes of each output of a command that an answer carries; the middle of the rest is omitted
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_OUTPUT_BYTES",
        default_value_t = 8 << 20,
        value_name = "BYTES"
    )]
    pub(super) max_output_bytes: usize,
    /// Largest JSON request
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_REQUEST_BYTES",
        default_value_t = 4 << 20,
        value_name = "BYTES"
    )]
    pub(super) max_request_bytes: usize,
    /// Largest uploaded file [default: no limit but the disk]
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_UPLOAD_BYTES",
        value_name = "BYTES"
    )]
    pub(super) max_upload_bytes: Option<u64>,
    /// Connections served at once, per port
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_CONNECTIONS",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub(super) max_connections: usize,
    /// How long a request's body may stay without a further byte, however long it takes as a whole;
    /// then it is given up with 408. As long may a part of a listing wait to be taken
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_BODY_TIMEOUT_SECONDS",
        default_value = "60",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    pub(super) body_timeout_seconds: Duration,
}

impl LimitArgs {
    /// Names the flag that leaves nothing to work with.
    pub(super) fn check(&self) -> Result<(), String> {
        for (flag, count) in [
            ("--max-processes", self.max_processes),
            ("--max-connections", self.max_connections),
            ("--max-request-bytes", self.max_request_bytes),
        ] {
            if count == 0 {
                return Err(format!("{flag} is 0; it must be at least 1"));
            }
        }
        Ok(())
    }
}
