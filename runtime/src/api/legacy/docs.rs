//! The description of this face, for people and for generators.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

pub(super) async fn openapi() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}

pub(super) async fn page() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/html; charset=utf-8")],
        include_str!("docs.html"),
    )
}
