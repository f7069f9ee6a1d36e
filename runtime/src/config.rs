//! The runtime's settings after validation. `args` makes them from flags; embedders make them directly.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

pub use crate::api::auth::TokenSource;
use crate::exec::ResourceLimits;

/// Prefix of the environment variables that configure the runtime itself. Commands never see them.
pub const OWN_VARIABLES: &str = "AGENT_SANDBOX_RUNTIME_";

/// The header that names the sender of an answer.
pub const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-sandbox-identity");

/// Everything the runtime needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Nothing else is listened on.
    pub address: IpAddr,
    /// The ports; every face answers on each. 0 picks a free one.
    pub ports: Vec<u16>,
    /// The directory that files and commands live in; created if missing.
    pub root: PathBuf,
    /// How long a command may run that names no timeout itself.
    pub exec_timeout: Duration,
    /// How many commands may run at once; further ones are refused with 503.
    pub max_processes: usize,
    /// How many commands that were started to be looked at later stay known after their end.
    pub kept_processes: usize,
    /// How many bytes of each output of a command an answer carries.
    pub max_output_bytes: usize,
    /// How many bytes of output may be held for answers of all commands together, beyond 128 KiB each.
    /// When they are used up, answers leave out more of the middle.
    pub max_collected_bytes: usize,
    /// The largest JSON request, in bytes.
    pub max_request_bytes: usize,
    /// The largest file that may be uploaded, in bytes; unlimited if `None`.
    pub max_upload_bytes: Option<u64>,
    /// How many connections are served at once, per port.
    pub max_connections: usize,
    /// What every answer names as its sender, in [`IDENTITY_HEADER`]. It tells a client or a proxy that
    /// an address has got another owner.
    pub identity: Option<HeaderValue>,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a request's body may stay without a further byte, however long it takes as a whole, and how
    /// long a part of a listing may wait to be taken.
    pub body_timeout: Duration,
    /// The largest piece of output in one message of a stream; as large as it comes if `None`.
    pub stream_chunk_bytes: Option<usize>,
    /// The token every request must present, if any.
    pub token: Option<TokenSource>,
    /// What the environment of commands starts from. [`OWN_VARIABLES`] are taken out of it.
    pub environment: Vec<(OsString, OsString)>,
    /// What each command may use of the machine.
    pub command_limits: ResourceLimits,
    /// The soft limit of open files that commands get, if not that of this process.
    pub command_open_files: Option<u64>,
    /// Which variables of `environment` the daemon API tells about: those that begin with this and do
    /// not look like credentials.
    pub metadata_prefix: String,
    /// How long requests in flight may take after the order to stop.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// The published defaults for everything but the root: all addresses, port 8888, 300 s for a
    /// command, an empty environment.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            ports: vec![8888],
            root: root.into(),
            exec_timeout: DEFAULT_EXEC_TIMEOUT,
            max_processes: 4096,
            kept_processes: 64,
            max_output_bytes: 8 << 20,
            max_collected_bytes: 256 << 20,
            max_request_bytes: 4 << 20,
            max_upload_bytes: None,
            max_connections: 4096,
            idle_timeout: Duration::from_secs(60),
            body_timeout: DEFAULT_BODY_TIMEOUT,
            stream_chunk_bytes: None,
            identity: None,
            token: None,
            environment: Vec::new(),
            command_limits: ResourceLimits::default(),
            command_open_files: None,
            metadata_prefix: DEFAULT_METADATA_PREFIX.to_owned(),
            shutdown_timeout: Duration::from_secs(10),
        }
    }

    /// The addresses to listen on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let address = self.address;
        self.ports
            .iter()
            .map(move |port| SocketAddr::new(address, *port))
    }
}

pub(crate) const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const DEFAULT_METADATA_PREFIX: &str = "SANDBOX_";
/// What the original runtime allows a command.
pub(crate) const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_secs(300);
