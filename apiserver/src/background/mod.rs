//! What the server does by itself: the CRD lifecycle, garbage collection, namespaces, expiry.
//!
//! Each part observes commits, puts what they mean into a deduplicated work queue, and works that
//! off through [`crate::ops::Engine`]. Nothing polls; a dependent is gone within moments of its
//! owner.

pub(crate) mod definitions;
mod expiry;
mod gc;
mod namespaces;
mod queue;

pub use expiry::ExpiryLimits;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;

use self::definitions::Definitions;
use crate::ops::Engine;

/// What the background parts need to know.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long events and history are kept.
    pub expiry: ExpiryLimits,
    /// Certificate that `kube-root-ca.crt` publishes in every namespace.
    pub root_ca: Option<String>,
}

/// Starts everything. `definitions` has been reconciled once, so that what it serves is complete.
pub(crate) fn start(
    engine: &Engine,
    definitions: Definitions,
    settings: Settings,
    tasks: &Tasks,
    shutdown: &Shutdown,
) {
    let Settings { expiry, root_ca } = settings;
    tasks.spawn("definitions", definitions.run(shutdown.clone()));
    let collector = gc::Collector::new(engine);
    tasks.spawn("garbage-collector", collector.run(shutdown.clone()));
    let namespaces = namespaces::Namespaces::new(engine, root_ca);
    tasks.spawn("namespaces", namespaces.run(shutdown.clone()));
    let expiry = expiry::Expiry::new(engine, expiry);
    tasks.spawn("expiry", expiry.run(shutdown.clone()));
}
