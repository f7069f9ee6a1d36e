//! `metav1.Status` for every error.
//!
//! Reasons, codes, messages and details follow the published API conventions, because clients
//! decide by them and `kubectl` prints them. Handlers return [`ApiError`]; only `http` turns one
//! into a response.

use std::fmt;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::patch::apply::Conflict;
use crate::registry::Descriptor;
use crate::schema::FieldError;
use crate::store::RevisionError;

/// An error answer. Boxed, because it travels in every `Result` and is rare.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError(Box<Body>);

#[derive(Debug, Clone, PartialEq)]
struct Body {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
    /// Continue token that goes into the list metadata of a 410.
    continue_token: Option<String>,
    /// Texts for `Warning` headers.
    warnings: Vec<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Body {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
            continue_token: None,
            warnings: Vec::new(),
        }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                self.0.details.insert(field.to_owned(), value.into());
            }
        }
        self
    }

    fn about_resource(self, descriptor: &Descriptor, name: &str) -> Self {
        self.about(&descriptor.group, &descriptor.plural, name)
    }

    fn causes(mut self, causes: Vec<Value>) -> Self {
        if !causes.is_empty() {
            self.0.details.insert("causes".to_owned(), causes.into());
        }
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.0
            .details
            .insert("retryAfterSeconds".to_owned(), seconds.into());
        self
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 about one object.
    pub fn forbidden(descriptor: &Descriptor, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", descriptor.qualified());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about_resource(descriptor, name)
    }

    /// 403 for creating in a namespace that is being deleted.
    pub fn namespace_terminating(descriptor: &Descriptor, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(descriptor, name, &why).causes(vec![json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        })])
    }

    /// 403 for a request the anonymous user may not make.
    pub fn anonymous(method: &str, path: &str) -> Self {
        let message = format!(
            "forbidden: User \"system:anonymous\" cannot {} path \"{path}\"",
            method.to_ascii_lowercase()
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404 for one object.
    pub fn not_found(descriptor: &Descriptor, name: &str) -> Self {
        Self::not_found_in(&descriptor.group, &descriptor.plural, name)
    }

    /// 404 for one object of a resource given by name.
    pub fn not_found_in(group: &str, plural: &str, name: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("{plural}{dot}{group} \"{name}\" not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, plural, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 405 for a verb that a custom resource does not have.
    pub fn verb_not_supported(descriptor: &Descriptor, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind \"{}\"",
            descriptor.qualified()
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .about_resource(descriptor, "")
    }

    /// 406
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 409 for a name that is taken.
    pub fn already_exists(descriptor: &Descriptor, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", descriptor.qualified());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about_resource(descriptor, name)
    }

    /// 409 when every generated name was taken.
    pub fn no_unique_name(descriptor: &Descriptor, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists, the server was not able to generate a unique name for \
             the object",
            descriptor.qualified()
        );
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message)
            .about_resource(descriptor, name)
            .retry_after(1)
    }

    /// 409 for a write based on an old version of the object.
    pub fn conflict(descriptor: &Descriptor, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict_because(descriptor, name, why)
    }

    /// 409 for another reason.
    pub fn conflict_because(descriptor: &Descriptor, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            descriptor.qualified()
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).about_resource(descriptor, name)
    }

    /// 409 for a deletion of another object than the one that is there. Its message has the kind where
    /// others have the resource.
    pub fn conflict_of_kind(descriptor: &Descriptor, name: &str, why: &str) -> Self {
        let Descriptor { group, kind, .. } = descriptor;
        let dot = if group.is_empty() { "" } else { "." };
        let message =
            format!("Operation cannot be fulfilled on {kind}{dot}{group} \"{name}\": {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, kind, name)
    }

    /// 409 for an apply that would take fields from other managers.
    pub fn apply_conflict(conflicts: &[Conflict]) -> Self {
        let causes = conflicts
            .iter()
            .map(|conflict| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {}", conflict.owner),
                    "field": conflict.field,
                })
            })
            .collect();
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            conflict_message(conflicts),
        )
        .causes(causes)
    }

    /// 410 for a revision whose history is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 410 for a continue token that is too old, with one that goes on from the present.
    pub fn continue_expired(fresh: String) -> Self {
        let mut error = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             can start a new list without the continue parameter, or use the continue token in \
             this response to retrieve the remainder of the results. Continuing with the provided \
             token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        error.0.continue_token = Some(fresh);
        error
    }

    /// 410 or 504 for a revision that cannot be served.
    pub fn revision(error: &RevisionError) -> Self {
        match error {
            RevisionError::Expired { .. } => Self::expired(error.to_string()),
            RevisionError::Future { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "Timeout",
                format!("Timeout: {error}"),
            )
            .causes(vec![json!({
                "reason": "ResourceVersionTooLarge",
                "message": "Too large resource version",
            })])
            .retry_after(1),
        }
    }

    /// 413 for a body over the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::too_large_because(format!("Request entity too large: limit is {limit}"))
    }

    /// 413
    pub fn too_large_because(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// 415
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 422 with one cause per field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = if error.path.is_empty() {
                error.message.clone()
            } else {
                format!("{}: {}", error.path, error.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let summary = match texts.as_slice() {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|error| {
                json!({
                    "reason": error.reason.as_str(),
                    "message": error.message,
                    "field": error.path,
                })
            })
            .collect();
        let message = format!("{qualified} \"{name}\" is invalid: {summary}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .about(group, kind, name)
            .causes(causes)
    }

    /// 422 without fields, for a patch that does not fit.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// An error that a node answered, in its words.
    pub fn from_node(code: StatusCode, message: impl Into<String>) -> Self {
        let reason = match code.as_u16() {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    /// 500
    pub fn internal(message: &str) -> Self {
        let text = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
            .causes(vec![json!({ "message": message })])
    }

    /// 500 without a reason: the published answer to a few mistakes, although the fault is the client's.
    pub fn untyped(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 503
    pub fn unavailable(message: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
        .retry_after(1)
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        self.0.code
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// Seconds for a `Retry-After` header.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0
            .details
            .get("retryAfterSeconds")
            .and_then(Value::as_u64)
    }

    /// Adds texts for `Warning` headers.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.0.warnings = warnings;
        self
    }

    /// Texts for `Warning` headers.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// Adds the UID of the object the error is about.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.0.details.insert("uid".to_owned(), uid.into());
        self
    }

    /// The `metav1.Status`.
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.0.continue_token {
            metadata.insert("continue".to_owned(), token.clone().into());
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.0.message,
        });
        if let Value::Object(status) = &mut status {
            if !self.0.reason.is_empty() {
                status.insert("reason".to_owned(), self.0.reason.into());
            }
            if !self.0.details.is_empty() {
                status.insert("details".to_owned(), self.0.details.clone().into());
            }
            status.insert("code".to_owned(), self.0.code.as_u16().into());
        }
        status
    }
}

/// The `Success` status that answers a deletion or a create-only subresource.
pub fn success(descriptor: &Descriptor, name: &str, uid: Option<&str>) -> Value {
    let mut details = Map::new();
    let parts = [
        ("name", name),
        ("group", descriptor.group.as_str()),
        ("kind", descriptor.plural.as_str()),
        ("uid", uid.unwrap_or("")),
    ];
    for (field, value) in parts {
        if !value.is_empty() {
            details.insert(field.to_owned(), value.into());
        }
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.owner, only.field
        );
    }
    let mut owners: Vec<&str> = conflicts
        .iter()
        .map(|conflict| conflict.owner.as_str())
        .collect();
    owners.sort_unstable();
    owners.dedup();
    let mut lines = Vec::new();
    for owner in owners {
        lines.push(format!("conflicts with {owner}:"));
        let owned = conflicts.iter().filter(|conflict| conflict.owner == owner);
        lines.extend(owned.map(|conflict| format!("- {}", conflict.field)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FieldReason;

    fn field(path: &str, message: &str) -> FieldError {
        FieldError {
            path: path.to_owned(),
            reason: FieldReason::Invalid,
            message: message.to_owned(),
        }
    }

    #[test]
    fn invalid_lists_each_problem_once_and_every_cause() {
        let one = ApiError::invalid("g.io", "Thing", "t", &[field("spec.n", "Required value")]);
        assert_eq!(
            one.to_string(),
            "Thing.g.io \"t\" is invalid: spec.n: Required value"
        );
        let errors = [field("a", "x"), field("b", "y"), field("a", "x")];
        let status = ApiError::invalid("", "Pod", "p", &errors).to_value();
        assert_eq!(status["message"], "Pod \"p\" is invalid: [a: x, b: y]");
        assert_eq!(status["details"]["causes"].as_array().unwrap().len(), 3);
        assert_eq!(
            status["details"]["causes"][0]["reason"],
            "FieldValueInvalid"
        );
        assert_eq!(status["code"], 422);
    }

    #[test]
    fn apply_conflicts_name_managers_and_fields() {
        let conflict = |owner: &str, field: &str| Conflict {
            owner: owner.to_owned(),
            field: field.to_owned(),
        };
        let one = ApiError::apply_conflict(&[conflict("\"a\"", ".spec.x")]);
        assert_eq!(
            one.to_string(),
            "Apply failed with 1 conflict: conflict with \"a\": .spec.x"
        );
        let many = ApiError::apply_conflict(&[
            conflict("\"b\"", ".spec.x"),
            conflict("\"a\"", ".spec.y"),
            conflict("\"b\"", ".spec.z"),
        ]);
        assert_eq!(
            many.to_string(),
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.y\nconflicts with \
             \"b\":\n- .spec.x\n- .spec.z"
        );
        assert_eq!(many.code(), StatusCode::CONFLICT);
    }

    #[test]
    fn a_future_revision_says_so_in_its_causes() {
        use crate::store::Revision;
        let error = RevisionError::Future {
            requested: Revision::new(9),
            current: Revision::new(3),
        };
        let status = ApiError::revision(&error).to_value();
        assert_eq!(status["reason"], "Timeout");
        assert_eq!(
            status["details"]["causes"][0]["reason"],
            "ResourceVersionTooLarge"
        );
        assert_eq!(
            status["message"],
            "Timeout: Too large resource version: 9, current: 3"
        );
    }
}
