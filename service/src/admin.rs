//! The endpoints an operator and a kubelet ask: `/livez`, `/healthz`, `/readyz`, `/metrics`.
//!
//! They are served on their own listener, off the data path, so that a saturated program still
//! answers its probes.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// Every admin route. `/livez` and `/healthz` answer as long as the process serves; `/readyz` follows
/// the gates and answers 503 with one line per closed gate.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    health_router(readiness).merge(metrics_router(metrics))
}

/// `/livez`, `/healthz` and `/readyz` alone, for programs that keep metrics on another port.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

/// `/metrics` alone.
pub fn metrics_router(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(text))
        .with_state(metrics)
}

async fn alive() -> &'static str {
    "ok"
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(closed) => (StatusCode::SERVICE_UNAVAILABLE, closed.join("\n")),
    }
}

async fn text(State(metrics): State<Metrics>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics.encode(),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_and_metrics_are_served() {
        let metrics = Metrics::new();
        let counter = prometheus::IntCounter::new("turns_total", "Turns.").unwrap();
        metrics
            .registry()
            .register(Box::new(counter.clone()))
            .unwrap();
        counter.inc();
        let readiness = Readiness::new();
        let gate = readiness.register("caches");
        let router = router(metrics, readiness);

        let (status, body) = get(&router, "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "caches: not started")
        );
        assert_eq!(get(&router, "/livez").await.0, StatusCode::OK);
        gate.set_ready();
        assert_eq!(
            get(&router, "/readyz").await,
            (StatusCode::OK, "ok".to_owned())
        );
        assert!(get(&router, "/metrics").await.1.contains("turns_total 1"));
    }
}
