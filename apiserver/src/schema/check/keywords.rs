//! Keyword rules: what is not supported, what excludes what, list and map types, and the form of
//! `x-kubernetes-validations`.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use serde_json::Value;

use super::super::error::FieldError;
use super::super::field_path;
use super::super::path::Path;
use super::META_FIELDS;
use super::structure::{additional, is, items, type_of};

/// What is allowed depends on what is around a schema.
#[derive(Clone, Copy, Default)]
struct Context<'a> {
    /// Why defaults are forbidden here.
    no_defaults: Option<&'a str>,
    /// Whether this describes the metadata of an object.
    in_metadata: bool,
    is_root: bool,
}

pub(super) fn check(schema: &JSONSchemaProps, errors: &mut Vec<FieldError>) {
    let context = Context {
        is_root: true,
        ..Context::default()
    };
    level(schema, context, &Path::ROOT, errors);
}

fn level(
    schema: &JSONSchemaProps,
    context: Context<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    unsupported(schema, context, path, errors);
    exclusive(schema, path, errors);
    map_type(schema, path, errors);
    list_type(schema, path, errors);
    map_keys(schema, path, errors);
    for (i, rule) in schema.x_kubernetes_validations.iter().flatten().enumerate() {
        let path = path.field("x-kubernetes-validations");
        rule_form(schema, rule, &path.index(i), errors);
    }
    descend(schema, context, path, errors);
}

fn descend(
    schema: &JSONSchemaProps,
    context: Context<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let inner = Context {
        is_root: false,
        ..context
    };
    if let Some(value) = additional(schema) {
        let context = if context.in_metadata {
            Context {
                no_defaults: Some("inside additionalProperties applying to object metadata"),
                ..inner
            }
        } else {
            inner
        };
        level(value, context, &path.field("additionalProperties"), errors);
    }
    let properties = path.field("properties");
    let is_object = context.is_root || is(schema.x_kubernetes_embedded_resource);
    for (name, property) in schema.properties.iter().flatten() {
        let reason = format!("in top-level {name}");
        let mut inner = inner;
        if is_object && META_FIELDS.contains(&name.as_str()) {
            inner.in_metadata = true;
            if context.is_root {
                inner.no_defaults = Some(&reason);
            }
        }
        level(property, inner, &properties.key(name), errors);
    }
    if let Some(items) = items(schema) {
        level(items, inner, &path.field("items"), errors);
    }
    for (name, alternatives) in [
        ("allOf", &schema.all_of),
        ("oneOf", &schema.one_of),
        ("anyOf", &schema.any_of),
    ] {
        let path = path.field(name);
        for (i, alternative) in alternatives.iter().flatten().enumerate() {
            level(alternative, inner, &path.index(i), errors);
        }
    }
    if let Some(not) = &schema.not {
        level(not, inner, &path.field("not"), errors);
    }
}

