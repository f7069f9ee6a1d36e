//! The schema's part of a write, in its fixed order: unknown fields, prune, default; later
//! validate and CEL.

use serde_json::Value;

use super::{FieldValidation, Target, WriteOptions, scale};
use crate::registry::{Origin, builtin};
use crate::schema::{
    FieldError, apply_defaults, blocks_rules, normalize_numbers, prune, unknown_fields,
    unknown_fields_in_order, validate,
};
use crate::status::ApiError;
use crate::wire::typed::{self, TypeError};

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
    let schema = &target.version.schema;
    let mut problems = match target.descriptor.origin {
        Origin::BuiltIn => unknown_fields_in_order(schema, object),
        Origin::Custom { .. } => unknown_fields(schema, object),
    };
    problems.extend(options.decoding.iter().cloned());
    if problems.is_empty() {
        return Strictness::Clean;
    }
    match options.validation {
        FieldValidation::Strict => Strictness::Refused(problems.join(", ")),
        FieldValidation::Warn | FieldValidation::Ignore => Strictness::Warnings(problems),
    }
}

/// Brings an object into the form of its type, as far as it has one.
pub(super) fn conform(target: &Target, object: &mut Value) -> Result<(), TypeError> {
    let descriptor = &target.descriptor;
    match descriptor.origin {
        Origin::BuiltIn => {
            let version = &target.version.name;
            typed::conform(&descriptor.group, version, &descriptor.kind, object)
        }
        Origin::Custom { .. } => typed::conform_metadata(object),
    }
}

/// Brings an object into the form it is stored in: typed as its kind is, without what the schema
/// does not know, and with defaults.
pub(super) fn normalise(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let descriptor = &target.descriptor;
    conform(target, object).map_err(|error| {
        let (kind, version) = (target.kind(), &target.version.name);
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"
        ))
    })?;
    prune(&target.version.schema, object);
    apply_defaults(&target.version.schema, object);
    if descriptor.origin == Origin::BuiltIn {
        builtin::defaults::apply(
            &descriptor.group,
            &target.version.name,
            &descriptor.kind,
            object,
        );
    }
    normalize_numbers(object);
    Ok(())
}

/// Texts that a built-in kind requires and the object leaves empty, unless they were empty before.
fn empty_texts(target: &Target, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let descriptor = &target.descriptor;
    // Definitions have a validation of their own, which words this in more detail.
    if descriptor.group == "apiextensions.k8s.io" {
        return Vec::new();
    }
    let find = |object: &Value| {
        let (group, version) = (&descriptor.group, &target.version.name);
        typed::empty_required(group, version, &descriptor.kind, object)
    };
    let before = old.map(find).unwrap_or_default();
    find(new)
        .into_iter()
        .filter(|path| !before.contains(path))
        .map(|path| FieldError::required(path, ""))
        .collect()
}

/// Everything the schema and its rules have against an object.
pub(super) fn violations(target: &Target, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    // A built-in object has passed its type; what else it must be is not for a schema to say.
    if target.descriptor.origin == Origin::BuiltIn {
        return empty_texts(target, new, old);
    }
    let mut errors = validate(&target.version.schema, new, old);
    // The rules of metadata say it in the words clients know.
    errors.retain(|error| !error.path.starts_with("metadata.ownerReferences["));
    errors.extend(scale::violations(&target.version, new));
    match blocks_rules(&errors) {
        Some(_) if target.version.rules.is_empty() => {}
        Some(instead) => errors.push(instead),
        None => errors.extend(target.version.rules.check(new, old)),
    }
    errors
}
