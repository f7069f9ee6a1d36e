//! Calls as the model reads them, and answers as it writes them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::{Failure, Id};

/// What answers carry.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) verb: &'static str,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) status: bool,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn read(parts: &Parts, body: &[u8]) -> Self {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let segments: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let rest = match segments.first() {
            Some(&"api") => &segments[2..],
            _ => &segments[3..],
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let name = rest.get(1).map(ToString::to_string).unwrap_or_default();
        let verb = match (&parts.method, name.is_empty()) {
            (&Method::GET, true) if query.contains_key("watch") => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            _ => "delete",
        };
        Self {
            verb,
            resource: rest[0].to_owned(),
            namespace: namespace.to_owned(),
            name,
            status: rest.get(2) == Some(&"status"),
            query,
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    pub(crate) fn id(&self) -> Id {
        Id {
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The label that objects must have to be listed or watched, or must not have after a `!`.
    pub(crate) fn selector(&self) -> Option<&str> {
        self.query.get("labelSelector").map(String::as_str)
    }

    /// A number in the query.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.parse().ok()
    }
}

pub(crate) fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder()
        .status(status)
        .body(body)
        .expect("a valid response")
}

pub(crate) fn failure(failure: &Failure) -> Response<Body> {
    let Failure(code, reason, message) = failure;
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    respond(StatusCode::from_u16(*code).expect("a status"), &status)
}
