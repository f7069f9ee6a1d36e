use serde_json::json;

use super::super::golden::{causes, found};
use super::*;
use crate::schema::apply_defaults;

/// Compiles a schema that has `spec` as its only property.
fn compile(spec: &Value) -> Result<Rules, SchemaError> {
    let document = json!({"type": "object", "properties": {"spec": spec}});
    Rules::compile(&Structural::parse(&document).unwrap())
}

/// What the one rule of `spec` says about values of `spec`.
fn check(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let object = |spec: &Value| json!({"spec": spec});
    compile(schema)
        .unwrap()
        .check(&object(new), old.map(object).as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The first line of what cel-go reports, without the place in the expression.
fn essence(message: &str) -> String {
    let Some((_, after)) = message.split_once("ERROR: <input>:") else {
        return message.to_owned();
    };
    let line = after.lines().next().unwrap();
    line.splitn(3, ':').nth(2).unwrap().trim().to_owned()
}

#[test]
fn recorded_compilations() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../golden/schemas.json")).unwrap();
    let mut differences = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        if case["schema"]["properties"].get("replicas").is_none() {
            continue; // about structure, see the tests of `schema`
        }
        let rule = &case["schema"]["x-kubernetes-validations"][0]["rule"];
        let errors = match compile(&case["schema"]) {
            Ok(_) => Vec::new(),
            Err(error) => error.prefixed("spec.validation.openAPIV3Schema").errors,
        };
        let found = found(&errors);
        let expected = causes(case);
        let agrees = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| {
                let essence = essence(&expected.2);
                found.0 == expected.0
                    && found.1 == expected.1
                    // Parsers word syntax errors in their own ways.
                    && (found.2.contains(&essence) || essence.starts_with("Syntax error"))
            });
        if !agrees {
            differences.push(format!(
                "{rule}\n  expected: {expected:?}\n  found: {found:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn recorded_evaluations() {
    let recorded: Value = serde_json::from_str(include_str!("../../../golden/rules.json")).unwrap();
    let mut differences = Vec::new();
    for (i, case) in recorded["cases"].as_array().unwrap().iter().enumerate() {
        let name = format!("r{i}");
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            name.as_str(): {
                "type": "object",
                "properties": recorded["properties"],
                "x-kubernetes-validations": [case["rule"]]
            }
        }}))
        .unwrap();
        let rules = match Rules::compile(&schema) {
            Ok(rules) => rules,
            Err(error) => {
                differences.push(format!("{}: {error}", case["rule"]));
                continue;
            }
        };
        let object = |spec: &Value| {
            let mut object = json!({name.as_str(): spec});
            apply_defaults(&schema, &mut object);
            object
        };
        let old = case.get("old").map(object);
        let found = found(&rules.check(&object(&case["spec"]), old.as_ref()));
        let expected = causes(&case["answer"]);
        // What a function has against its argument is worded by its library.
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| {
                found == expected
                    || found.0 == expected.0
                        && expected.2.contains("quantities must match")
                        && found.2.contains("evaluating rule")
            });
        if !same {
            differences.push(format!(
                "{} {}\n  expected: {expected:?}\n  found: {found:?}",
                case["rule"], case["spec"]
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn names_are_escaped() {
    for (name, escaped) in [
        ("replicas", Some("replicas")),
        ("namespace", Some("__namespace__")),
        ("a-b", Some("a__dash__b")),
        ("a.b/c", Some("a__dot__b__slash__c")),
        ("a_b", Some("a_b")),
        ("a__b___c", Some("a__underscores__b__underscores___c")),
        ("1a", None),
        ("a b", None),
        ("", None),
    ] {
        assert_eq!(escape(name).as_deref(), escaped, "{name}");
    }
}

#[test]
fn rules_run_at_every_level() {
    let schema = json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5"}]},
            "items": {
                "type": "array",
                "maxItems": 10,
                "items": {
                    "type": "object",
                    "properties": {"size": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.size < 5", "fieldPath": ".size"}]
                },
                "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "too many"}]
            },
            "byName": {
                "type": "object",
                "additionalProperties": {
                    "type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'"}]
                }
            }
        }
    });
    assert_eq!(
        check(
            &schema,
            &json!({"size": 5, "items": [{"size": 1}, {"size": 7}, {}], "byName": {"k": "x", "l": "y"}}),
            None
        ),
        [
            "spec.size: Invalid value: 5: failed rule: self < 5",
            "spec.items: Invalid value: too many",
            "spec.items[1].size: Invalid value: failed rule: self.size < 5",
            r#"spec.items[2]: Invalid value: "object": no such key: size evaluating rule: self.size < 5"#,
            r#"spec.byName[k]: Invalid value: "x": failed rule: self != 'x'"#,
        ]
    );
}

#[test]
fn old_items_are_found_by_key() {
    let schema = json!({
        "type": "array",
        "maxItems": 10,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["id"],
        "items": {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string"}, "size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "shrinks"}]
        }
    });
    let old = json!([{"id": "a", "size": 5}, {"id": "b", "size": 1}]);
    let new = json!([{"id": "b", "size": 2}, {"id": "c", "size": 0}, {"id": "a", "size": 4}]);
    assert_eq!(
        check(&schema, &new, Some(&old)),
        ["spec[2]: Invalid value: shrinks"]
    );
    assert!(check(&schema, &new, None).is_empty());

    let mut atomic = schema;
    let list = atomic.as_object_mut().unwrap();
    list.remove("x-kubernetes-list-type");
    list.remove("x-kubernetes-list-map-keys");
    assert_eq!(
        compile(&atomic).unwrap_err().to_string(),
        r#"properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: "self.size >= oldSelf.size": oldSelf cannot be used on the uncorrelatable portion of the schema within properties[spec]"#
    );
}

