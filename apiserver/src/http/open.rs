//! What is not a resource: health, version, discovery, OpenAPI.

use axum::body::Body;
use http::header::{CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Api;
use super::negotiate;
use super::request::Route;
use super::respond;
use crate::discovery::{aggregated, legacy, openapi};
use crate::registry::Snapshot;
use crate::status::ApiError;

/// The Kubernetes release whose API is served.
const MINOR: &str = "36";
const GIT_VERSION: &str = "v1.36.3+agent-sandbox";

/// Answers a GET of anything but a resource.
pub(super) fn answer(
    api: &Api,
    route: &Route,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let snapshot = api.engine.registry.snapshot();
    match route {
        Route::Health => {
            let code = if api.shutdown.is_triggered() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            let text = if code.is_success() {
                "ok"
            } else {
                "shutting down"
            };
            Ok(respond::with_type(
                code,
                "text/plain; charset=utf-8",
                Body::from(text),
            ))
        }
        Route::Version => Ok(version()),
        Route::CoreVersions | Route::Groups => Ok(groups(&snapshot, route, headers)),
        Route::Group(group) => found(legacy::group(&snapshot, group)),
        Route::Resources { group, version } => found(legacy::resources(&snapshot, group, version)),
        Route::OpenApiIndex => Ok(document(&openapi::index(&snapshot), headers)),
        Route::OpenApi(path) => openapi::document(&snapshot, path)
            .map(|text| document(&text, headers))
            .ok_or_else(ApiError::no_such_path),
        Route::Resource(_) | Route::Unknown => Err(ApiError::no_such_path()),
    }
}

fn version() -> Response<Body> {
    let version = json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    respond::json_value(StatusCode::OK, &version)
}

/// `/api` and `/apis`, aggregated when the client accepts that.
fn groups(snapshot: &Snapshot, route: &Route, headers: &HeaderMap) -> Response<Body> {
    let core = *route == Route::CoreVersions;
    let Some(form) = negotiate::discovery(headers) else {
        let host = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or("");
        let legacy = if core {
            legacy::versions(snapshot, host)
        } else {
            legacy::groups(snapshot)
        };
        return respond::json_value(StatusCode::OK, &legacy);
    };
    let value = if core {
        aggregated::core(snapshot, form)
    } else {
        aggregated::groups(snapshot, form)
    };
    let version = match form {
        aggregated::Form::V2 => "v2",
        aggregated::Form::V2Beta1 => "v2beta1",
    };
    let media_type =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let text = value.to_string();
    tagged(headers, text.as_bytes(), || {
        respond::with_type(StatusCode::OK, &media_type, Body::from(text.clone()))
    })
}

fn document(text: &bytes::Bytes, headers: &HeaderMap) -> Response<Body> {
    tagged(headers, text, || {
        respond::json_text(StatusCode::OK, text.clone())
    })
}

/// An answer with an entity tag, or 304 when the client has that entity.
fn tagged(
    headers: &HeaderMap,
    text: &[u8],
    full: impl FnOnce() -> Response<Body>,
) -> Response<Body> {
    let digest = Sha256::digest(text);
    let tag: String = digest
        .iter()
        .take(16)
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(hex_digit)
        .collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|t| t.trim() == tag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        full()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn found(document: Option<serde_json::Value>) -> Result<Response<Body>, ApiError> {
    document
        .map(|value| respond::json_value(StatusCode::OK, &value))
        .ok_or_else(ApiError::no_such_path)
}
