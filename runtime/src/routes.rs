//! The route table: every face on one router, and the layers around them.

use agent_sandbox_service::metrics::Metrics;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};

use crate::api::auth::Gate;
use crate::api::legacy::reply;
use crate::api::{App, access, auth, daemon, docs, grpc, health, legacy, origin, stall};

/// All faces, ready to serve on any port.
///
/// # Errors
/// When the definitions of the gRPC services are broken.
pub(crate) fn router(
    app: &App,
    gate: Gate,
    metrics: Metrics,
) -> Result<Router, tonic_reflection::server::Error> {
    let signed = (app.metrics.clone(), app.config.identity.clone());
    Ok(Router::new()
        .merge(legacy::routes())
        .merge(daemon::routes())
        .merge(docs::routes())
        .merge(grpc::routes(app)?)
        .merge(health::routes(metrics))
        .method_not_allowed_fallback(|| async {
            reply::detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .fallback(not_found)
        .layer(from_fn_with_state(app.config.body_timeout, stall::watch))
        .layer(from_fn(origin::check))
        // Also unknown routes need the token, so that nothing can be probed without it.
        .layer(from_fn_with_state(gate, auth::check))
        .layer(from_fn_with_state(signed, access::record))
        .with_state(app.clone()))
}

async fn not_found(headers: HeaderMap) -> Response<Body> {
    if grpc::is_call(&headers) {
        return grpc::refusal(StatusCode::NOT_FOUND, "there is no such service");
    }
    reply::detail(StatusCode::NOT_FOUND, "Not Found")
}