#[test]
fn unchanged_values_are_not_refused_again() {
    let schema = json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5"}]},
            "note": {"type": "string"},
            "tags": {
                "type": "array", "maxItems": 5,
                "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'"}]}
            }
        }
    });
    let old = json!({"size": 9, "tags": ["x"]});
    assert!(
        check(
            &schema,
            &json!({"size": 9, "note": "n", "tags": ["x"]}),
            Some(&old)
        )
        .is_empty()
    );
    assert_eq!(
        check(&schema, &json!({"size": 8, "tags": ["x", "y"]}), Some(&old)),
        [
            "spec.size: Invalid value: 8: failed rule: self < 5",
            r#"spec.tags[0]: Invalid value: "x": failed rule: self != 'x'"#,
        ]
    );
}

#[test]
fn only_the_name_of_an_object_is_visible() {
    let document = |rule: &str| {
        json!({"type": "object", "properties": {"spec": {"type": "object"}},
               "x-kubernetes-validations": [{"rule": rule}]})
    };
    let compile = |rule: &str| Rules::compile(&Structural::parse(&document(rule)).unwrap());
    let rules = compile("self.metadata.name != 'x' && self.kind == 'K' && self.apiVersion == 'v1'")
        .unwrap();
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": name, "labels": {"a": "b"}}});
    assert!(rules.check(&object("a"), None).is_empty());
    assert_eq!(rules.check(&object("x"), None).len(), 1);
    let error = compile("has(self.metadata.labels)").unwrap_err();
    assert!(
        error.to_string().contains("undefined field 'labels'"),
        "{error}"
    );
}

#[test]
fn rules_that_cannot_be_used_are_refused() {
    for (rule, problem) in [
        (
            json!({"rule": "self.sortBy(x, x) == self"}),
            "undeclared reference to 'sortBy'",
        ),
        (
            json!({"rule": "cel.bind(x, self, true)"}),
            "undeclared reference to",
        ),
        (
            json!({"rule": "self.all(i, v, v != '')"}),
            "undeclared reference to",
        ),
        (
            json!({"rule": "Message{a: 1} == self"}),
            "undeclared reference to 'Message'",
        ),
        (
            json!({"rule": "self.size()"}),
            "cel expression must evaluate to a bool",
        ),
        (
            json!({"rule": "true", "messageExpression": "self.size()"}),
            "messageExpression must evaluate to a string",
        ),
        (
            json!({"rule": "true", "messageExpression": "nope"}),
            "undeclared reference to 'nope'",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "may not be set if oldSelf is not used in rule",
        ),
        (
            json!({"rule": "self.size() && true"}),
            "found no matching overload for '_&&_' applied to '(int, bool)'",
        ),
        (
            json!({"rule": "self.size().all(x, true)"}),
            "cannot be range of a comprehension",
        ),
    ] {
        let schema = json!({"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5},
                            "x-kubernetes-validations": [rule]});
        let error = compile(&schema).unwrap_err().to_string();
        assert!(error.contains(problem), "{rule}: {error}");
    }
}

#[test]
fn defaults_must_satisfy_rules() {
    let schema = |default: i64| {
        json!({"type": "object", "default": {"size": default},
               "properties": {"size": {"type": "integer"}},
               "x-kubernetes-validations": [{"rule": "self.size < 5"}]})
    };
    assert!(compile(&schema(1)).is_ok());
    assert_eq!(
        compile(&schema(7)).unwrap_err().to_string(),
        "properties[spec].default: Invalid value: failed rule: self.size < 5"
    );
}

#[test]
fn runaway_rules_are_stopped() {
    // Cheap enough for the largest object that the schema allows to pass the check of the CRD, but
    // not for one evaluation.
    let schema = json!({
        "type": "array", "maxItems": 1000,
        "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.exists(y, y == x))"}]
    });
    let list = |count: i64| -> Value { (0..count).collect() };
    assert!(check(&schema, &list(100), None).is_empty());
    let errors = check(&schema, &list(1000), None);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("call cost exceeds limit"), "{errors:?}");
}

#[test]
fn times_out_of_range_are_the_rules_error() {
    let schema = json!({
        "type": "object",
        "properties": {"when": {"type": "string", "format": "date-time"}},
        "x-kubernetes-validations": [{"rule": "self.when + duration('2540400h') + duration('2540400h') > self.when"}]
    });
    let errors = check(&schema, &json!({"when": "9999-12-31T23:59:59Z"}), None);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("evaluating rule: self.when + duration"),
        "{errors:?}"
    );
    assert!(check(&schema, &json!({"when": "2026-01-01T00:00:00Z"}), None).is_empty());
}

#[test]
fn a_schema_without_rules_has_nothing_to_check() {
    let rules = Rules::compile(&Structural::free_form()).unwrap();
    assert!(rules.check(&json!({"a": 1}), None).is_empty());
    assert_eq!(format!("{:?}", Rules::default()), "Rules { root: None }");
}

#[test]
fn rules_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Rules>();
}
