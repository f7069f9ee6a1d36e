//! The route table: every face on one router, and the layers around them.

use agent_sandbox_service::metrics::Metrics;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;

use crate::api::auth::Gate;
use crate::api::legacy::reply;
use crate::api::{App, access, auth, daemon, health, legacy};

/// All faces, ready to serve on any port.
pub(crate) fn router(app: &App, gate: Gate, metrics: Metrics) -> Router {
    Router::new()
        .merge(legacy::routes())
        .merge(daemon::routes())
        .merge(health::routes(metrics))
        .method_not_allowed_fallback(|| async {
            reply::detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .fallback(|| async { reply::detail(StatusCode::NOT_FOUND, "Not Found") })
        // Also unknown routes need the token, so that nothing can be probed without it.
        .layer(from_fn_with_state(gate, auth::check))
        .layer(from_fn_with_state(app.metrics.clone(), access::record))
        .with_state(app.clone())
}
