//! The bodies this face answers with.

use axum::body::Body;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

pub(crate) use crate::api::answer::json;

/// What an operation failed with.
pub(crate) fn message(status: StatusCode, text: impl AsRef<str>) -> Response<Body> {
    json(status, &json!({"message": text.as_ref()}))
}

/// What the framework refuses.
pub(crate) fn detail(status: StatusCode, text: impl AsRef<str>) -> Response<Body> {
    json(status, &json!({"detail": text.as_ref()}))
}

/// The one answer to every path that is none of the client's business.
pub(crate) fn access_denied() -> Response<Body> {
    message(StatusCode::FORBIDDEN, "Access denied")
}

/// Not now, but soon.
pub(crate) fn busy(text: impl AsRef<str>) -> Response<Body> {
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, text);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// One thing wrong with a request body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// Pydantic's error type.
    pub(crate) kind: &'static str,
    /// Where, below `body`.
    pub(crate) location: Vec<Value>,
    /// What is expected.
    pub(crate) message: &'static str,
    /// What was sent.
    pub(crate) input: Value,
    /// The numbers and texts behind the message.
    pub(crate) context: Option<Value>,
}

impl Violation {
    /// A member that must be there.
    pub(crate) fn missing(location: &[&str], input: Value) -> Self {
        Self {
            kind: "missing",
            location: location.iter().map(|name| json!(name)).collect(),
            message: "Field required",
            input,
            context: None,
        }
    }

    fn to_json(&self) -> Value {
        let mut location = vec![json!("body")];
        location.extend(self.location.iter().cloned());
        let mut value = json!({
            "type": self.kind, "loc": location, "msg": self.message, "input": self.input,
        });
        if let (Some(context), Some(members)) = (&self.context, value.as_object_mut()) {
            members.insert("ctx".to_owned(), context.clone());
        }
        value
    }
}

/// 422 in the framework's shape.
pub(crate) fn unprocessable(violations: &[Violation]) -> Response<Body> {
    let detail: Vec<Value> = violations.iter().map(Violation::to_json).collect();
    json(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": detail}))
}
