//! Replays what a real API server answered (see `apiserver/golden/record.py`).

use serde_json::json;

use super::*;
use crate::schema::{Definitions, apply_defaults, render};

const RECORDED: &str = include_str!("../../../golden/apply.json");

/// The parts of an object that both servers must agree on.
fn compared(object: &Value) -> Value {
    let mut object = object.clone();
    for entry in object["metadata"]["managedFields"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let entry = entry.as_object_mut().unwrap();
        let recorded = entry.remove("timed") == Some(json!(true));
        let timed = entry.remove("time").is_some() || recorded;
        entry.insert("timed".to_owned(), json!(timed));
    }
    let fields = object["metadata"]["managedFields"].as_array_mut();
    if let Some(fields) = fields {
        // Controllers of the recorded cluster were at work, too.
        fields.retain(|entry| !entry["manager"].as_str().unwrap().starts_with("kube-"));
        // Entries of the same second come in any order.
        fields.sort_by_key(render::json);
    }
    object
}

/// The published server leaves null where a container has lost everything that its owner applied,
/// and then refuses the object. Ours leaves an empty container.
fn is_left_null(answer: &Value) -> bool {
    answer["code"] == 422
        && answer["causes"].as_array().is_some_and(|causes| {
            causes
                .iter()
                .all(|cause| cause["message"].as_str().unwrap().ends_with(": \"null\""))
        })
}

#[test]
fn recorded_sequences() {
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let schema = Structural::parse(&recorded["schema"]).unwrap();
    for (number, steps) in recorded["sequences"].as_array().unwrap().iter().enumerate() {
        let mut live: Option<Value> = None;
        for (i, step) in steps.as_array().unwrap().iter().enumerate() {
            let answer = &step["answer"];
            let now = Timestamp::from_second(1_767_225_600 + i64::try_from(i).unwrap()).unwrap();
            let (result, code) = replay(&schema, live.as_ref(), step, now);
            let context = format!("sequence {number} step {i}: {step:#}\nlive: {live:#?}");
            match result {
                Ok(_) if is_left_null(answer) => {}
                Ok(mut object) => {
                    apply_defaults(&schema, &mut object);
                    assert_eq!(answer["code"], code, "{context}");
                    assert_eq!(compared(&object), compared(&answer["object"]), "{context}");
                    live = Some(object);
                }
                Err(error) => {
                    assert_eq!(error.to_string(), answer["message"], "{context}");
                    let ApplyError::Conflict(mut conflicts) = error else {
                        unreachable!("nothing is malformed: {context}");
                    };
                    let mut causes: Vec<_> = answer["causes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|cause| Conflict {
                            owner: cause["message"]
                                .as_str()
                                .unwrap()
                                .trim_start_matches("conflict with ")
                                .to_owned(),
                            field: cause["field"].as_str().unwrap().to_owned(),
                        })
                        .collect();
                    let key = |c: &Conflict| (c.owner.clone(), c.field.clone());
                    causes.sort_by_key(key);
                    conflicts.sort_by_key(key);
                    assert_eq!(conflicts, causes, "{context}");
                }
            }
        }
    }
}

fn replay(
    schema: &Structural,
    live: Option<&Value>,
    step: &Value,
    now: Timestamp,
) -> (Result<Value, ApplyError>, u16) {
    let manager = step["manager"].as_str().unwrap();
    let kind = step["kind"].as_str().unwrap();
    if kind == "apply" {
        let result = server_side_apply(&ApplyInput {
            schema,
            live,
            applied: &step["body"],
            manager,
            api_version: "golden.example.com/v1",
            subresource: "",
            now,
            force: step["force"].as_bool().unwrap(),
        });
        return (result, if live.is_some() { 200 } else { 201 });
    }
    let input = UpdateInput {
        schema,
        manager,
        api_version: "golden.example.com/v1",
        subresource: if kind == "status" { "status" } else { "" },
        now,
    };
    let mut new = match live {
        None => step["body"].clone(),
        Some(live) => {
            let mut new = live.clone();
            new[step["field"].as_str().unwrap()] = step["value"].clone();
            new
        }
    };
    apply_defaults(schema, &mut new);
    record_update(input, live, &mut new);
    (Ok(new), if live.is_some() { 200 } else { 201 })
}

/// Applies to built-in kinds, each to the object that the recorded server had then: it has defaults
/// that are no business of the merge.
#[test]
fn recorded_built_in_kinds() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../golden/builtin.json")).unwrap();
    let document: Value = serde_json::from_str(include_str!("../../../data/schemas.json")).unwrap();
    let mut definitions = Definitions::new(&document);
    for steps in recorded["sequences"].as_array().unwrap() {
        let mut live: Option<Value> = None;
        for step in steps.as_array().unwrap() {
            let answer = &step["answer"];
            if answer["code"] == 201 {
                // The recorded cluster's garbage collector may have been there since.
                live = None;
            }
            let kind = steps[0]["body"]["kind"].as_str().unwrap();
            let api_version = steps[0]["body"]["apiVersion"].as_str().unwrap();
            let group = if api_version == "v1" {
                "core.v1".to_owned()
            } else {
                api_version.replace('/', ".")
            };
            let schema = definitions
                .resolve(&format!("io.k8s.api.{group}.{kind}"))
                .unwrap();
            let manager = step["manager"].as_str().unwrap();
            let now = Timestamp::UNIX_EPOCH;
            let result = if step["kind"] == "apply" {
                server_side_apply(&ApplyInput {
                    schema: &schema,
                    live: live.as_ref(),
                    applied: &step["body"],
                    manager,
                    api_version,
                    subresource: "",
                    now,
                    force: step["force"].as_bool().unwrap(),
                })
            } else {
                let mut new = live.clone().unwrap();
                crate::patch::json::apply(&mut new, &step["patch"]).unwrap();
                let input = UpdateInput {
                    schema: &schema,
                    manager,
                    api_version,
                    subresource: "",
                    now,
                };
                record_update(input, live.as_ref(), &mut new);
                Ok(new)
            };
            let context = format!("{kind}: {}", step["body"]);
            match result {
                Ok(object) if answer.get("object").is_some() => {
                    assert_eq!(
                        compared(&object)["metadata"]["managedFields"],
                        compared(&answer["object"])["metadata"]["managedFields"],
                        "{context}"
                    );
                    assert_eq!(
                        object["metadata"]["labels"], answer["object"]["metadata"]["labels"],
                        "{context}"
                    );
                }
                // Refused by validation: containers may not be removed, and the like.
                Ok(_) => assert_eq!(answer["code"], 422, "{context}: {answer}"),
                Err(error) => assert_eq!(error.to_string(), answer["message"], "{context}"),
            }
            if let Some(object) = answer.get("object") {
                live = Some(recorded_as_live(object));
            }
        }
    }
}

/// A recorded object, whose entries say only whether they had a time, as one that can be read.
fn recorded_as_live(object: &Value) -> Value {
    let mut object = object.clone();
    for entry in object["metadata"]["managedFields"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let entry = entry.as_object_mut().unwrap();
        if entry.remove("timed") == Some(json!(true)) {
            entry.insert("time".to_owned(), json!("2026-01-01T00:00:00Z"));
        }
    }
    object
}
