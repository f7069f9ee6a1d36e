//! What a pool's status should say. Pure.

use agent_sandbox_crds::condition::NETWORK_POLICY_READY;
use agent_sandbox_crds::names;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::plan::Observed;
use crate::config::PoolSettings;
use crate::error::Fault;
use crate::objects::{AllocationRecord, Condition, PoolRow, PoolStatus, Truth};
use crate::store::Line;

/// Whether the pool gets to its size.
pub const PROGRESSING: &str = "Progressing";
/// It does, or is there.
pub const WARM_POOL_PROGRESSING: &str = "WarmPoolProgressing";
/// It does not.
pub const WARM_POOL_NOT_PROGRESSING: &str = "WarmPoolNotProgressing";
/// Its template is missing or cannot be used.
pub const SANDBOX_TEMPLATE_ERROR: &str = "SandboxTemplateError";

/// The status for what was observed after the steps, given what went wrong in them.
pub fn status(
    observed: &Observed<'_>,
    faults: &[Fault],
    settings: &PoolSettings,
    now: Timestamp,
) -> PoolStatus {
    let pool = observed.pool;
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let (truth, reason, message) = progress(observed, faults, settings, now);
    PoolStatus {
        replicas: count(observed.roll.staying()),
        ready_replicas: count(observed.roll.ready()),
        selector: Some(names::warm_pool_selector(&pool.head.key.name).into()),
        observed_generation: pool.head.generation,
        conditions: pool.status.conditions.with(Condition {
            kind: PROGRESSING.into(),
            status: truth,
            reason: reason.into(),
            message: message.into(),
            observed_generation: pool.head.generation,
            since: now,
        }),
    }
}

/// Messages leave out whatever changes by itself, so that an unchanged situation is not written again.
fn progress(
    observed: &Observed<'_>,
    faults: &[Fault],
    settings: &PoolSettings,
    now: Timestamp,
) -> (Truth, &'static str, String) {
    let (pool, roll) = (observed.pool, observed.roll);
    // Before that, the read that failed is what there is to tell.
    if observed.template.is_none() && faults.is_empty() {
        let message = format!("SandboxTemplate {:?} not found", &*pool.template);
        return (Truth::False, SANDBOX_TEMPLATE_ERROR, message);
    }
    if let Some(message) = observed.policy.obstacle() {
        // Normal for a moment after the template was created; told when it lasts, or when the template's
        // own status says that it will.
        let is_known = observed.template.is_some_and(|template| {
            let conditions = &template.status.conditions;
            conditions
                .get(NETWORK_POLICY_READY)
                .is_some_and(|it| it.status == Truth::False)
        });
        let waits = std::time::Duration::from_secs(10);
        if is_known || lasts(roll.podless(), waits, now) {
            return (Truth::False, SANDBOX_TEMPLATE_ERROR, message);
        }
    }
    if let Some(fault) = faults.first() {
        return (Truth::False, WARM_POOL_NOT_PROGRESSING, fault.to_string());
    }
    if pool.replicas > settings.replica_cap {
        let message = format!(
            "spec.replicas is above the limit of {}; the pool stops there",
            settings.replica_cap
        );
        return (Truth::False, WARM_POOL_NOT_PROGRESSING, message);
    }
    if lasts(roll.unschedulable(), settings.readiness_grace, now) {
        let message =
            "sandboxes are unschedulable past the readiness grace period; see their pods' events"
                .to_owned();
        return (Truth::False, WARM_POOL_NOT_PROGRESSING, message);
    }
    if !roll.finished().is_empty() {
        let message =
            "sandboxes run to their end while they wait; a template for a pool must keep running"
                .to_owned();
        return (Truth::False, WARM_POOL_NOT_PROGRESSING, message);
    }
    if !roll.stranded().is_empty() {
        let message =
            "sandboxes are on nodes that are not ready; each is replaced once another one is Ready in its place"
                .to_owned();
        return (Truth::True, WARM_POOL_PROGRESSING, message);
    }
    let message = "The pool has its size or is on its way there".to_owned();
    (Truth::True, WARM_POOL_PROGRESSING, message)
}

/// Whether the first of a line has been in it for longer than `time`.
fn lasts(line: &Line, time: std::time::Duration, now: Timestamp) -> bool {
    let time = jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX);
    line.first()
        .is_some_and(|(since, _)| now.duration_since(*since) > time)
}

/// Whether somebody waits for the difference: a spec to be acknowledged, or trouble that began or
/// ended. Mere counts can share a write.
pub fn is_urgent(pool: &PoolRow, new: &PoolStatus) -> bool {
    let old = &pool.status;
    let said = |status: &PoolStatus| status.conditions.get(PROGRESSING).map(|it| it.status);
    old.observed_generation != new.observed_generation || said(old) != said(new)
}

/// The members of `status` that publish `new`; `None` when there is nothing to say.
pub fn patch(pool: &PoolRow, new: &PoolStatus) -> Option<Map<String, Value>> {
    let old = &pool.status;
    let mut status = Map::new();
    // Zero is absent in the API, so it is written as null.
    let count = |n: i32| if n == 0 { Value::Null } else { json!(n) };
    if old.replicas != new.replicas {
        status.insert("replicas".to_owned(), count(new.replicas));
    }
    if old.ready_replicas != new.ready_replicas {
        status.insert("readyReplicas".to_owned(), count(new.ready_replicas));
    }
    if old.selector != new.selector {
        status.insert("selector".to_owned(), json!(new.selector.as_deref()));
    }
    if old.observed_generation != new.observed_generation {
        status.insert(
            "observedGeneration".to_owned(),
            json!(new.observed_generation),
        );
    }
    if old.conditions != new.conditions {
        status.insert("conditions".to_owned(), new.conditions.to_value());
    }
    (!status.is_empty()).then_some(status)
}

/// The merge patch that writes members of `status` and a new allocation record. Lists are replaced as a
/// whole, so that it holds only for the pool as it was seen when it has one: what somebody else has put
/// there meanwhile must not be lost.
pub fn with_record(
    pool: &PoolRow,
    status: Option<Map<String, Value>>,
    record: Option<&AllocationRecord>,
) -> Value {
    let mut status = status.unwrap_or_default();
    let mut metadata = json!({"uid": pool.head.uid.to_string()});
    if let Some(Value::Object(members)) = record.map(AllocationRecord::to_value) {
        status.extend(members);
    }
    if (record.is_some() || status.contains_key("conditions"))
        && let Some(members) = metadata.as_object_mut()
    {
        let revision = pool.head.revision.to_string();
        members.insert("resourceVersion".to_owned(), json!(revision));
    }
    json!({"metadata": metadata, "status": status})
}

/// Whether the condition says that the pool is stuck.
pub fn is_stuck(status: &PoolStatus) -> bool {
    status
        .conditions
        .get(PROGRESSING)
        .is_some_and(|it| it.status == Truth::False)
}

/// Whether the condition says that there is something wrong with the template.
pub fn says_template_is_missing(status: &PoolStatus) -> bool {
    status
        .conditions
        .get(PROGRESSING)
        .is_some_and(|it| &*it.reason == SANDBOX_TEMPLATE_ERROR)
}

/// The condition's message.
pub fn progress_message(status: &PoolStatus) -> String {
    status
        .conditions
        .get(PROGRESSING)
        .map_or_else(String::new, |it| it.message.to_string())
}
