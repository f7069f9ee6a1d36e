//! What was asked, how it went and how long it took: one metric and one log line per request. Never
//! what was in it: commands, paths and headers can carry secrets. And every answer says who sent it.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Response};
use axum::middleware::Next;
use tokio::time::Instant;

use super::held;
use crate::config::IDENTITY_HEADER;
use crate::metrics::RuntimeMetrics;

/// Where lines about requests are said to come from.
pub(crate) const TARGET: &str = "agent_sandbox_runtime::access";
/// Asked every few seconds by machines.
const PROBES: [&str; 4] = ["/", "/healthz", "/v1/health", "/metrics"];

/// Measures a request until its answer begins, and signs the answer.
pub(crate) async fn record(
    State((metrics, identity)): State<(RuntimeMetrics, Option<HeaderValue>)>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    if let Some(identity) = identity {
        response.headers_mut().insert(IDENTITY_HEADER, identity);
    }
    let status = response.status().as_u16();
    let seconds = began.elapsed().as_secs_f64();
    metrics.request(&route, &method, status, seconds);
    if PROBES.contains(&route.as_str()) {
        tracing::debug!(target: TARGET, %method, route, status, seconds, "probe");
    } else {
        tracing::info!(target: TARGET, %method, route, status, seconds, "request");
    }
    held::with_body(response)
}
