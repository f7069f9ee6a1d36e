//! What a status says.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{SANDBOX, observed, own_pod, running, sandbox, with_status};
use crate::error::Fault;
use crate::fixtures::{at, condition, owner, row, uid};
use crate::objects::{SandboxRow, SandboxStatus};
use crate::sandbox::plan::{Holder, Observed};
use crate::sandbox::policy::Policy;
use crate::sandbox::status::{Outcome, converged, marked_expired, patch, torn_down};

const NOW: &str = "2026-01-01T12:00:00Z";

pub(super) fn status(observed: &Observed, outcome: &Outcome) -> SandboxStatus {
    converged(observed, outcome, at(NOW), "cluster.local")
}

pub(super) fn fine(observed: &Observed) -> SandboxStatus {
    status(observed, &Outcome::default())
}

/// `Type=Status/Reason: message` of one condition.
fn said(status: &SandboxStatus, kind: &str) -> String {
    status.conditions.get(kind).map_or_else(
        || "absent".to_owned(),
        |it| format!("{}/{}: {}", it.status.as_str(), it.reason, it.message),
    )
}

pub(super) fn pod(more: Value) -> Value {
    let mut status = running();
    for (key, value) in more.as_object().unwrap() {
        status[key] = value.clone();
    }
    status
}

#[test]
fn readiness_is_composed_of_pod_addresses_and_service() {
    let service = || -> Holder<crate::objects::ServiceRow> {
        Holder::Held(row(
            json!({"metadata": {"name": "s", "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))}, "spec": {}}),
        ))
    };
    let no_pod = vec![];
    let unready = pod(json!({"conditions": []}));
    let cases: Vec<(Value, Vec<_>, bool, &str)> = vec![
        (
            json!({}),
            no_pod.clone(),
            false,
            "False/DependenciesNotReady: Pod does not exist",
        ),
        (
            json!({"service": true}),
            no_pod,
            true,
            "False/DependenciesNotReady: Pod does not exist; Service Exists",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), json!({"phase": "Pending"}))],
            false,
            "False/DependenciesNotReady: Pod exists with phase: Pending",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), json!({"phase": "Unknown"}))],
            false,
            "False/DependenciesNotReady: Pod exists with phase: Unknown",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), unready)],
            false,
            "False/DependenciesNotReady: Pod is Running but not Ready",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), pod(json!({"podIPs": []})))],
            false,
            "False/DependenciesNotReady: Pod is Ready but has no podIPs yet",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), running())],
            false,
            "True/DependenciesReady: Pod is Ready",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), running())],
            true,
            "True/DependenciesReady: Pod is Ready; Service Exists",
        ),
        (
            json!({"service": true}),
            vec![own_pod(json!({}), running())],
            true,
            "True/DependenciesReady: Pod is Ready; Service Exists",
        ),
        (
            json!({"service": true}),
            vec![own_pod(json!({}), running())],
            false,
            "False/DependenciesNotReady: Pod is Ready; Service does not exist",
        ),
        (
            json!({"service": false}),
            vec![own_pod(json!({}), running())],
            true,
            "True/DependenciesReady: Pod is Ready",
        ),
        (
            json!({}),
            vec![own_pod(json!({"deletionTimestamp": NOW}), running())],
            false,
            "False/DependenciesNotReady: Pod is terminating",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), json!({"phase": "Succeeded"}))],
            false,
            "False/PodSucceeded: Pod completed successfully",
        ),
        (
            json!({}),
            vec![own_pod(json!({}), json!({"phase": "Failed"}))],
            false,
            "False/PodFailed: Pod failed",
        ),
    ];
    for (spec, pods, with_service, expected) in cases {
        let mut seen = observed(sandbox(spec.clone()), pods);
        if with_service {
            seen.service = service();
        }
        assert_eq!(said(&fine(&seen), "Ready"), expected, "{spec}");
    }
}

#[test]
fn fields_come_from_the_pod_that_is_owned() {
    let status = fine(&observed(
        sandbox(json!({})),
        vec![own_pod(json!({}), running())],
    ));
    assert_eq!(&*status.pod_ips, &["10.0.0.1".into()]);
    assert_eq!(status.node_name.as_deref(), Some("node-1"));
    assert!(
        status
            .selector
            .unwrap()
            .starts_with("agents.x-k8s.io/sandbox-name-hash=")
    );
    let old = json!({"selector": "x=y", "podIPs": ["10.0.0.1"], "nodeName": "node-1"});
    let gone = fine(&observed(with_status(json!({}), old), vec![]));
    assert!(gone.pod_ips.is_empty() && gone.node_name.is_none());
    assert_eq!(
        gone.selector.as_deref(),
        Some("x=y"),
        "clients parse it while no pod is there"
    );
}

