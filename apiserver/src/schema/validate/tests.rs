use serde_json::json;

use super::*;

fn errors(spec: &Value, value: &Value) -> Vec<String> {
    update_errors(spec, value, None)
}

fn update_errors(spec: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": spec}}));
    let schema = schema.unwrap();
    let object = |value: &Value| json!({"spec": value});
    validate(&schema, &object(value), old.map(object).as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn messages_are_the_published_ones() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("x"),
            vec![
                r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ],
        ),
        (
            json!({"type": "string"}),
            json!(null),
            vec![r#"spec: Invalid value: "null": spec in body must be of type string: "null""#],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1.5),
            vec![
                r#"spec: Invalid value: "float64": spec in body must be of type int32: "float64""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec"#,
            ],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            vec![
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec"#,
            ],
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            vec![
                r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("yesterday"),
            vec![
                r#"spec: Invalid value: "yesterday": spec in body must be of type date-time: "yesterday""#,
            ],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!(5),
            vec![
                r#"spec: Invalid value: "int64": spec in body must be of type date-time: "int64""#,
            ],
        ),
        (
            json!({"type": "integer", "minimum": 0}),
            json!(-1),
            vec!["spec: Invalid value: -1: spec in body should be greater than or equal to 0"],
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true, "multipleOf": 0.5}),
            json!(1.7),
            vec![
                "spec: Invalid value: 1.7: spec in body should be a multiple of 0.5",
                "spec: Invalid value: 1.7: spec in body should be less than 1.5",
            ],
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            vec![r#"spec: Unsupported value: "c": supported values: "a", "b""#],
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("héé"),
            vec!["spec: Too long: may not be more than 2 bytes"],
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("é"),
            vec![r#"spec: Invalid value: "é": spec in body should be at least 2 chars long"#],
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            vec!["spec: Invalid value: \"b\": spec in body should match '^a$'"],
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "integer", "maximum": 1}}),
            json!([1, 2]),
            vec![
                "spec[1]: Invalid value: 2: spec[1] in body should be less than or equal to 1",
                "spec: Too many: 2: must have at most 1 item",
            ],
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {"type": "integer"}}),
            json!([]),
            vec!["spec: Invalid value: 0: spec in body should have at least 1 items"],
        ),
        (
            json!({"type": "object", "minProperties": 2, "additionalProperties": {"type": "string"}}),
            json!({"a.b": 1}),
            vec![
                "spec: Invalid value: 1: spec in body should have at least 2 properties",
                r#"spec.a.b: Invalid value: "integer": spec.a.b in body must be of type string: "integer""#,
            ],
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            vec!["spec.a: Required value"],
        ),
    ];
    for (schema, value, expected) in cases {
        assert_eq!(errors(&schema, &value), expected, "{schema}");
    }
}

#[test]
fn good_values_pass() {
    let cases = [
        (json!({"type": "integer"}), json!(3.0)),
        (json!({"type": "number"}), json!(3)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            json!([{}]),
        ),
        (json!({"type": "integer", "enum": [1.0]}), json!(1)),
        (
            json!({"type": "integer", "multipleOf": 5, "minimum": 5}),
            json!(10),
        ),
        (json!({"type": "number", "multipleOf": 0.1}), json!(0.3)),
        (
            json!({"type": "string", "format": "unheard-of"}),
            json!("x"),
        ),
    ];
    for (schema, value) in cases {
        assert_eq!(errors(&schema, &value), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn alternatives() {
    let either = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]
    });
    assert_eq!(
        errors(&either, &json!({})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value"
        ]
    );
    assert_eq!(
        errors(&either, &json!({"a": 1, "b": 2})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]
    );
    assert!(errors(&either, &json!({"a": 1})).is_empty());

    let any = json!({"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 5}]});
    assert!(errors(&any, &json!(6)).is_empty());
    assert_eq!(
        errors(&any, &json!(3)),
        [
            r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
            "spec: Invalid value: 3: spec in body should be less than or equal to 1",
        ]
    );

    let all = json!({"type": "integer", "allOf": [{"maximum": 1}, {"minimum": -1}]});
    assert_eq!(
        errors(&all, &json!(3)),
        [
            "spec: Invalid value: 3: spec in body should be less than or equal to 1",
            r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#,
        ]
    );
    let not = json!({"type": "integer", "not": {"enum": [3]}});
    assert!(errors(&not, &json!(2)).is_empty());
    assert_eq!(
        errors(&not, &json!(3)),
        [r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#]
    );
}

#[test]
fn unchanged_values_are_not_refused_again() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 1},
            "size": {"type": "integer", "maximum": 1},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["id"],
                "items": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {
                        "id": {"type": "string"},
                        "size": {"type": "integer", "maximum": 1},
                        "note": {"type": "string"}
                    }
                }
            },
            "plain": {"type": "array", "items": {"type": "integer", "maximum": 1}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
        }
    });
    let old = json!({
        "name": "long", "size": 5,
        "items": [{"id": "a", "size": 5}, {"id": "b", "size": 0}],
        "plain": [5], "tags": ["x", "x"]
    });
    assert!(update_errors(&schema, &old, Some(&old)).is_empty());
    let new = json!({
        "name": "long", "size": 6,
        "items": [{"id": "b", "size": 7}, {"id": "c", "size": 5}, {"id": "a", "size": 5, "note": "n"}],
        "plain": [5, 1], "tags": ["y", "y"]
    });
    assert_eq!(
        update_errors(&schema, &new, Some(&old)),
        [
            "spec.size: Invalid value: 6: spec.size in body should be less than or equal to 1",
            "spec.items[0].size: Invalid value: 7: spec.items[0].size in body should be less than or equal to 1",
            "spec.items[1].size: Invalid value: 5: spec.items[1].size in body should be less than or equal to 1",
            "spec.plain[0]: Invalid value: 5: spec.plain[0] in body should be less than or equal to 1",
        ]
    );
    let better = json!({"tags": ["x"]});
    assert_eq!(
        update_errors(&schema, &json!({"tags": ["y", "y"]}), Some(&better)),
        [r#"spec.tags[1]: Duplicate value: "y""#]
    );
}

#[test]
fn some_errors_make_rules_meaningless() {
    let wrong = FieldError::invalid("a", &json!(1), "no");
    assert_eq!(blocks_rules(std::slice::from_ref(&wrong)), None);
    let missing = FieldError::required("a", "");
    let added = blocks_rules(&[wrong, missing]).unwrap();
    assert_eq!(added.field(), "<nil>");
    assert!(
        added
            .message
            .starts_with("Invalid value: null: some validation rules")
    );
}
