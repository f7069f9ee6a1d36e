//! The faces: HTTP in, engine calls, HTTP out. A face owns its wire format and its error texts and
//! nothing else; every face sees the same commands and the same files.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Config;
use crate::exec::Processes;
use crate::files::Root;
use crate::metrics::RuntimeMetrics;

use self::grpc::Health;

pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod command;
pub(crate) mod content;
pub(crate) mod daemon;
pub(crate) mod docs;
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod held;
pub(crate) mod legacy;
pub(crate) mod listing;
pub(crate) mod multipart;
pub(crate) mod origin;
pub(crate) mod stall;

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) root: Root,
    pub(crate) processes: Processes,
    pub(crate) metrics: RuntimeMetrics,
    pub(crate) health: Health,
    /// When the runtime was set up.
    pub(crate) began: Instant,
}