#[test]
fn suspension_is_told_step_by_step() {
    let spec = json!({"operatingMode": "Suspended"});
    let told = |seen: &Observed, outcome: &Outcome| {
        let status = status(seen, outcome);
        (
            said(&status, "Suspended"),
            said(&status, "Ready"),
            said(&status, "PodScheduled"),
        )
    };
    let going = observed(
        sandbox(spec.clone()),
        vec![own_pod(json!({"deletionTimestamp": NOW}), running())],
    );
    let (suspended, ready, scheduled) = told(&going, &Outcome::default());
    assert_eq!(
        suspended,
        "False/PodTerminating: Pod is terminating. Sandbox is suspending"
    );
    assert_eq!(ready, "False/SandboxSuspended: Sandbox is suspending");
    assert!(scheduled.starts_with("True/PodScheduled"));

    let failed = Outcome {
        faults: vec![Fault::Refused("delete failed".to_owned())],
        pod_failed: true,
        too_many_pods: None,
    };
    let present = observed(sandbox(spec.clone()), vec![own_pod(json!({}), running())]);
    let (suspended, ready, _) = told(&present, &failed);
    assert!(suspended.starts_with("False/PodTerminating"));
    assert_eq!(ready, "False/ReconcilerError: Error seen: delete failed");

    let mut foreign = observed(sandbox(spec.clone()), vec![]);
    foreign.pod_name = Holder::Held(own_pod(
        json!({"ownerReferences": owner("Job", "j", &uid(70))}),
        json!({"phase": "Succeeded", "podIPs": [{"ip": "10.9.9.9"}]}),
    ));
    let status = fine(&foreign);
    assert!(said(&status, "Suspended").starts_with("False/PodNotOwned"));
    assert_eq!(said(&status, "PodScheduled"), "absent");
    assert_eq!(
        said(&status, "Finished"),
        "absent",
        "somebody else's pod ends on its own account"
    );
    assert!(status.pod_ips.is_empty() && status.node_name.is_none());

    let nothing = observed(sandbox(spec), vec![]);
    let (suspended, ready, scheduled) = told(&nothing, &Outcome::default());
    assert_eq!(
        suspended,
        "True/PodTerminated: Pod has been terminated. Sandbox is suspended"
    );
    assert_eq!(ready, "False/SandboxSuspended: Sandbox is suspended");
    assert_eq!(scheduled, "absent");
    let (suspended, _, scheduled) = told(&nothing, &failed);
    assert!(suspended.starts_with("Unknown/PodStateUnknown"));
    assert!(scheduled.starts_with("Unknown/PodSchedulingUnknown"));
}

#[test]
fn scheduling_is_copied_verbatim_and_stays_valid() {
    let told = |conditions: Value| {
        let seen = observed(
            sandbox(json!({})),
            vec![own_pod(
                json!({}),
                json!({"phase": "Pending", "conditions": conditions}),
            )],
        );
        said(&fine(&seen), "PodScheduled")
    };
    let with = |status: &str, why: &str| json!([{"type": "PodScheduled", "status": status, "reason": why, "message": "0/3 nodes"}]);
    assert_eq!(
        told(with("False", "Unschedulable")),
        "False/Unschedulable: 0/3 nodes"
    );
    assert_eq!(
        told(with("False", "SchedulingGated")),
        "False/SchedulingGated: 0/3 nodes"
    );
    assert_eq!(
        told(with("False", "")),
        "False/PodSchedulingUnknown: 0/3 nodes"
    );
    assert_eq!(told(with("True", "")), "True/PodScheduled: 0/3 nodes");
    assert_eq!(
        told(json!([])),
        "Unknown/PodSchedulingUnknown: Pod has not reported a PodScheduled condition yet"
    );
}

