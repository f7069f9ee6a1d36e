//! Structural rules: a type for every field, and value validations that only refine what the
//! structure outside of them declares.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::super::error::FieldError;
use super::super::path::Path;
use super::super::pattern::Pattern;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

pub(super) fn check(schema: &JSONSchemaProps, errors: &mut Vec<FieldError>) {
    invariants(schema, Level::Root, &Path::ROOT, errors);
    completeness(schema, schema, &Path::ROOT, &Path::ROOT, errors);
}

/// The schema of items, when there is exactly one.
pub(super) fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

/// The schema of map entries.
pub(super) fn additional(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(schema) => Some(schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

/// The declared type, empty when there is none.
pub(super) fn type_of(schema: &JSONSchemaProps) -> &str {
    schema.type_.as_deref().unwrap_or_default()
}

pub(super) fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// Checks one level of the structure and what is below it.
fn invariants(
    schema: &JSONSchemaProps,
    level: Level,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let kind = type_of(schema);
    if kind == "array" && schema.items.is_none() {
        errors.push(FieldError::required(
            path.field("items"),
            "must be specified",
        ));
    }
    if let Some(items) = items(schema) {
        invariants(items, Level::Item, &path.field("items"), errors);
    }
    let properties = path.field("properties");
    for (name, property) in schema.properties.iter().flatten() {
        invariants(property, Level::Field, &properties.key(name), errors);
    }
    if let Some(value) = &schema.additional_properties {
        let path = path.field("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(path, "must not be used at the root"));
        }
        if let JSONSchemaPropsOrBool::Schema(value) = value {
            invariants(value, Level::Field, &path, errors);
        }
    }
    extensions(schema, path, errors);
    let first_all_of = schema.all_of.as_deref().and_then(<[_]>::first);
    value_validation(
        schema,
        Spelled {
            any_of: int_or_string(schema),
            first_all_of: first_all_of.is_some_and(int_or_string),
        },
        level,
        path,
        errors,
    );
    types(schema, level, path, errors);
    object_fields(schema, level, path, errors);
}

/// The type must be there, and must fit the extensions.
fn types(schema: &JSONSchemaProps, level: Level, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kind = type_of(schema);
    let embedded = is(schema.x_kubernetes_embedded_resource);
    let path_type = path.field("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(path_type, detail)
        } else {
            FieldError::invalid(path_type, &text(kind), detail)
        });
    } else if kind.is_empty()
        && !is(schema.x_kubernetes_int_or_string)
        && !is(schema.x_kubernetes_preserve_unknown_fields)
    {
        errors.push(FieldError::required(
            path_type,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if embedded && schema.additional_properties.is_some() {
        errors.push(FieldError::forbidden(
            path.field("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(
            path_type,
            &text(kind),
            "must be object at the root",
        ));
    }
    if embedded
        && !is(schema.x_kubernetes_preserve_unknown_fields)
        && schema
            .properties
            .as_ref()
            .is_none_or(std::collections::BTreeMap::is_empty)
    {
        errors.push(FieldError::required(
            path.field("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// `apiVersion`, `kind` and `metadata` mean the same in every object.
fn object_fields(
    schema: &JSONSchemaProps,
    level: Level,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    if level != Level::Root && !is(schema.x_kubernetes_embedded_resource) {
        return;
    }
    let Some(properties) = &schema.properties else {
        return;
    };
    let path = path.field("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(property) = properties.get(name)
            && type_of(property) != "string"
        {
            errors.push(FieldError::invalid(
                path.key(name).field("type"),
                &text(type_of(property)),
                "must be string",
            ));
        }
    }
    let Some(metadata) = properties.get("metadata") else {
        return;
    };
    let path = path.key("metadata");
    if type_of(metadata) != "object" {
        errors.push(FieldError::invalid(
            path.field("type"),
            &text(type_of(metadata)),
            "must be object",
        ));
    }
    if level == Level::Root && !restricts_names_only(metadata) {
        errors.push(FieldError::forbidden(
            path,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
}

/// Whether a schema of `metadata` says nothing but how names look.
fn restricts_names_only(metadata: &JSONSchemaProps) -> bool {
    let names = metadata
        .properties
        .iter()
        .flatten()
        .all(|(name, _)| name == "name" || name == "generateName");
    let rest = JSONSchemaProps {
        type_: None,
        description: None,
        properties: None,
        default: None,
        ..metadata.clone()
    };
    names && rest == JSONSchemaProps::default()
}

fn extensions(schema: &JSONSchemaProps, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !is(schema.x_kubernetes_int_or_string) {
        return;
    }
    let detail = "must be false if x-kubernetes-int-or-string is true";
    for (name, flag) in [
        (
            "x-kubernetes-preserve-unknown-fields",
            schema.x_kubernetes_preserve_unknown_fields,
        ),
        (
            "x-kubernetes-embedded-resource",
            schema.x_kubernetes_embedded_resource,
        ),
    ] {
        if is(flag) {
            errors.push(FieldError::invalid(
                path.field(name),
                &Value::Bool(true),
                detail,
            ));
        }
    }
}

/// Where types inside of value validations are allowed, because they spell "integer or string".
#[derive(Clone, Copy, Default)]
struct Spelled {
    any_of: bool,
    first_all_of: bool,
}

/// Whether `anyOf` is exactly an integer and a string.
fn int_or_string(schema: &JSONSchemaProps) -> bool {
    let alternative = |kind: &str| JSONSchemaProps {
        type_: Some(kind.to_owned()),
        ..JSONSchemaProps::default()
    };
    schema
        .any_of
        .as_deref()
        .is_some_and(|any_of| any_of == [alternative("integer"), alternative("string")])
}

/// Checks the value validations of a level.
fn value_validation(
    schema: &JSONSchemaProps,
    spelled: Spelled,
    level: Level,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    for (name, alternatives) in junctors(schema) {
        if name == "anyOf" && spelled.any_of {
            continue;
        }
        let path = path.field(name);
        for (i, alternative) in alternatives.iter().enumerate() {
            let inner = Spelled {
                any_of: name == "allOf" && i == 0 && spelled.first_all_of,
                first_all_of: false,
            };
            nested(alternative, inner, level, &path.index(i), errors);
        }
    }
    if let Some(not) = &schema.not {
        nested(not, Spelled::default(), level, &path.field("not"), errors);
    }
    if let Some(pattern) = schema.pattern.as_deref().filter(|p| !p.is_empty())
        && let Err(error) = Pattern::parse(pattern)
    {
        errors.push(FieldError::invalid(
            path.field("pattern"),
            &text(pattern),
            format_args!("must be a valid regular expression, but isn't: {error}"),
        ));
    }
}

/// The lists of alternatives with their keywords.
fn junctors(schema: &JSONSchemaProps) -> impl Iterator<Item = (&'static str, &[JSONSchemaProps])> {
    [
        ("anyOf", &schema.any_of),
        ("allOf", &schema.all_of),
        ("oneOf", &schema.one_of),
    ]
    .into_iter()
    .filter_map(|(name, list)| list.as_deref().map(|list| (name, list)))
}

/// Checks a schema inside of `allOf`, `anyOf`, `oneOf` or `not`: it must not declare structure.
fn nested(
    schema: &JSONSchemaProps,
    spelled: Spelled,
    level: Level,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    value_validation(schema, spelled, level, path, errors);
    if let Some(items) = items(schema) {
        nested(
            items,
            Spelled::default(),
            level,
            &path.field("items"),
            errors,
        );
    }
    let properties = path.field("properties");
    for (name, property) in schema.properties.iter().flatten() {
        nested(
            property,
            Spelled::default(),
            Level::Field,
            &properties.key(name),
            errors,
        );
    }
    let filled = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let empty = "must be empty to be structural";
    let undefined = "must be undefined to be structural";
    let unset = "must be false to be structural";
    let forbidden = [
        (filled(&schema.type_), "type", empty),
        (
            schema.additional_properties.is_some(),
            "additionalProperties",
            undefined,
        ),
        (
            schema.default.as_ref().is_some_and(|d| !d.0.is_null()),
            "default",
            undefined,
        ),
        (filled(&schema.title), "title", empty),
        (filled(&schema.description), "description", empty),
        (is(schema.nullable), "nullable", unset),
        (
            is(schema.x_kubernetes_preserve_unknown_fields),
            "x-kubernetes-preserve-unknown-fields",
            unset,
        ),
        (
            is(schema.x_kubernetes_embedded_resource),
            "x-kubernetes-embedded-resource",
            unset,
        ),
        (
            is(schema.x_kubernetes_int_or_string),
            "x-kubernetes-int-or-string",
            unset,
        ),
        (
            schema
                .x_kubernetes_list_map_keys
                .as_ref()
                .is_some_and(|k| !k.is_empty()),
            "x-kubernetes-list-map-keys",
            empty,
        ),
        (
            schema.x_kubernetes_list_type.is_some(),
            "x-kubernetes-list-type",
            undefined,
        ),
        (
            schema.x_kubernetes_map_type.is_some(),
            "x-kubernetes-map-type",
            undefined,
        ),
        (
            schema
                .x_kubernetes_validations
                .as_ref()
                .is_some_and(|v| !v.is_empty()),
            "x-kubernetes-validations",
            empty,
        ),
    ];
    for (found, name, detail) in forbidden {
        if found {
            errors.push(FieldError::forbidden(path.field(name), detail));
        }
    }
    if schema
        .properties
        .iter()
        .flatten()
        .any(|(name, _)| name == "metadata")
    {
        errors.push(FieldError::forbidden(
            properties.key("metadata"),
            "must not be specified in a nested context",
        ));
    }
}

/// Every field that value validations mention must be declared outside of them.
fn completeness(
    validation: &JSONSchemaProps,
    structure: &JSONSchemaProps,
    structure_path: &Path<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut check = |nested: &JSONSchemaProps, path: &Path<'_>| {
        nested_completeness(nested, Some(structure), structure_path, path, errors);
    };
    if let Some(not) = &validation.not {
        check(not, &path.field("not"));
    }
    for (name, alternatives) in junctors(validation) {
        let path = path.field(name);
        for (i, alternative) in alternatives.iter().enumerate() {
            check(alternative, &path.index(i));
        }
    }
}

fn nested_completeness(
    nested: &JSONSchemaProps,
    structure: Option<&JSONSchemaProps>,
    structure_path: &Path<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        errors.push(FieldError::required(
            structure_path,
            format_args!("because it is defined in {path}"),
        ));
        return;
    };
    completeness(nested, structure, structure_path, path, errors);
    if let Some(inner) = items(nested) {
        nested_completeness(
            inner,
            items(structure),
            &structure_path.field("items"),
            &path.field("items"),
            errors,
        );
    }
    let structure_path = structure_path.field("properties");
    let path = path.field("properties");
    for (name, property) in nested.properties.iter().flatten() {
        let declared = structure.properties.as_ref().and_then(|p| p.get(name));
        nested_completeness(
            property,
            declared,
            &structure_path.key(name),
            &path.key(name),
            errors,
        );
    }
}
