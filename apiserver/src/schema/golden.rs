//! Replays what a real API server answered (see `apiserver/golden/record.py`).

use serde_json::{Value, json};

use super::*;

/// Field, reason and message of recorded causes, sorted.
pub(super) fn causes(answer: &Value) -> Vec<(String, String, String)> {
    let mut causes: Vec<_> = answer["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| {
            let text = |key: &str| cause[key].as_str().unwrap_or_default().to_owned();
            (text("field"), text("reason"), text("message"))
        })
        .collect();
    causes.sort();
    causes
}

/// The same of our errors.
pub(super) fn found(errors: &[FieldError]) -> Vec<(String, String, String)> {
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error.field().to_owned(),
                error.reason.as_str().to_owned(),
                error.message.clone(),
            )
        })
        .collect();
    found.sort();
    found
}

#[test]
fn recorded_values() {
    let recorded: Value = serde_json::from_str(include_str!("../../golden/values.json")).unwrap();
    let schema = Structural::parse(&recorded["schema"]).unwrap();
    let mut differences = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        let answer = &case["answer"];
        let mut object = json!({
            "apiVersion": "golden.example.com/v1", "kind": "Value",
            "metadata": {"name": "x"}, "spec": case["spec"]
        });
        let warnings = unknown_fields(&schema, &object);
        prune(&schema, &mut object);
        apply_defaults(&schema, &mut object);
        normalize_numbers(&mut object);
        let errors = validate(&schema, &object, None);
        let mut expected_warnings: Vec<_> = answer["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|warning| warning.as_str().unwrap().to_owned())
            .collect();
        expected_warnings.sort();
        let agrees = warnings == expected_warnings
            && found(&errors) == causes(answer)
            && (!errors.is_empty() || object["spec"] == answer["spec"]);
        if !agrees {
            differences.push(format!(
                "{}\n  expected: {answer}\n  found: {:?} {warnings:?} {}",
                case["spec"],
                found(&errors),
                object["spec"]
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn recorded_schemas() {
    let recorded: Value = serde_json::from_str(include_str!("../../golden/schemas.json")).unwrap();
    let mut differences = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        if case["schema"]["properties"].get("replicas").is_some() {
            continue; // about rules that compile or not, see the tests of `cel`
        }
        let document = json!({"type": "object", "properties": {"spec": case["schema"]}});
        let errors = match Structural::parse(&document) {
            Ok(_) => Vec::new(),
            Err(error) => error.prefixed("spec.validation.openAPIV3Schema").errors,
        };
        // Go words the problems of regular expressions in its own way.
        let general = |mut findings: Vec<(String, String, String)>| {
            for (_, _, message) in &mut findings {
                if let Some(at) = message.find("isn't: ") {
                    message.truncate(at);
                }
            }
            findings.dedup();
            findings
        };
        if general(found(&errors)) != general(causes(case)) {
            differences.push(format!(
                "{}\n  expected: {:?}\n  found: {:?}",
                case["schema"],
                causes(case),
                found(&errors)
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
