//! Answers: status, headers, and objects in the accepted form.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::negotiate::{Accepted, Encoding, Form};
use super::table::{self, IncludeObject};
use crate::ops::Encoder;
use crate::status::ApiError;
use crate::store::Object;

/// Warnings beyond this many bytes are cut off, so that headers stay within what clients accept.
const MAX_WARNINGS: usize = 4096;

/// An answer with JSON text.
pub(super) fn json_text(code: StatusCode, text: impl Into<Body>) -> Response<Body> {
    with_type(code, "application/json", text.into())
}

/// An answer with a JSON value.
pub(super) fn json_value(code: StatusCode, value: &Value) -> Response<Body> {
    json_text(code, value.to_string())
}

/// An answer with text of some media type.
pub(super) fn with_type(code: StatusCode, media_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The answer to a request that failed.
pub(super) fn failure(error: &ApiError) -> Response<Body> {
    let mut response = json_value(error.code(), &error.to_value());
    warn(&mut response, error.warnings());
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An answer with a JSON value in the accepted encoding.
pub(super) fn value(code: StatusCode, accepted: Accepted, value: &Value) -> Response<Body> {
    encoded(code, accepted, value.to_string().into_bytes())
}

/// An answer with one object in the accepted form.
pub(super) fn object(
    code: StatusCode,
    accepted: Accepted,
    encoder: &Encoder,
    object: &Object,
    include: IncludeObject,
    now: Timestamp,
) -> Response<Body> {
    let mut text = Vec::with_capacity(object.size() + 160);
    match accepted.form {
        Form::Object => encoder.write(object, &mut text),
        Form::Partial => object.write_metadata(&mut text),
        Form::Table => {
            let metadata = json!({ "resourceVersion": object.revision().to_string() });
            let rows = [encoder.value(object)];
            let (descriptor, version) = (encoder.descriptor(), encoder.version());
            let table = table::render(descriptor, version, &rows, &metadata, include, true, now);
            text = table.to_string().into_bytes();
        }
    }
    encoded(code, accepted, text)
}

/// Adds `Warning` headers.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut bytes = 0;
    for warning in warnings {
        let clean: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!("299 - \"{quoted}\"");
        bytes += text.len();
        if bytes > MAX_WARNINGS {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn encoded(code: StatusCode, accepted: Accepted, text: Vec<u8>) -> Response<Body> {
    if accepted.encoding == Encoding::Json {
        return json_text(code, Bytes::from(text));
    }
    let yaml = serde_json::from_slice::<Value>(&text)
        .ok()
        .and_then(|value| serde_saphyr::to_string(&value).ok());
    match yaml {
        Some(yaml) => with_type(code, "application/yaml", Body::from(yaml)),
        None => failure(&ApiError::internal("cannot write the answer as YAML")),
    }
}
