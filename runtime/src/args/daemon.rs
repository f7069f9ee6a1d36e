//! Flags of the sandbox daemon before this one, which manifests in the wild still pass. They mean what
//! they meant there, and with them the defaults are those of that daemon.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::args::GoDuration;

use crate::config::Config;

/// The daemon's defaults.
const REST_PORT: u16 = 8080;
const GRPC_PORT: u16 = 9090;
const ROOT: &str = "/workspace";

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "As the daemon before")]
pub(super) struct DaemonArgs {
    /// Same as --address
    #[arg(long, value_name = "IP", conflicts_with = "address")]
    listen_host: Option<IpAddr>,
    /// Listen on this port and on that of --grpc-port instead of 8888 [default: 8080]; both serve
    /// everything, and --root-dir is /workspace unless it is given
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    rest_port: Option<u16>,
    /// Listen on this port and on that of --rest-port instead of 8888 [default: 9090]; both serve
    /// everything, and --root-dir is /workspace unless it is given
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    grpc_port: Option<u16>,
    /// How long requests in flight may take after SIGTERM, such as 10s
    #[arg(
        long,
        value_name = "DURATION",
        conflicts_with = "shutdown_timeout_seconds"
    )]
    shutdown_timeout: Option<GoDuration>,
    /// How long a connection may stay without a request, such as 60s
    #[arg(long, value_name = "DURATION", conflicts_with = "idle_timeout_seconds")]
    http_idle_timeout: Option<GoDuration>,
    /// Largest piece of output in one message of a stream; 0 is as large as it comes
    #[arg(long, value_name = "BYTES")]
    stream_chunk_size: Option<usize>,
}

/// What the user chose with this program's own flags, which the daemon's defaults must not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) ports: bool,
    pub(super) root: bool,
}

impl DaemonArgs {
    /// Lays these flags over the settings.
    ///
    /// # Errors
    /// Says which flag is wrong and what is expected.
    pub(super) fn apply(self, chosen: Chosen, config: &mut Config) -> Result<(), String> {
        let Self {
            listen_host,
            rest_port,
            grpc_port,
            shutdown_timeout,
            http_idle_timeout,
            stream_chunk_size,
        } = self;
        if let Some(address) = listen_host {
            config.address = address;
        }
        if rest_port.is_some() || grpc_port.is_some() {
            let ports = [
                rest_port.unwrap_or(REST_PORT),
                grpc_port.unwrap_or(GRPC_PORT),
            ];
            let [rest, grpc] = ports;
            if rest == grpc {
                return Err(format!(
                    "--rest-port and --grpc-port are both {rest}; they must differ"
                ));
            }
            if chosen.ports {
                config.ports.extend(ports);
                config.ports.sort_unstable();
                config.ports.dedup();
            } else {
                config.ports = ports.to_vec();
            }
            if !chosen.root {
                config.root = PathBuf::from(ROOT);
            }
        }
        if let Some(GoDuration(timeout)) = shutdown_timeout {
            config.shutdown_timeout = timeout;
        }
        if let Some(GoDuration(timeout)) = http_idle_timeout {
            if timeout == Duration::ZERO {
                return Err("--http-idle-timeout is 0; expected a duration such as 60s".to_owned());
            }
            config.idle_timeout = timeout;
        }
        if let Some(bytes) = stream_chunk_size {
            config.stream_chunk_bytes = Some(bytes).filter(|bytes| *bytes > 0);
        }
        Ok(())
    }
}
