//! What every reconciler is given: the API server, the store, the clock, the settings, and where to
//! report to. Built once in [`crate::app`]; shared, immutable.

use std::sync::Arc;

use agent_sandbox_service::clock::Clock;

use crate::allocation::Desks;
use crate::api::Api;
use crate::config::Config;
use crate::events::Events;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::trace::Tracer;

/// The surroundings of a reconciler.
#[derive(Debug)]
pub struct Context {
    /// Calls to the API server.
    pub api: Api,
    /// Everything known about objects.
    pub store: Store,
    /// Where requests for the pools' allocation records come together.
    pub desks: Desks,
    /// Right of way for claims.
    pub lanes: Lanes,
    /// The time.
    pub clock: Clock,
    /// Settings.
    pub config: Arc<Config>,
    /// Where events go.
    pub events: Events,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// Where spans go.
    pub tracer: Tracer,
}
