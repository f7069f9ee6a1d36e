//! HTTP: requests to typed operations, and objects back to bytes.
//!
//! [`router::router`] is the one entry. A request is parsed ([`request`]), its body decoded
//! ([`body`]), its `Accept` understood ([`negotiate`]), the operation done by [`crate::ops`], and
//! the outcome written in the form the client accepts. Nothing here decides what a resource is or
//! how it behaves, and there is no handler per kind.

pub mod body;
pub mod list;
pub mod metrics;
pub mod negotiate;
mod open;
pub mod read;
pub mod request;
mod respond;
mod review;
pub mod router;
pub mod table;
mod unattended;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;

use self::metrics::RequestMetrics;
pub use self::unattended::Unattended;
use crate::ops::Engine;
use crate::stream::NodeConnector;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    /// The operations.
    pub engine: Engine,
    /// Ends watches.
    pub shutdown: Shutdown,
    /// Limits and intervals.
    pub limits: Limits,
    /// Counts requests, when somebody wants them counted.
    pub metrics: Option<RequestMetrics>,
    /// Finds the nodes that serve logs and streams.
    pub nodes: Option<Arc<dyn NodeConnector>>,
    /// Kinds that are stored and no more.
    pub unattended: Arc<Unattended>,
}

/// Limits and intervals of the HTTP side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body in bytes.
    pub body: usize,
    /// How often an idle watch gets a bookmark, if it asked for them.
    pub bookmarks: Duration,
    /// How long a watch lives that names no timeout.
    pub watch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 3 << 20,
            bookmarks: Duration::from_secs(60),
            watch: Duration::from_secs(45 * 60),
        }
    }
}