#[test]
fn faults_outrank_everything_but_too_many_pods() {
    let seen = observed(
        sandbox(json!({"operatingMode": "Suspended"})),
        vec![own_pod(json!({}), running())],
    );
    let mut outcome = Outcome {
        faults: vec![
            Fault::Refused("one".to_owned()),
            Fault::Refused("two".to_owned()),
        ],
        ..Outcome::default()
    };
    assert_eq!(
        said(&status(&seen, &outcome), "Ready"),
        "False/ReconcilerError: Error seen: one; two"
    );
    outcome
        .faults
        .push(Fault::Invalid("spec.x is unknown".to_owned()));
    assert_eq!(
        said(&status(&seen, &outcome), "Ready"),
        "False/InvalidConfiguration: spec.x is unknown"
    );
    outcome.too_many_pods = Some(2);
    let told = said(&status(&seen, &outcome), "Ready");
    assert!(
        told.starts_with("False/MultiplePods: multiple Pods (2)"),
        "{told}"
    );
    assert!(!told.contains("one"));
}

#[test]
fn a_missing_policy_is_named() {
    let mut seen = observed(sandbox(json!({})), vec![]);
    seen.policy = Policy::Missing {
        name: "t-network-policy".to_owned(),
        template: "t".into(),
    };
    let told = said(&fine(&seen), "Ready");
    assert!(
        told.contains("\"t-network-policy\"") && told.contains("\"t\""),
        "{told}"
    );
}

#[test]
fn a_lost_policy_is_a_condition_of_its_own_until_it_is_found() {
    let lost = |stands_in| Policy::Lost {
        name: "t-network-policy".to_owned(),
        template: "t".into(),
        stands_in,
    };
    let mut seen = observed(sandbox(json!({})), vec![own_pod(json!({}), running())]);
    seen.policy = lost(true);
    let status = fine(&seen);
    let told = said(&status, "NetworkPolicyReady");
    assert!(told.starts_with("False/RulesLost: "), "{told}");
    assert!(told.contains("only the router reaches them"), "{told}");
    assert!(said(&status, "Ready").starts_with("True/"), "the pod runs");
    seen.policy = lost(false);
    assert!(!said(&fine(&seen), "NetworkPolicyReady").contains("router"));
    seen.sandbox = Arc::new(SandboxRow {
        status,
        ..(*seen.sandbox).clone()
    });
    seen.policy = Policy::NotNeeded;
    let found = fine(&seen);
    assert!(found.conditions.get("NetworkPolicyReady").is_none());
}

#[test]
fn conditions_come_in_a_fixed_order_with_the_generation() {
    let status = fine(&observed(
        sandbox(json!({})),
        vec![own_pod(json!({}), pod(json!({"phase": "Failed"})))],
    ));
    let order: Vec<&str> = status.conditions.iter().map(|it| &*it.kind).collect();
    assert_eq!(order, ["Suspended", "Finished", "PodScheduled", "Ready"]);
    assert!(
        status
            .conditions
            .iter()
            .all(|it| it.observed_generation == 3)
    );
}

#[test]
fn expiry_keeps_what_is_known_and_then_only_the_conditions() {
    let old = json!({
        "podIPs": ["10.0.0.1"], "selector": "x=y", "nodeName": "n", "service": "s", "serviceFQDN": "f",
        "conditions": [
            condition("Suspended", "False", "NotSuspended"), condition("Finished", "True", "PodSucceeded"),
            condition("PodScheduled", "True", "PodScheduled"), condition("Ready", "False", "PodSucceeded"),
        ],
    });
    let row = with_status(json!({}), old);
    let marked = marked_expired(&row, at(NOW));
    assert_eq!(
        said(&marked, "Ready"),
        "False/SandboxExpired: Sandbox has expired"
    );
    assert!(said(&marked, "Finished").starts_with("True/PodSucceeded"));
    assert_eq!(said(&marked, "PodScheduled"), "absent");
    assert_eq!(
        marked
            .conditions
            .get("Suspended")
            .unwrap()
            .observed_generation,
        3
    );
    assert_eq!(marked.pod_ips.len(), 1);
    let bare = torn_down(&row, at(NOW));
    assert_eq!(bare.conditions, marked.conditions);
    assert!(bare.pod_ips.is_empty() && bare.selector.is_none() && bare.service_fqdn.is_none());
}

fn lookup_failed() -> Outcome {
    Outcome {
        faults: vec![Fault::Transient {
            message: "reading Pod \"s\": timeout".to_owned(),
            retry_after: None,
        }],
        pod_failed: true,
        too_many_pods: None,
    }
}

#[test]
fn a_pod_that_cannot_be_looked_up_leaves_its_scheduling_unknown() {
    for mode in ["Running", "Suspended"] {
        let seen = observed(sandbox(json!({"operatingMode": mode})), vec![]);
        let told = status(&seen, &lookup_failed());
        assert_eq!(
            said(&told, "PodScheduled"),
            "Unknown/PodSchedulingUnknown: Pod state is unknown. Pod scheduling cannot be determined",
            "{mode}"
        );
    }
}

