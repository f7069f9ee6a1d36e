//! Words about pools.

use serde_json::{Value, json};

use super::{Seen, member, observed, pool, stranded, with_pod};
use crate::config::PoolSettings;
use crate::error::Fault;
use crate::fixtures::{at, condition, row, uid};
use crate::objects::{PoolRow, PoolStatus};
use crate::sandbox::policy::Policy;
use crate::warm_pool::status::{is_urgent, patch, status};

const NOW: &str = "2026-01-01T13:00:00Z";

fn told(seen: &Seen, faults: &[Fault]) -> PoolStatus {
    seen.decide(|observed| status(observed, faults, &PoolSettings::default(), at(NOW)))
}

fn progressing(status: &PoolStatus) -> (bool, String) {
    let it = status.conditions.get("Progressing").unwrap();
    (
        it.status == crate::objects::Truth::True,
        it.reason.to_string(),
    )
}

#[test]
fn counts_are_of_members_that_stay() {
    let seen = observed(
        pool(json!({"replicas": 3})),
        vec![
            member(
                1,
                json!({}),
                json!({}),
                json!([condition("Ready", "True", "R")]),
            ),
            member(
                2,
                json!({}),
                json!({}),
                json!([condition("Ready", "False", "R")]),
            ),
            member(
                3,
                json!({"deletionTimestamp": NOW}),
                json!({}),
                json!([condition("Ready", "True", "R")]),
            ),
        ],
    );
    let status = told(&seen, &[]);
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.observed_generation
        ),
        (2, 1, 2)
    );
    assert!(
        status
            .selector
            .as_ref()
            .unwrap()
            .starts_with("agents.x-k8s.io/warm-pool-sandbox=")
    );
    assert_eq!(
        progressing(&status),
        (true, "WarmPoolProgressing".to_owned())
    );
}

#[test]
fn trouble_is_named() {
    let mut no_template = observed(pool(json!({})), vec![]);
    no_template.template = None;
    assert_eq!(
        progressing(&told(&no_template, &[])),
        (false, "SandboxTemplateError".to_owned())
    );

    let mut no_policy = observed(
        pool(json!({})),
        vec![member(1, json!({}), json!({}), json!([]))],
    );
    no_policy.policy = Policy::Missing {
        name: "t-network-policy".to_owned(),
        template: "t".into(),
    };
    assert_eq!(
        progressing(&told(&no_policy, &[])).1,
        "SandboxTemplateError"
    );

    let fault = [Fault::Refused("exceeded quota".to_owned())];
    assert_eq!(
        progressing(&told(&observed(pool(json!({})), vec![]), &fault)).1,
        "WarmPoolNotProgressing"
    );

    let over = observed(pool(json!({"replicas": 20_000})), vec![]);
    assert_eq!(progressing(&told(&over, &[])).1, "WarmPoolNotProgressing");

    let mut unschedulable = condition("PodScheduled", "False", "Unschedulable");
    unschedulable["lastTransitionTime"] = json!("2026-01-01T12:00:00Z");
    let held = with_pod(
        member(1, json!({}), json!({}), json!([])),
        json!({"conditions": [unschedulable]}),
    );
    assert_eq!(
        progressing(&told(&observed(pool(json!({})), vec![held]), &[])).1,
        "WarmPoolNotProgressing"
    );

    let ended = member(
        1,
        json!({}),
        json!({}),
        json!([condition("Finished", "True", "PodFailed")]),
    );
    assert_eq!(
        progressing(&told(&observed(pool(json!({})), vec![ended]), &[])).1,
        "WarmPoolNotProgressing"
    );
}

#[test]
fn members_on_lost_nodes_are_told_of() {
    let ready = json!([condition("Ready", "True", "R")]);
    let lost = stranded(member(1, json!({}), json!({}), ready));
    let status = told(&observed(pool(json!({})), vec![lost]), &[]);
    assert_eq!(
        (status.replicas, status.ready_replicas),
        (1, 1),
        "as they say of themselves"
    );
    assert_eq!(
        progressing(&status),
        (true, "WarmPoolProgressing".to_owned())
    );
    let message = &status.conditions.get("Progressing").unwrap().message;
    assert!(message.contains("nodes"), "{message}");
}

fn published(status: Value) -> std::sync::Arc<PoolRow> {
    row(json!({
        "metadata": {"name": "p", "uid": uid(40), "generation": 2},
        "spec": {"replicas": 0, "sandboxTemplateRef": {"name": "t"}}, "status": status,
    }))
}

#[test]
fn zero_is_written_as_absence_and_nothing_twice() {
    let old = published(json!({"replicas": 3, "readyReplicas": 2, "observedGeneration": 1}));
    let new = told(&observed(old.clone(), vec![]), &[]);
    let change = patch(&old, &new).unwrap();
    assert_eq!(change["replicas"], Value::Null);
    assert!(change.contains_key("readyReplicas"));
    assert!(is_urgent(&old, &new));
    let mut settled = change;
    settled.retain(|_, value| !value.is_null());
    let current = published(Value::Object(settled));
    let again = told(&observed(current.clone(), vec![]), &[]);
    assert_eq!(patch(&current, &again), None);
    let more = told(
        &observed(
            current.clone(),
            vec![member(1, json!({}), json!({}), json!([]))],
        ),
        &[],
    );
    assert!(
        patch(&current, &more).is_some() && !is_urgent(&current, &more),
        "counts can wait"
    );
}
