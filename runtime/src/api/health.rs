//! `/healthz` and `/metrics`, on every port beside the faces.

use agent_sandbox_service::metrics::Metrics;
use axum::Router;
use axum::routing::get;

use super::App;

/// Both routes. Metrics are text in Prometheus' exposition format.
pub(crate) fn routes(metrics: Metrics) -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .merge(agent_sandbox_service::admin::metrics_router(metrics).with_state(()))
}
