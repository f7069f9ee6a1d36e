//! What a template's status says about its network policy. Pure.
//!
//! One condition, `NetworkPolicyReady`: whoever asks why no pod of a template starts finds the answer
//! there. Messages leave out whatever changes by itself, so that an unchanged situation is not written
//! again.

use agent_sandbox_crds::condition::{self, reason};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::plan::{Observed, is_managed, is_ours};
use crate::error::Fault;
use crate::objects::{Condition, TemplateRow, TemplateStatus, Truth};
use crate::store::Rival;

/// The status after the steps were taken; `observed` is the state since, `fault` what went wrong with the
/// policy. `None` when there is no template to say it of.
pub fn status(
    observed: &Observed,
    fault: Option<&Fault>,
    now: Timestamp,
) -> Option<TemplateStatus> {
    let template = observed.template.as_deref()?;
    let (status, reason, message) = verdict(template, observed, fault);
    let generation = template.head.generation;
    Some(TemplateStatus {
        observed_generation: generation,
        conditions: template.status.conditions.with(Condition {
            kind: condition::NETWORK_POLICY_READY.into(),
            status,
            reason: reason.into(),
            message: message.into(),
            observed_generation: generation,
            since: now,
        }),
    })
}

fn verdict(
    template: &TemplateRow,
    observed: &Observed,
    fault: Option<&Fault>,
) -> (Truth, &'static str, String) {
    let policy = observed.policy.as_deref();
    let name = &*observed.policy_name;
    let ours = policy.filter(|policy| is_ours(policy, template) && !policy.head.is_deleting());
    if let Some(rival) = &observed.rival {
        return (Truth::False, reason::HASH_COLLISION, collision(rival));
    }
    if !is_managed(template) {
        return if ours.is_some() {
            (
                Truth::True,
                reason::RETAINED,
                format!(
                    "the template is Unmanaged; NetworkPolicy {name:?} stays until the pods that started under it are gone"
                ),
            )
        } else {
            (
                Truth::False,
                reason::UNMANAGED,
                "the template is Unmanaged; its author looks after network policies".to_owned(),
            )
        };
    }
    if policy.is_some_and(|policy| !is_ours(policy, template)) {
        return (Truth::False, reason::CONFLICT, conflict(name));
    }
    match (fault, ours) {
        (Some(fault), _) => (Truth::False, reason::FAILED, fault.to_string()),
        (None, None) => (
            Truth::False,
            reason::FAILED,
            format!("NetworkPolicy {name:?} is being deleted; it is made again after that"),
        ),
        (None, Some(_)) => (
            Truth::True,
            reason::MANAGED,
            format!("NetworkPolicy {name:?} is in place"),
        ),
    }
}

/// What is said of a policy's name that somebody else has.
pub fn conflict(policy: &str) -> String {
    format!(
        "NetworkPolicy {policy:?} exists and is not managed for this template; no pod of the template starts until it is renamed or removed"
    )
}

/// What is said of a template whose name has the hash of another one's.
pub fn collision(rival: &Rival) -> String {
    let Rival { template, is_gone } = rival;
    let (whose, until) = if *is_gone {
        ("what is left of SandboxTemplate", "it is gone")
    } else {
        (
            "SandboxTemplate",
            "either is deleted; a template of another name has no such trouble",
        )
    };
    format!(
        "the name has the same hash as {whose} {:?}, whose network policy would cover the pods of both; no pod of this template starts until {until}",
        &**template
    )
}

/// The merge patch that publishes `new`; `None` when there is nothing to say.
pub fn patch(template: &TemplateRow, new: &TemplateStatus) -> Option<Value> {
    let old = &template.status;
    let mut status = Map::new();
    if old.observed_generation != new.observed_generation {
        status.insert(
            "observedGeneration".to_owned(),
            json!(new.observed_generation),
        );
    }
    if old.conditions != new.conditions {
        status.insert("conditions".to_owned(), new.conditions.to_value());
    }
    if status.is_empty() {
        return None;
    }
    let mut metadata = json!({"uid": template.head.uid.to_string()});
    // The list is replaced as a whole. Where somebody else keeps conditions in it, theirs must not be
    // lost to a race.
    let shared = old
        .conditions
        .iter()
        .any(|it| &*it.kind != condition::NETWORK_POLICY_READY);
    if shared && let Some(members) = metadata.as_object_mut() {
        members.insert(
            "resourceVersion".to_owned(),
            json!(template.head.revision.to_string()),
        );
    }
    Some(json!({"metadata": metadata, "status": status}))
}
