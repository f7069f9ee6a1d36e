use serde_json::{Value, json};

use super::super::Structural;

/// The findings for a schema that has `spec` as its only property.
fn findings(spec: &Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    root_findings(&schema)
}

fn root_findings(schema: &Value) -> Vec<String> {
    match Structural::parse(schema) {
        Ok(_) => Vec::new(),
        Err(error) => error.errors.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn refused(spec: &Value, expected: &[&str]) {
    assert_eq!(findings(spec), expected, "{spec}");
}

#[test]
fn every_field_needs_a_type() {
    refused(
        &json!({}),
        &["properties[spec].type: Required value: must not be empty for specified object fields"],
    );
    refused(
        &json!({"type": "array", "items": {}}),
        &[
            "properties[spec].items.type: Required value: must not be empty for specified array items",
        ],
    );
    refused(
        &json!({"type": "array"}),
        &["properties[spec].items: Required value: must be specified"],
    );
    refused(
        &json!({"type": "text"}),
        &[
            r#"properties[spec].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ],
    );
    assert_eq!(
        root_findings(&json!({"type": "string"})),
        [r#"type: Invalid value: "string": must be object at the root"#]
    );
    assert_eq!(
        root_findings(&json!({"type": "object", "nullable": true})),
        ["nullable: Forbidden: nullable cannot be true at the root"]
    );
    assert_eq!(
        root_findings(&json!({"type": "object", "properties": []})).len(),
        1
    );
}

#[test]
fn unsupported_keywords_are_named() {
    refused(
        &json!({"type": "object", "$ref": "#/x", "patternProperties": {"a": {"type": "string"}},
                "definitions": {"a": {"type": "string"}}, "uniqueItems": true}),
        &[
            "properties[spec].$ref: Forbidden: $ref is not supported",
            "properties[spec].definitions: Forbidden: definitions is not supported",
            "properties[spec].patternProperties: Forbidden: patternProperties is not supported",
            "properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ],
    );
    refused(
        &json!({"type": "object", "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"}}),
        &[
            "properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ],
    );
    refused(
        &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
        &[
            "properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ],
    );
    refused(
        &json!({"type": "string", "pattern": "("}),
        &[
            "properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: unclosed group",
        ],
    );
}

#[test]
fn value_validations_declare_nothing() {
    refused(
        &json!({"type": "object", "properties": {"a": {"type": "string"}},
        "anyOf": [
            {"properties": {"b": {"minLength": 1}}},
            {"type": "object", "description": "d", "properties": {"a": {"default": "x", "nullable": true}}}
        ]}),
        &[
            "properties[spec].anyOf[1].description: Forbidden: must be empty to be structural",
            "properties[spec].anyOf[1].properties[a].default: Forbidden: must be undefined to be structural",
            "properties[spec].anyOf[1].properties[a].nullable: Forbidden: must be false to be structural",
            "properties[spec].anyOf[1].type: Forbidden: must be empty to be structural",
        ],
    );
    // Completeness is checked against the root only, as the published code does it.
    assert_eq!(
        root_findings(
            &json!({"type": "object", "oneOf": [{"properties": {"b": {"minLength": 1}}}]})
        ),
        ["properties[b]: Required value: because it is defined in oneOf[0].properties[b]"]
    );
    assert!(
        findings(&json!({"x-kubernetes-int-or-string": true,
                         "anyOf": [{"type": "integer"}, {"type": "string"}]}))
        .is_empty()
    );
    assert!(
        findings(&json!({"x-kubernetes-int-or-string": true,
                         "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"maximum": 3}]}))
        .is_empty()
    );
    refused(
        &json!({"type": "integer", "anyOf": [{"type": "integer"}]}),
        &["properties[spec].anyOf[0].type: Forbidden: must be empty to be structural"],
    );
}

#[test]
fn list_and_map_types() {
    refused(
        &json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
        &[
            "properties[spec].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ],
    );
    refused(
        &json!({"type": "object", "x-kubernetes-list-type": "bag", "x-kubernetes-map-type": "x"}),
        &[
            r#"properties[spec].type: Invalid value: "object": must be array if x-kubernetes-list-type is specified"#,
            r#"properties[spec].x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#,
            r#"properties[spec].x-kubernetes-map-type: Unsupported value: "x": supported values: "atomic", "granular""#,
        ],
    );
    refused(
        &json!({"type": "array", "items": {"type": "object", "properties": {
                    "a": {"type": "string"}, "b": {"type": "object"}, "c": {"type": "string", "nullable": true, "default": "x"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b", "c", "d", "a"]}),
        &[
            "properties[spec].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            "properties[spec].items.properties[b].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            r#"properties[spec].items.properties[b].type: Invalid value: "object": must be a scalar type if parent array's x-kubernetes-list-type is map"#,
            "properties[spec].items.properties[c].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            r#"properties[spec].x-kubernetes-list-map-keys: Invalid value: ["a","b","c","d","a"]: entries must all be names of item properties"#,
            r#"properties[spec].x-kubernetes-list-map-keys: Invalid value: ["a","b","c","d","a"]: must not contain duplicate entries"#,
        ],
    );
    refused(
        &json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["a"]}),
        &[
            "properties[spec].x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
        ],
    );
}

#[test]
fn embedded_objects_and_metadata() {
    refused(
        &json!({"type": "object", "x-kubernetes-embedded-resource": true}),
        &[
            "properties[spec].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ],
    );
    refused(
        &json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[
            "properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ],
    );
    assert_eq!(
        root_findings(&json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"labels": {"type": "object"}}},
            "kind": {"type": "integer"},
            "apiVersion": {"type": "string", "default": "x"}
        }})),
        [
            "properties[apiVersion].default: Forbidden: must not be set in top-level apiVersion",
            r#"properties[kind].type: Invalid value: "integer": must be string"#,
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ]
    );
}

#[test]
fn defaults_must_be_valid_and_known() {
    refused(
        &json!({"type": "object", "default": {"a": 1, "b": 2}, "properties": {"a": {"type": "string"}}}),
        &[
            r#"properties[spec].default: Invalid value: {"a":1,"b":2}: must not have unknown fields"#,
            r#"properties[spec].default.a: Invalid value: "integer": a in body must be of type string: "integer""#,
        ],
    );
    assert!(findings(&json!({"type": "integer", "default": 3, "minimum": 1})).is_empty());
    assert!(findings(&json!({"type": "integer", "default": null})).is_empty());
}

#[test]
fn rules_have_a_form() {
    refused(
        &json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}},
        "x-kubernetes-validations": [
            {"rule": " "},
            {"rule": "true", "message": " "},
            {"rule": "true", "message": "a\nb"},
            {"rule": "true &&\ntrue"},
            {"rule": "true", "reason": "Nope"},
            {"rule": "true", "fieldPath": ".b"},
            {"rule": "true", "fieldPath": ".a['x.y']"},
            {"rule": "true", "messageExpression": "  "}
        ]}),
        &[
            "properties[spec].x-kubernetes-validations[0].rule: Required value: rule is not specified",
            r#"properties[spec].x-kubernetes-validations[1].message: Invalid value: " ": must be non-empty if specified"#,
            r#"properties[spec].x-kubernetes-validations[2].message: Invalid value: "a\nb": must not contain line breaks"#,
            "properties[spec].x-kubernetes-validations[3].message: Required value: message must be specified if rule contains line breaks",
            r#"properties[spec].x-kubernetes-validations[4].reason: Unsupported value: "Nope": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
            r#"properties[spec].x-kubernetes-validations[5].fieldPath: Invalid value: ".b": must be a valid path"#,
            "properties[spec].x-kubernetes-validations[7].messageExpression: Required value: messageExpression must be non-empty if specified",
        ],
    );
}
