//! What a server answered, and what tests demand of it.

use anyhow::{Result, ensure};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::text;

/// What the server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The object, if the answer was 200.
    pub(crate) fn ok(self) -> Result<Value> {
        self.expect(StatusCode::OK)
    }

    /// The object, if the answer was 201.
    pub(crate) fn created(self) -> Result<Value> {
        self.expect(StatusCode::CREATED)
    }

    fn expect(self, status: StatusCode) -> Result<Value> {
        ensure!(
            self.status == status,
            "expected {status}, got {}: {}",
            self.status,
            self.body
        );
        Ok(self.body)
    }

    /// The `Status`, if the answer was this error.
    #[track_caller]
    pub(crate) fn error(self, code: u16, reason: &str) -> Value {
        let Self { status, body, .. } = self;
        assert_eq!(status.as_u16(), code, "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["apiVersion"], "v1", "{body}");
        assert_eq!(body["status"], "Failure", "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        body
    }

    /// The same, with this message and no other.
    #[track_caller]
    pub(crate) fn error_saying(self, code: u16, reason: &str, message: &str) -> Value {
        let status = self.error(code, reason);
        assert_eq!(text(&status, "/message"), message);
        status
    }

    /// Asserts that the object was refused as invalid, with a cause at this field that contains this
    /// text.
    #[track_caller]
    pub(crate) fn refused(self, field: &str, message: &str) {
        let status = self.error(422, "Invalid");
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let found = causes.into_iter().any(|cause| {
            cause["field"] == field
                && cause["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(message))
        });
        assert!(found, "no cause at {field:?} with {message:?}: {status}");
    }

    /// The texts of the `Warning` headers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers
            .get_all("warning")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|value| {
                let text = value.split_once('"').map_or(value, |(_, text)| text);
                text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"")
            })
            .collect()
    }
}