/// Keywords of JSON Schema that Kubernetes does not support.
fn unsupported(
    schema: &JSONSchemaProps,
    context: Context<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let kind = type_of(schema);
    if kind == "null" {
        errors.push(FieldError::forbidden(
            path.field("type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            path.field("type"),
            &text(kind),
            TYPES,
        ));
    }
    if let Some(reason) = context.no_defaults
        && schema.default.as_ref().is_some_and(|d| !d.0.is_null())
    {
        errors.push(FieldError::forbidden(
            path.field("default"),
            format_args!("must not be set {reason}"),
        ));
    }
    let some_entries = |present: bool, name: &'static str| present.then_some(name);
    let found = [
        some_entries(schema.id.as_deref().is_some_and(|id| !id.is_empty()), "id"),
        some_entries(schema.additional_items.is_some(), "additionalItems"),
        some_entries(
            schema
                .pattern_properties
                .as_ref()
                .is_some_and(|p| !p.is_empty()),
            "patternProperties",
        ),
        some_entries(
            schema.definitions.as_ref().is_some_and(|d| !d.is_empty()),
            "definitions",
        ),
        some_entries(schema.dependencies.is_some(), "dependencies"),
        some_entries(schema.ref_path.is_some(), "$ref"),
    ];
    for name in found.into_iter().flatten() {
        errors.push(FieldError::forbidden(
            path.field(name),
            format_args!("{name} is not supported"),
        ));
    }
    if matches!(schema.items, Some(JSONSchemaPropsOrArray::Schemas(_))) {
        errors.push(FieldError::forbidden(
            path.field("items"),
            "items must be a schema object and not an array",
        ));
    }
    if context.in_metadata && is(schema.x_kubernetes_embedded_resource) {
        errors.push(FieldError::forbidden(
            path.field("x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        ));
    }
    if is(schema.unique_items) {
        errors.push(FieldError::forbidden(
            path.field("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        errors.push(FieldError::invalid(
            path.field("x-kubernetes-preserve-unknown-fields"),
            &Value::Bool(false),
            "must be true or undefined",
        ));
    }
}

/// A schema describes a struct or a map, not both.
fn exclusive(schema: &JSONSchemaProps, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let has_properties = schema.properties.as_ref().is_some_and(|p| !p.is_empty());
    let restricts = match &schema.additional_properties {
        None | Some(JSONSchemaPropsOrBool::Bool(true)) => false,
        Some(JSONSchemaPropsOrBool::Bool(false) | JSONSchemaPropsOrBool::Schema(_)) => true,
    };
    if has_properties && restricts {
        errors.push(FieldError::forbidden(
            path.field("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
}

fn map_type(schema: &JSONSchemaProps, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(map_type) = schema.x_kubernetes_map_type.as_deref() else {
        return;
    };
    wrong_type(schema, "object", "x-kubernetes-map-type", path, errors);
    if !matches!(map_type, "atomic" | "granular") {
        errors.push(FieldError::not_supported(
            path.field("x-kubernetes-map-type"),
            &text(map_type),
            ["atomic", "granular"],
        ));
    }
}

/// Reports when the type is not the one an extension needs.
fn wrong_type(
    schema: &JSONSchemaProps,
    expected: &str,
    extension: &str,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) -> bool {
    let kind = type_of(schema);
    if kind == expected {
        return false;
    }
    let detail = format!("must be {expected} if {extension} is specified");
    errors.push(if kind.is_empty() {
        FieldError::required(path.field("type"), detail)
    } else {
        FieldError::invalid(path.field("type"), &text(kind), detail)
    });
    true
}

fn list_type(schema: &JSONSchemaProps, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(list_type) = schema.x_kubernetes_list_type.as_deref() else {
        return;
    };
    let wrong = wrong_type(schema, "array", "x-kubernetes-list-type", path, errors);
    if !wrong
        && list_type == "set"
        && let Some(item) = items(schema)
    {
        let (extension, actual) = match type_of(item) {
            "array" => (
                "x-kubernetes-list-type",
                Some(item.x_kubernetes_list_type.as_deref().unwrap_or("atomic")),
            ),
            "object" => (
                "x-kubernetes-map-type",
                item.x_kubernetes_map_type.as_deref(),
            ),
            _ => ("", Some("atomic")),
        };
        if actual != Some("atomic") {
            errors.push(FieldError::invalid(
                path.field("items").field(extension),
                &actual.map_or(Value::Null, text),
                "must be atomic as item of a list with x-kubernetes-list-type=set",
            ));
        }
    }
    if !matches!(list_type, "atomic" | "set" | "map") {
        errors.push(FieldError::not_supported(
            path.field("x-kubernetes-list-type"),
            &text(list_type),
            ["atomic", "set", "map"],
        ));
    }
    if matches!(list_type, "set" | "map") && items(schema).is_some_and(|item| is(item.nullable)) {
        errors.push(FieldError::forbidden(
            path.field("items").field("nullable"),
            format_args!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
        ));
    }
}

fn map_keys(schema: &JSONSchemaProps, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let keys = schema
        .x_kubernetes_list_map_keys
        .as_deref()
        .unwrap_or_default();
    let list_type = schema.x_kubernetes_list_type.as_deref();
    if list_type != Some("map") {
        if !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            let path = path.field("x-kubernetes-list-type");
            errors.push(match list_type {
                None => FieldError::required(path, detail),
                Some(other) => FieldError::invalid(path, &text(other), detail),
            });
        }
        return;
    }
    if keys.is_empty() {
        errors.push(FieldError::required(
            path.field("x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let items_path = path.field("items");
    if schema.items.is_none() {
        errors.push(FieldError::required(
            items_path,
            "must have a schema if x-kubernetes-list-type is map",
        ));
    }
    let Some(item) = items(schema) else {
        return;
    };
    if type_of(item) != "object" {
        errors.push(FieldError::invalid(
            items_path.field("type"),
            &text(type_of(item)),
            "must be object if parent array's x-kubernetes-list-type is map",
        ));
        return;
    }
    let keys_path = path.field("x-kubernetes-list-map-keys");
    let shown = Value::Array(keys.iter().map(|key| text(key)).collect());
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            errors.push(FieldError::invalid(
                keys_path,
                &shown,
                "must not contain duplicate entries",
            ));
        }
        let property = item.properties.as_ref().and_then(|p| p.get(key));
        let Some(property) = property else {
            errors.push(FieldError::invalid(
                keys_path,
                &shown,
                "entries must all be names of item properties",
            ));
            continue;
        };
        key_property(item, key, property, &items_path, errors);
    }
}

/// A key must be a scalar that is always there.
fn key_property(
    item: &JSONSchemaProps,
    key: &str,
    property: &JSONSchemaProps,
    items_path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let path = items_path.field("properties");
    let path = path.key(key);
    if matches!(type_of(property), "array" | "object") {
        errors.push(FieldError::invalid(
            path.field("type"),
            &text(type_of(property)),
            "must be a scalar type if parent array's x-kubernetes-list-type is map",
        ));
    }
    let required = item.required.iter().flatten().any(|name| name == key);
    if !required && property.default.as_ref().is_none_or(|d| d.0.is_null()) {
        errors.push(FieldError::required(
            path.field("default"),
            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ));
    }
    if is(property.nullable) {
        errors.push(FieldError::forbidden(
            path.field("nullable"),
            "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
        ));
    }
}

/// The form of a rule; whether its expressions compile is checked later.
fn rule_form(
    schema: &JSONSchemaProps,
    rule: &ValidationRule,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    const REASONS: [&str; 4] = [
        "FieldValueDuplicate",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueRequired",
    ];
    let expression = rule.rule.trim();
    let message = rule.message.as_deref().unwrap_or_default();
    if expression.is_empty() {
        errors.push(FieldError::required(
            path.field("rule"),
            "rule is not specified",
        ));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(
            path.field("message"),
            &text(message),
            "must be non-empty if specified",
        ));
    } else if message.trim().contains('\n') {
        errors.push(FieldError::invalid(
            path.field("message"),
            &text(message),
            "must not contain line breaks",
        ));
    } else if expression.contains('\n') && message.is_empty() {
        errors.push(FieldError::required(
            path.field("message"),
            "message must be specified if rule contains line breaks",
        ));
    }
    let message_expression = rule.message_expression.as_deref().unwrap_or_default();
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        errors.push(FieldError::required(
            path.field("messageExpression"),
            "messageExpression must be non-empty if specified",
        ));
    }
    if let Some(reason) = rule.reason.as_deref()
        && !REASONS.contains(&reason)
    {
        errors.push(FieldError::not_supported(
            path.field("reason"),
            &text(reason),
            REASONS,
        ));
    }
    let field = rule.field_path.as_deref().unwrap_or_default();
    if field.is_empty() {
        return;
    }
    let problem = if field.trim().is_empty() {
        Some("must be non-empty if specified")
    } else if field.contains('\n') {
        Some("must not contain line breaks")
    } else if field_path::parse(field).is_none_or(|steps| !leads_somewhere(schema, &steps)) {
        Some("must be a valid path")
    } else {
        None
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid(
            path.field("fieldPath"),
            &text(field),
            problem,
        ));
    }
}

/// Whether the schema declares the field.
fn leads_somewhere(schema: &JSONSchemaProps, steps: &[String]) -> bool {
    let mut at = schema;
    for step in steps {
        let next = match &at.properties {
            Some(properties) if !properties.is_empty() => properties.get(step),
            _ => additional(at),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}
