//! The description of every HTTP face, for people and for generators. Services of gRPC describe themselves
//! by reflection.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::App;

/// A part of the program's file: what nobody asks for is not in memory.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

/// The description and the page.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(page))
        .route("/redoc", get(page))
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn page() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/html; charset=utf-8")],
        include_str!("docs.html"),
    )
}
