//! Field errors: what is wrong, where, and the words kubectl users know.
//!
//! Produced by every check of [`crate::schema`]; the HTTP layer turns them into the causes of a
//! `metav1.Status`. The texts follow the published `k8s.io/apimachinery` field errors.

use std::fmt;

use serde_json::Value;

use super::render;

/// A schema that cannot be used, or whose rules cannot be compiled: one entry per finding.
///
/// Paths are relative to the schema document (`properties[spec].type`); see
/// [`SchemaError::prefixed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", join(.errors))]
pub struct SchemaError {
    /// The findings, never empty, in the order of their paths.
    pub errors: Vec<FieldError>,
}

impl SchemaError {
    /// The same findings below `prefix`, for example `spec.versions[0].schema.openAPIV3Schema`.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str) -> Self {
        for error in &mut self.errors {
            error.prefix(prefix);
        }
        self
    }

    /// `Err` when there are findings.
    pub(crate) fn check(mut errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
        errors.dedup();
        Err(Self { errors })
    }
}

/// One violation at one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path from the object's root, as in `spec.containers[0].name`; empty for the object itself.
    pub path: String,
    /// The machine-readable reason.
    pub reason: FieldReason,
    /// The message without the path, as in `Invalid value: "x": must be y`.
    pub message: String,
}

impl FieldError {
    /// A malformed value.
    pub fn invalid(path: impl fmt::Display, value: &Value, detail: impl fmt::Display) -> Self {
        Self::with_value(FieldReason::Invalid, path, value, detail)
    }

    /// A malformed value that is shown as `text`.
    pub(crate) fn invalid_shown(
        path: impl fmt::Display,
        text: &str,
        detail: impl fmt::Display,
    ) -> Self {
        let reason = FieldReason::Invalid;
        Self::build(reason, path, format!("{}: {text}", reason.label()), detail)
    }

    /// A malformed value that is too large to be shown.
    pub fn invalid_omitted(path: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self::without_value(FieldReason::Invalid, path, detail)
    }

    /// A value of another type than the schema's.
    pub fn type_invalid(path: impl fmt::Display, value: &Value, detail: impl fmt::Display) -> Self {
        Self::with_value(FieldReason::TypeInvalid, path, value, detail)
    }

    /// A missing value; `detail` may be empty.
    pub fn required(path: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self::without_value(FieldReason::Required, path, detail)
    }

    /// A value that must not be there.
    pub fn forbidden(path: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self::without_value(FieldReason::Forbidden, path, detail)
    }

    /// A value that occurs twice where it may occur once.
    pub fn duplicate(path: impl fmt::Display, value: &Value) -> Self {
        Self::with_value(FieldReason::Duplicate, path, value, "")
    }

    /// A value that occurs twice and is too large to be shown.
    pub fn duplicate_omitted(path: impl fmt::Display) -> Self {
        Self::without_value(FieldReason::Duplicate, path, "")
    }

    /// A value outside of an enumeration.
    pub fn not_supported<'a>(
        path: impl fmt::Display,
        value: &Value,
        supported: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let supported: Vec<_> = supported.into_iter().map(render::quote).collect();
        let detail = if supported.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", supported.join(", "))
        };
        Self::with_value(FieldReason::NotSupported, path, value, detail)
    }

    /// A reference to something that does not exist.
    pub fn not_found(path: impl fmt::Display, value: &Value) -> Self {
        Self::with_value(FieldReason::NotFound, path, value, "")
    }

    /// A string longer than `max`.
    pub fn too_long(path: impl fmt::Display, max: u64) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::without_value(
            FieldReason::TooLong,
            path,
            format_args!("may not be more than {max} {unit}"),
        )
    }

    /// A list or map with more than `max` entries.
    pub fn too_many(path: impl fmt::Display, actual: usize, max: u64) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self {
            path: path.to_string(),
            reason: FieldReason::TooMany,
            message: format!("Too many: {actual}: must have at most {max} {unit}"),
        }
    }

    /// The path as Kubernetes prints it: `<nil>` when the whole object is meant.
    pub fn field(&self) -> &str {
        if self.path.is_empty() {
            "<nil>"
        } else {
            &self.path
        }
    }

    /// Moves the error below `prefix`.
    pub fn prefix(&mut self, prefix: &str) {
        let separator = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{prefix}{separator}{}", self.path);
    }

    fn with_value(
        reason: FieldReason,
        path: impl fmt::Display,
        value: &Value,
        detail: impl fmt::Display,
    ) -> Self {
        let shown = render::value(value);
        Self::build(reason, path, format!("{}: {shown}", reason.label()), detail)
    }

    fn without_value(
        reason: FieldReason,
        path: impl fmt::Display,
        detail: impl fmt::Display,
    ) -> Self {
        Self::build(reason, path, reason.label().to_owned(), detail)
    }

    fn build(
        reason: FieldReason,
        path: impl fmt::Display,
        mut message: String,
        detail: impl fmt::Display,
    ) -> Self {
        let detail = detail.to_string();
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(&detail);
        }
        Self {
            path: path.to_string(),
            reason,
            message,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field(), self.message)
    }
}

/// The reason of a [`FieldError`], with the names `metav1.StatusCause` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueRequired`
    Required,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `InternalError`
    Internal,
}

impl FieldReason {
    /// The name in a `StatusCause`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    /// The words a message starts with.
    const fn label(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

fn join(errors: &[FieldError]) -> String {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_the_published_ones() {
        let cases = [
            (
                FieldError::invalid("spec.replicas", &json!(-1), "must not be negative"),
                "spec.replicas: Invalid value: -1: must not be negative",
            ),
            (FieldError::required("spec", ""), "spec: Required value"),
            (
                FieldError::not_supported("spec.mode", &json!("x"), ["a", "b"]),
                r#"spec.mode: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (
                FieldError::too_long("a", 5),
                "a: Too long: may not be more than 5 bytes",
            ),
            (
                FieldError::too_many("a", 3, 1),
                "a: Too many: 3: must have at most 1 item",
            ),
            (
                FieldError::duplicate("a[1]", &json!({"name": "x"})),
                r#"a[1]: Duplicate value: {"name":"x"}"#,
            ),
            (
                FieldError::invalid_omitted("", "nothing fits"),
                "<nil>: Invalid value: nothing fits",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn findings_move_below_a_prefix() {
        let error = SchemaError {
            errors: vec![
                FieldError::required("type", ""),
                FieldError::required("[x]", ""),
                FieldError::required("", ""),
            ],
        };
        let paths: Vec<_> = error
            .prefixed("spec.schema")
            .errors
            .into_iter()
            .map(|e| e.path)
            .collect();
        assert_eq!(paths, ["spec.schema.type", "spec.schema[x]", "spec.schema"]);
    }
}
