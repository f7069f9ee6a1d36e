//! When a status is written, and what the patch says.

use std::sync::Arc;

use serde_json::{Value, json};

use super::status::{fine, pod, status};
use super::{SANDBOX, observed, own_pod, running, sandbox, with_status};
use crate::error::Fault;
use crate::fixtures::{condition, owner, row, uid};
use crate::names;
use crate::objects::SandboxRow;
use crate::sandbox::plan::Observed;
use crate::sandbox::status::{Outcome, Urgency, patch, urgency};

/// A sandbox whose status is what `converged` makes of a running pod.
fn settled(metadata: Value) -> (Arc<SandboxRow>, Observed) {
    let fresh = observed(sandbox(json!({})), vec![own_pod(json!({}), running())]);
    let value = patch(&fresh.sandbox, &fine(&fresh)).unwrap()["status"].clone();
    let mut object = json!({"metadata": {"name": "s", "uid": uid(SANDBOX), "generation": 3}, "spec": {}, "status": value});
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    let row: Arc<SandboxRow> = row(object);
    let seen = observed(row.clone(), vec![own_pod(json!({}), running())]);
    (row, seen)
}

#[test]
fn an_unchanged_status_is_not_written() {
    let (row, seen) = settled(json!({}));
    let again = fine(&seen);
    assert_eq!(urgency(&row, &again), Urgency::None);
    assert_eq!(patch(&row, &again), None);
}

#[test]
fn a_new_generation_is_acknowledged_unless_the_binding_made_it() {
    let (row, seen) = settled(json!({"generation": 4}));
    assert_eq!(urgency(&row, &fine(&seen)), Urgency::Now);
    let marked = json!({"generation": 4, "annotations": {names::BINDING_GENERATION: "4"}});
    let (row, seen) = settled(marked);
    assert_eq!(urgency(&row, &fine(&seen)), Urgency::None);
    let edited = json!({"generation": 5, "annotations": {names::BINDING_GENERATION: "4"}});
    let (row, seen) = settled(edited);
    assert_eq!(urgency(&row, &fine(&seen)), Urgency::Now);
}

#[test]
fn details_wait_and_news_does_not() {
    let blank = sandbox(json!({}));
    let first = observed(
        blank.clone(),
        vec![own_pod(json!({}), json!({"phase": "Pending"}))],
    );
    assert_eq!(
        urgency(&blank, &fine(&first)),
        Urgency::Later,
        "the first word of a pod that starts"
    );
    let ready = observed(blank.clone(), vec![own_pod(json!({}), running())]);
    assert_eq!(urgency(&blank, &fine(&ready)), Urgency::Now);
    let refused = Outcome {
        faults: vec![Fault::Invalid("x".to_owned())],
        pod_failed: true,
        too_many_pods: None,
    };
    let seen = observed(blank.clone(), vec![]);
    assert_eq!(urgency(&blank, &status(&seen, &refused)), Urgency::Now);

    let (row, mut seen) = settled(json!({}));
    seen.pods = vec![own_pod(
        json!({}),
        pod(json!({"podIPs": [{"ip": "10.0.0.2"}]})),
    )];
    assert_eq!(
        urgency(&row, &fine(&seen)),
        Urgency::Now,
        "a new address of a ready pod"
    );
}

#[test]
fn a_node_name_alone_rides_along_until_the_sandbox_is_ready() {
    let pending =
        json!({"phase": "Pending", "conditions": [condition("PodScheduled", "True", "")]});
    let unscheduled = row(
        json!({"metadata": {"name": "s", "uid": uid(2), "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))}, "status": pending}),
    );
    let before = observed(sandbox(json!({})), vec![unscheduled]);
    let value = patch(&before.sandbox, &fine(&before)).unwrap()["status"].clone();
    let row = with_status(json!({}), value);
    let after = observed(row.clone(), vec![own_pod(json!({}), pending)]);
    let status = fine(&after);
    assert_ne!(status, row.status);
    assert_eq!(urgency(&row, &status), Urgency::None);
}

#[test]
fn the_patch_is_minimal_clears_with_null_and_spares_foreign_conditions() {
    let old = json!({
        "podIPs": ["10.0.0.1"], "nodeName": "n", "selector": "x=y", "replicas": 1,
        "conditions": [condition("Example.com/Mine", "True", "R"), condition("Ready", "True", "DependenciesReady")],
    });
    let row = with_status(json!({}), old);
    let new = fine(&observed(row.clone(), vec![]));
    let patch = patch(&row, &new).unwrap();
    assert_eq!(patch["status"]["podIPs"], Value::Null);
    assert!(
        patch["status"]
            .as_object()
            .unwrap()
            .contains_key("nodeName")
    );
    assert!(
        !patch["status"]
            .as_object()
            .unwrap()
            .contains_key("selector")
    );
    assert_eq!(patch["status"]["conditions"][0]["type"], "Example.com/Mine");
    assert_eq!(
        patch["metadata"]["resourceVersion"], "10",
        "somebody else writes here too"
    );
}

#[test]
fn a_node_name_alone_is_written_once_the_sandbox_is_ready() {
    let on = |node: &str| {
        let pod = row(json!({
            "metadata": {"name": "s", "uid": uid(2), "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))},
            "spec": {"nodeName": node}, "status": running(),
        }));
        vec![pod]
    };
    let before = observed(sandbox(json!({})), on("node-1"));
    let value = patch(&before.sandbox, &fine(&before)).unwrap()["status"].clone();
    let row = with_status(json!({}), value);
    let told = fine(&observed(row.clone(), on("node-2")));
    assert_eq!(
        patch(&row, &told).unwrap()["status"],
        json!({"nodeName": "node-2"})
    );
    assert_ne!(urgency(&row, &told), Urgency::None);
}