#[test]
fn resuming_is_told_before_there_is_a_pod() {
    let suspended = json!({"conditions": [
        condition("Suspended", "True", "PodTerminated"),
        condition("Ready", "False", "SandboxSuspended"),
    ]});
    let told = fine(&observed(with_status(json!({}), suspended), vec![]));
    assert!(said(&told, "Suspended").starts_with("False/NotSuspended"));
    assert_eq!(
        said(&told, "Ready"),
        "False/DependenciesNotReady: Pod does not exist"
    );
    assert_eq!(told.conditions.get("Suspended").unwrap().since, at(NOW));
}

#[test]
fn a_failed_pod_finishes_its_sandbox() {
    let failed = own_pod(json!({}), json!({"phase": "Failed"}));
    let told = fine(&observed(sandbox(json!({})), vec![failed]));
    assert_eq!(said(&told, "Finished"), "True/PodFailed: Pod failed");
    assert_eq!(said(&told, "Ready"), "False/PodFailed: Pod failed");
}

#[test]
fn scheduling_goes_with_the_pod() {
    let old = json!({"conditions": [
        condition("Suspended", "False", "NotSuspended"),
        condition("PodScheduled", "True", "PodScheduled"),
    ]});
    let told = fine(&observed(with_status(json!({}), old), vec![]));
    assert_eq!(said(&told, "PodScheduled"), "absent");
    assert!(said(&told, "Suspended").starts_with("False"));
}

#[test]
fn the_name_of_a_service_ends_in_the_clusters_domain() {
    let mut seen = observed(sandbox(json!({})), vec![]);
    seen.service = Holder::Held(row(json!({
        "metadata": {"name": "s", "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))},
        "spec": {},
    })));
    let told = converged(&seen, &Outcome::default(), at(NOW), "example.org");
    assert_eq!(told.service_fqdn.as_deref(), Some("s.n.svc.example.org"));
}

#[test]
fn a_service_that_is_not_ours_or_not_wanted_is_not_published() {
    let own = json!({"name": "s", "ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))});
    let unowned = json!({"name": "s", "labels": {"agents.x-k8s.io/adoptable": "true"}});
    for (switch, metadata, published) in [
        (json!(null), own.clone(), true),
        (json!(true), own.clone(), true),
        (json!(null), unowned, false),
        (json!(false), own, false),
    ] {
        let old = json!({"service": "s", "serviceFQDN": "s.n.svc.cluster.local"});
        let sandbox = with_status(json!({"service": switch}), old);
        let mut seen = observed(sandbox.clone(), vec![]);
        seen.service = Holder::Held(row(json!({"metadata": metadata, "spec": {}})));
        let told = fine(&seen);
        assert_eq!(told.service.is_some(), published, "{switch}");
        assert_eq!(told.service_fqdn.is_some(), published, "{switch}");
        if !published {
            let written = patch(&sandbox, &told).unwrap()["status"].clone();
            let members = written.as_object().unwrap();
            assert_eq!(members.get("service"), Some(&Value::Null));
            assert_eq!(members.get("serviceFQDN"), Some(&Value::Null));
        }
    }
}

#[test]
fn an_outdated_pod_is_said_to_be_until_it_goes() {
    let made = crate::sandbox::desired::pod(&sandbox(json!({})), None).unwrap();
    let metadata = made["metadata"].clone();
    let edited = json!({"podTemplate": {"spec": {"hostname": "h"}}});
    let pod = own_pod(metadata.clone(), running());
    let told = fine(&observed(sandbox(edited.clone()), vec![pod]));
    assert!(said(&told, "PodOutdated").starts_with("True/PodSpecChanged: spec.podTemplate.spec"));
    assert!(told.conditions.is_true("Ready"), "it serves all the same");
    assert_eq!(
        told.conditions.iter().last().unwrap().kind,
        "PodOutdated".into()
    );
    let mut going = metadata.clone();
    going["deletionTimestamp"] = json!(NOW);
    for (spec, pods) in [
        (edited.clone(), vec![]),
        (edited, vec![own_pod(going, running())]),
        (json!({}), vec![own_pod(metadata, running())]),
    ] {
        let old = json!({"conditions": [condition("PodOutdated", "True", "PodSpecChanged")]});
        let told = fine(&observed(with_status(spec, old), pods));
        assert_eq!(said(&told, "PodOutdated"), "absent");
    }
}
