//! What a claim's status should say. Pure.
//!
//! Name, addresses and Ready appear together, in one write: clients wait for all three at once.

use agent_sandbox_crds::condition::{self, reason};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::plan::Verdict;
use crate::objects::{Bound, ClaimRow, Condition, Conditions, SandboxRow, Truth};

/// The status of a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// Conditions, sorted by type.
    pub conditions: Conditions,
    /// The sandbox.
    pub bound: Bound,
}

/// What to publish for a verdict; `None` publishes nothing. `sandbox` is the one that counts, if the
/// claim has one.
pub fn status(
    claim: &ClaimRow,
    sandbox: Option<&SandboxRow>,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Status> {
    let ready = ready(claim, sandbox, verdict, now)?;
    let expired = matches!(verdict, Verdict::Expired { .. });
    let transient = matches!(
        verdict,
        Verdict::Failed(_) | Verdict::Contended | Verdict::NamePending
    );

    let mut conditions = if &*ready.kind == condition::READY && is_forwarded(verdict, sandbox) {
        claim.conditions.with_exactly(ready)
    } else {
        claim.conditions.with(ready)
    };
    let finished = sandbox.and_then(|row| row.status.conditions.get(condition::FINISHED));
    conditions = match finished {
        Some(finished) => conditions.with_exactly(Condition {
            observed_generation: claim.head.generation,
            ..finished.clone()
        }),
        // An expired claim keeps saying how it ended; a lookup that failed says nothing new.
        None if sandbox.is_none() && (expired || transient) => conditions,
        None => conditions.without(condition::FINISHED),
    };

    let bound = match sandbox {
        Some(row) => Bound {
            name: Some(row.head.key.name.clone()),
            pod_ips: row.status.pod_ips.clone(),
        },
        // Losing the name would make clients, and us after a restart, believe there is no sandbox.
        None if transient => claim.bound.clone(),
        None => Bound::default(),
    };
    Some(Status {
        conditions: conditions.sorted(),
        bound,
    })
}

/// Whether Ready is the sandbox's own, transition time included.
fn is_forwarded(verdict: &Verdict, sandbox: Option<&SandboxRow>) -> bool {
    matches!(verdict, Verdict::Bound(_))
        && sandbox.is_some_and(|row| {
            row.status
                .conditions
                .reason(condition::READY)
                .is_some_and(|why| why != reason::SANDBOX_EXPIRED)
        })
}

fn ready(
    claim: &ClaimRow,
    sandbox: Option<&SandboxRow>,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Condition> {
    let not = |why: &str, message: String| {
        Some(Condition {
            kind: condition::READY.into(),
            status: Truth::False,
            reason: why.into(),
            message: message.into(),
            observed_generation: claim.head.generation,
            since: now,
        })
    };
    match verdict {
        Verdict::Waiting(_) => None,
        Verdict::Missing { reason, message } => not(reason, message.clone()),
        Verdict::Rejected(rejection) => not(rejection.reason, rejection.message.clone()),
        Verdict::Contended => not(
            reason::ADOPTION_CONFLICT,
            "every member chosen was taken by somebody else; the next pass retries from a converged view"
                .to_owned(),
        ),
        Verdict::NamePending => not(
            reason::SANDBOX_CREATE_PENDING,
            "Waiting for an earlier Sandbox of this name to be gone".to_owned(),
        ),
        Verdict::Failed(fault) => not(reason::RECONCILER_ERROR, format!("Error seen: {fault}")),
        Verdict::Expired { spared, .. } => not(
            reason::CLAIM_EXPIRED,
            match spared {
                Some(detail) => format!("Claim expired. {detail}; deletion skipped."),
                None => "Claim expired. Sandbox cleanup initiated.".to_owned(),
            },
        ),
        Verdict::Bound(_) => {
            let Some(sandbox) = sandbox else {
                return not(reason::SANDBOX_MISSING, "Sandbox does not exist".to_owned());
            };
            match sandbox.status.conditions.get(condition::READY) {
                Some(theirs) if &*theirs.reason == reason::SANDBOX_EXPIRED => not(
                    reason::SANDBOX_EXPIRED,
                    "Underlying Sandbox resource has expired independently of the Claim."
                        .to_owned(),
                ),
                Some(theirs) => Some(Condition {
                    observed_generation: claim.head.generation,
                    ..theirs.clone()
                }),
                None => not(reason::SANDBOX_NOT_READY, "Sandbox is not ready".to_owned()),
            }
        }
    }
}

/// The merge patch that publishes `new`, conditional on the claim being as it was seen; `None` when
/// there is nothing to say.
pub fn patch(claim: &ClaimRow, new: &Status) -> Option<Value> {
    let mut status = Map::new();
    if claim.conditions != new.conditions {
        status.insert("conditions".to_owned(), new.conditions.to_value());
    }
    if claim.bound != new.bound {
        let ips: Vec<&str> = new.bound.pod_ips.iter().map(|ip| &**ip).collect();
        status.insert(
            "sandbox".to_owned(),
            match &new.bound.name {
                Some(name) => json!({
                    "name": &**name,
                    "podIPs": if ips.is_empty() { Value::Null } else { json!(ips) },
                }),
                None => Value::Null,
            },
        );
    }
    if status.is_empty() {
        return None;
    }
    Some(json!({
        "metadata": {
            "uid": claim.head.uid.to_string(),
            "resourceVersion": claim.head.revision.to_string(),
        },
        "status": status,
    }))
}
