//! The legacy face: the HTTP API of the Python runtime, which `k8s-agent-sandbox` speaks by default.
//!
//! Status codes, JSON members and error texts are what its clients were written against, Python's own
//! wording included; the defects of the original are not kept. Two kinds of error bodies exist:
//! `{"message": ...}` from the operations, `{"detail": ...}` from the web framework underneath.

use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};

use super::App;

mod answer;
mod execute;
mod files;
mod paths;
mod python;
pub(crate) mod reply;
mod shlex;
mod upload;

/// Every route of this face.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(status))
        .route("/execute", post(execute::execute))
        .route("/upload", post(upload::upload))
        // Clients that normalise dot segments send `list(".")` with and without the last slash.
        .route("/download", get(files::download))
        .route("/download/", get(files::download))
        .route("/download/{*path}", get(files::download))
        .route("/list", get(files::list))
        .route("/list/", get(files::list))
        .route("/list/{*path}", get(files::list))
        .route("/exists", get(files::exists))
        .route("/exists/", get(files::exists))
        .route("/exists/{*path}", get(files::exists))
}

async fn status() -> Response<Body> {
    reply::json(
        StatusCode::OK,
        &serde_json::json!({"status": "ok", "message": "Sandbox Runtime is active."}),
    )
}
