//! The schema's part of a write, in its fixed order: unknown fields, prune, default; later
//! validate and CEL.

use serde_json::Value;

use super::{FieldValidation, Target, WriteOptions};
use crate::schema::{FieldError, apply_defaults, prune, unknown_fields, validate};

/// What the client's field-validation choice makes of unknown and duplicate fields.
#[derive(Debug)]
pub(super) enum Strictness {
    /// Nothing to say.
    Clean,
    /// Texts for `Warning` headers.
    Warnings(Vec<String>),
    /// The request is refused with this list of problems.
    Refused(String),
}

/// Judges a decoded object (before pruning) by the client's choice.
pub(super) fn strictness(target: &Target, options: &WriteOptions, object: &Value) -> Strictness {
    if options.validation == FieldValidation::Ignore {
        return Strictness::Clean;
    }
    let mut problems: Vec<String> = unknown_fields(&target.version.schema, object)
        .into_iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    problems.extend(options.decoding.iter().cloned());
    if problems.is_empty() {
        return Strictness::Clean;
    }
    match options.validation {
        FieldValidation::Strict => Strictness::Refused(problems.join(", ")),
        FieldValidation::Warn | FieldValidation::Ignore => Strictness::Warnings(problems),
    }
}

/// Removes what the schema does not know and fills in defaults.
pub(super) fn normalise(target: &Target, object: &mut Value) {
    prune(&target.version.schema, object);
    apply_defaults(&target.version.schema, object);
}

/// Everything the schema and its rules have against an object.
pub(super) fn violations(target: &Target, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate(&target.version.schema, new, old);
    // Rules are written against values that fit the schema; running them on others only adds noise.
    if errors.is_empty() {
        errors = target.version.rules.check(new, old);
    }
    errors
}
