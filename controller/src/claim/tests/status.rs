//! Words about claims.

use serde_json::{Value, json};

use super::{claim, claim_with, sandbox};
use crate::claim::plan::Verdict;
use crate::claim::rules::Rejection;
use crate::claim::status::{patch, status};
use crate::error::Fault;
use crate::fixtures::{at, condition, uid};
use crate::ident::Key;
use crate::objects::SandboxRow;

const NOW: &str = "2026-01-01T12:00:00Z";

fn bound_to(row: &SandboxRow) -> Verdict {
    Verdict::Bound(row.head.key.clone())
}

/// What is published for a fresh claim.
fn published(sandbox: Option<&SandboxRow>, verdict: &Verdict) -> Value {
    let object = claim(json!({}));
    let new = status(&object, sandbox, verdict, at(NOW)).unwrap();
    patch(&object, &new).unwrap()
}

#[test]
fn ready_is_the_sandboxes_own_word_with_its_time_and_the_claims_generation() {
    let row = sandbox(json!({}), json!({}), Some(("True", "DependenciesReady")));
    assert_eq!(
        published(Some(&row), &bound_to(&row)),
        json!({
            "metadata": {"uid": uid(1), "resourceVersion": "10"},
            "status": {
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "DependenciesReady", "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 4,
                }],
                "sandbox": {"name": "p-1", "podIPs": ["10.0.0.1"]},
            },
        })
    );
}

#[test]
fn every_verdict_has_its_reason() {
    let silent = sandbox(json!({}), json!({}), None);
    let expired = sandbox(json!({}), json!({}), Some(("False", "SandboxExpired")));
    let missing = Verdict::Missing {
        reason: "WarmPoolNotFound",
        message: "m".to_owned(),
    };
    let rejected = Verdict::Rejected(Rejection {
        reason: "InvalidMetadata",
        message: "m".to_owned(),
    });
    let cases = [
        (None, missing, "WarmPoolNotFound"),
        (None, rejected, "InvalidMetadata"),
        (None, Verdict::Contended, "AdoptionConflict"),
        (None, Verdict::NamePending, "SandboxCreatePending"),
        (
            None,
            Verdict::Failed(Fault::Refused("x".to_owned())),
            "ReconcilerError",
        ),
        (
            None,
            Verdict::Expired {
                done: false,
                spared: None,
            },
            "ClaimExpired",
        ),
        (None, Verdict::Bound(Key::new("n", "s")), "SandboxMissing"),
        (Some(&*silent), bound_to(&silent), "SandboxNotReady"),
        (Some(&*expired), bound_to(&expired), "SandboxExpired"),
    ];
    for (row, verdict, reason) in cases {
        let patch = published(row, &verdict);
        let ready = &patch["status"]["conditions"][0];
        assert_eq!(
            (ready["status"].as_str(), ready["reason"].as_str()),
            (Some("False"), Some(reason))
        );
    }
    assert_eq!(
        status(
            &claim(json!({})),
            None,
            &Verdict::Waiting(std::time::Duration::ZERO),
            at(NOW)
        ),
        None
    );
}

#[test]
fn a_transient_fault_never_loses_the_name() {
    let named = claim_with(
        json!({}),
        json!({}),
        json!({"sandbox": {"name": "s", "podIPs": ["10.0.0.1"]}}),
    );
    for verdict in [
        Verdict::Failed(Fault::Refused("x".to_owned())),
        Verdict::Contended,
        Verdict::NamePending,
    ] {
        let new = status(&named, None, &verdict, at(NOW)).unwrap();
        assert_eq!(new.bound, named.bound, "{verdict:?}");
    }
    let over = Verdict::Expired {
        done: true,
        spared: None,
    };
    let new = status(&named, None, &over, at(NOW)).unwrap();
    assert_eq!(new.bound.name, None);
    assert!(patch(&named, &new).unwrap()["status"].as_object().unwrap()["sandbox"].is_null());
}

#[test]
fn finished_is_mirrored_and_outlives_the_sandbox_of_an_expired_claim() {
    let mut row = (*sandbox(json!({}), json!({}), Some(("False", "PodSucceeded")))).clone();
    let finished = crate::fixtures::row::<SandboxRow>(
        json!({"metadata": {}, "status": {"conditions": [
            condition("Ready", "False", "PodSucceeded"), condition("Finished", "True", "PodSucceeded"),
        ]}}),
    );
    row.status.conditions = finished.status.conditions.clone();
    let object = claim(json!({}));
    let new = status(&object, Some(&row), &bound_to(&row), at(NOW)).unwrap();
    let order: Vec<&str> = new.conditions.iter().map(|it| &*it.kind).collect();
    assert_eq!(order, ["Finished", "Ready"]);
    let mirrored = new.conditions.get("Finished").unwrap();
    assert_eq!(
        mirrored.since,
        at("2026-01-01T00:00:00Z"),
        "the time to live counts from here"
    );
    assert_eq!(mirrored.observed_generation, 4);

    let ended = claim_with(
        json!({}),
        json!({}),
        json!({"conditions": [condition("Finished", "True", "PodSucceeded")]}),
    );
    let over = Verdict::Expired {
        done: true,
        spared: None,
    };
    let new = status(&ended, None, &over, at(NOW)).unwrap();
    assert!(new.conditions.is_true("Finished"));
    let missing = Verdict::Missing {
        reason: "TemplateNotFound",
        message: String::new(),
    };
    let new = status(&ended, None, &missing, at(NOW)).unwrap();
    assert!(new.conditions.get("Finished").is_none());
}

#[test]
fn an_unchanged_status_is_not_written() {
    let row = sandbox(json!({}), json!({}), Some(("True", "DependenciesReady")));
    let value = published(Some(&row), &bound_to(&row))["status"].clone();
    let object = claim_with(json!({}), json!({}), value);
    let again = status(
        &object,
        Some(&row),
        &bound_to(&row),
        at("2026-06-01T00:00:00Z"),
    )
    .unwrap();
    assert_eq!(patch(&object, &again), None);
}
