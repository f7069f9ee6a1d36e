//! What a template's status says.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{NOW, observed, policy_of, template, unmanaged};
use crate::config::PolicySettings;
use crate::error::Fault;
use crate::fixtures::{at, condition, row};
use crate::objects::{TemplateRow, Truth};
use crate::store::Rival;
use crate::template::plan::Observed;
use crate::template::status::{patch, status};

const KIND: &str = "NetworkPolicyReady";

fn good() -> Value {
    policy_of(&template(json!({})), &PolicySettings::default())
}

fn told(observed: &Observed, fault: Option<&Fault>) -> (Truth, String, String) {
    let new = status(observed, fault, at(NOW)).unwrap();
    assert_eq!(new.observed_generation, 1);
    let condition = new.conditions.get(KIND).unwrap();
    assert_eq!(condition.observed_generation, 1);
    (
        condition.status,
        condition.reason.to_string(),
        condition.message.to_string(),
    )
}

#[test]
fn every_situation_has_its_reason() {
    let managed = || Some(template(json!({})));
    let fault = Fault::Transient {
        message: "creating NetworkPolicy: forbidden".to_owned(),
        retry_after: None,
    };
    let mut going = good();
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    let foreign = json!({"metadata": {"name": "t-network-policy"}, "spec": {"podSelector": {}}});
    let mut second = observed(managed(), Some(good()), true);
    second.rival = Some(Rival {
        template: "u".into(),
        is_gone: false,
    });
    let mut remains = observed(Some(unmanaged()), None, true);
    remains.rival = Some(Rival {
        template: "u".into(),
        is_gone: true,
    });
    let seen = |template, policy| observed(template, policy, true);
    for (observed, fault, truth, reason, words) in [
        (
            seen(managed(), Some(good())),
            None,
            Truth::True,
            "Managed",
            "in place",
        ),
        (
            seen(managed(), None),
            Some(&fault),
            Truth::False,
            "Failed",
            "forbidden",
        ),
        (
            seen(managed(), Some(good())),
            Some(&fault),
            Truth::False,
            "Failed",
            "forbidden",
        ),
        (
            seen(managed(), Some(going)),
            None,
            Truth::False,
            "Failed",
            "being deleted",
        ),
        (
            seen(managed(), Some(foreign)),
            Some(&fault),
            Truth::False,
            "Conflict",
            "renamed or removed",
        ),
        (
            seen(Some(unmanaged()), None),
            None,
            Truth::False,
            "Unmanaged",
            "author",
        ),
        (
            seen(Some(unmanaged()), Some(good())),
            None,
            Truth::True,
            "Retained",
            "until the pods",
        ),
        (
            second,
            None,
            Truth::False,
            "HashCollision",
            "SandboxTemplate \"u\"",
        ),
        (
            remains,
            None,
            Truth::False,
            "HashCollision",
            "what is left of",
        ),
    ] {
        let (status, why, message) = told(&observed, fault);
        assert_eq!((status, &*why), (truth, reason), "{message}");
        assert!(message.contains(words), "{reason}: {message}");
    }
    assert_eq!(status(&observed(None, None, true), None, at(NOW)), None);
}

#[test]
fn a_status_is_written_when_it_changes_and_otherwise_not() {
    let fresh = observed(Some(template(json!({}))), Some(good()), true);
    let new = status(&fresh, None, at(NOW)).unwrap();
    let written = patch(fresh.template.as_deref().unwrap(), &new).unwrap();
    assert_eq!(written["status"]["observedGeneration"], 1);
    assert_eq!(
        written["status"]["conditions"][0]["lastTransitionTime"],
        NOW
    );
    assert_eq!(written["metadata"].get("resourceVersion"), None);

    let with = |generation: i64, status: &Value| -> Arc<TemplateRow> {
        row(json!({
            "metadata": {"name": "t", "generation": generation},
            "spec": {"podTemplate": {"spec": {}}}, "status": status,
        }))
    };
    let settled = observed(Some(with(1, &written["status"])), Some(good()), true);
    let again = status(&settled, None, at("2026-01-01T13:00:00Z")).unwrap();
    assert_eq!(patch(settled.template.as_deref().unwrap(), &again), None);

    let edited = observed(Some(with(2, &written["status"])), Some(good()), true);
    let new = status(&edited, None, at("2026-01-01T13:00:00Z")).unwrap();
    let written = patch(edited.template.as_deref().unwrap(), &new).unwrap();
    assert_eq!(written["status"]["observedGeneration"], 2);
    assert_eq!(
        written["status"]["conditions"][0]["lastTransitionTime"],
        NOW
    );
}

#[test]
fn conditions_of_others_stay_and_are_not_lost_to_a_race() {
    let theirs: Arc<TemplateRow> = row(json!({
        "metadata": {"name": "t"}, "spec": {"podTemplate": {"spec": {}}},
        "status": {"conditions": [condition("Audited", "True", "Yes")]},
    }));
    let seen = observed(Some(theirs.clone()), Some(good()), true);
    let new = status(&seen, None, at(NOW)).unwrap();
    let written = patch(&theirs, &new).unwrap();
    assert_eq!(written["status"]["conditions"][0]["type"], "Audited");
    assert_eq!(written["status"]["conditions"][1]["type"], KIND);
    assert_eq!(written["metadata"]["resourceVersion"], "10");
}
