//! The rules for schemas of custom resources: what Kubernetes refuses in a CRD, with its words.
//!
//! [`schema`] looks at the document before anything is built from it, [`defaults`] at the default
//! values of the finished schema. Called by [`super::Structural::parse`] only. The rules are those
//! published for structural schemas of `apiextensions.k8s.io/v1`.

mod keywords;
mod structure;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde::Deserialize;
use serde_json::Value;

use super::error::FieldError;
use super::path::Path;
use super::prune;
use super::structural::Structural;
use super::validate;

/// The names of the fields of every object.
pub(super) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Checks a schema document.
pub(super) fn schema(document: &Value) -> Vec<FieldError> {
    let schema = match JSONSchemaProps::deserialize(document) {
        Ok(schema) => schema,
        Err(error) => {
            return vec![FieldError::invalid_omitted(
                "",
                format_args!("not a schema: {error}"),
            )];
        }
    };
    let mut errors = Vec::new();
    if schema.nullable == Some(true) {
        errors.push(FieldError::forbidden(
            "nullable",
            "nullable cannot be true at the root",
        ));
    }
    structure::check(&schema, &mut errors);
    keywords::check(&schema, &mut errors);
    errors
}

/// Checks that every default is valid and has no unknown fields.
pub(super) fn defaults(schema: &Structural) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_defaults(schema, &Path::ROOT, &mut errors);
    errors
}

fn check_defaults(schema: &Structural, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.default_value() {
        let path = path.field("default");
        let mut pruned = default.clone();
        prune::prune_value(schema, &mut pruned);
        if pruned != *default {
            errors.push(FieldError::invalid(
                path,
                default,
                "must not have unknown fields",
            ));
        }
        for mut error in validate::standalone(schema, default) {
            error.prefix(&path.to_string());
            errors.push(error);
        }
    }
    if let Some(items) = schema.items() {
        check_defaults(items, &path.field("items"), errors);
    }
    if let Some(additional) = schema.additional_properties() {
        check_defaults(additional, &path.field("additionalProperties"), errors);
    }
    let properties = path.field("properties");
    for (name, property) in schema.properties() {
        check_defaults(property, &properties.key(name), errors);
    }
}

#[cfg(test)]
mod tests;
