//! The daemon face: files, health and metadata of the sandbox daemon API under `/v1`.
//!
//! Paths are percent-decoded once and everything behind `/v1/files/` is the path; dots and repeated
//! slashes are answered directly, never with a redirect, because the SDKs do not follow any.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ALLOW, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use serde_json::json;

use super::App;
use super::answer;

mod archive;
mod files;
mod fs;
mod members;
mod metadata;
mod processes;
mod reply;
mod upload;
mod watch;

/// Every route of this face.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/files", any(files::files))
        .route("/v1/files/", any(files::files))
        .route("/v1/files/{*path}", any(files::files))
        .merge(processes::routes())
        .merge(archive::routes())
        .route("/v1/fs/watch", any(watch::watch))
        .merge(fs::routes())
        .route("/v1/health", any(health))
        .route("/v1/metadata", any(metadata::metadata))
        .route("/v1/{*rest}", any(not_found))
}

async fn health(State(app): State<App>, method: Method) -> Response<Body> {
    if !is_read(&method) {
        return method_not_allowed("GET, HEAD");
    }
    if app.processes.is_closing() {
        return reply::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "the runtime is shutting down",
        );
    }
    let uptime = app.began.elapsed().as_secs();
    answer::json(
        StatusCode::OK,
        &json!({"status": "ok", "uptime_seconds": uptime}),
    )
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

async fn not_found() -> Response<Body> {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(ALLOW, HeaderValue::from_static(allowed))],
        "Method Not Allowed\n",
    )
        .into_response()
}
