//! What a sandbox's status should say, and whether saying it can wait. Pure.

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::names;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::desired;
use super::plan::{Holder, Observed};
use super::policy::Policy;
use crate::error::Fault;
use crate::ident::Text;
use crate::objects::{
    Condition, Conditions, Mode, PodPhase, PodRow, SandboxRow, SandboxStatus, Truth,
};

/// How the steps of a pass went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went wrong, in the order of the steps.
    pub faults: Vec<Fault>,
    /// Whether the pod's step was among them, so that the pod's state may be unknown.
    pub pod_failed: bool,
    /// How many pods there are, when there are too many.
    pub too_many_pods: Option<usize>,
}

/// The pod, as far as the status is concerned.
enum PodView<'a> {
    Absent,
    Ours(&'a PodRow),
    /// Somebody else's pod of the same name, while suspending.
    Foreign,
    Unknown,
}

/// The status after a normal pass. `observed` is the state after the steps were taken.
pub fn converged(
    observed: &Observed,
    outcome: &Outcome,
    now: Timestamp,
    cluster_domain: &str,
) -> SandboxStatus {
    let row = &*observed.sandbox;
    let old = &row.status;
    let pod = view(observed, outcome);
    let service = observed
        .service
        .held()
        .filter(|service| {
            service.head.is_controlled_by(row.head.uid)
                && !service.head.is_deleting()
                && row.service != Some(false)
        })
        .map(|service| service.head.key.name.clone());

    let setter = Setter {
        generation: row.head.generation,
        now,
    };
    let mut conditions = setter.set(&old.conditions, suspended(row, &pod));
    conditions = match finished(&pod) {
        Some(condition) => setter.set(&conditions, condition),
        None => conditions.without(condition::FINISHED),
    };
    conditions = match scheduled(&pod, old) {
        Some(condition) => setter.set(&conditions, condition),
        None => conditions.without(condition::POD_SCHEDULED),
    };
    let ready = ready(observed, outcome, &pod, service.is_some());
    conditions = setter.set(&conditions, ready);
    conditions = match outdated(row, &pod) {
        Some(condition) => setter.set(&conditions, condition),
        None => conditions.without(condition::POD_OUTDATED),
    };
    conditions = match lost_policy(&observed.policy) {
        Some(condition) => setter.set(&conditions, condition),
        None => conditions.without(condition::NETWORK_POLICY_READY),
    };

    SandboxStatus {
        conditions,
        selector: match pod {
            PodView::Ours(_) | PodView::Foreign => {
                Some(names::sandbox_selector(&row.head.key.name).into())
            }
            PodView::Absent | PodView::Unknown => old.selector.clone(),
        },
        service_fqdn: service.as_ref().map(|service| {
            names::service_fqdn(service, &row.head.key.namespace, cluster_domain).into()
        }),
        service,
        pod_ips: match pod {
            PodView::Ours(pod) => pod.ips.clone(),
            _ => Box::default(),
        },
        node_name: match pod {
            PodView::Ours(pod) => pod.node.clone(),
            _ => None,
        },
        replicas: Some(i32::from(matches!(pod, PodView::Ours(_)))),
    }
}

/// The status that says a sandbox expired, before anything is taken down.
pub fn marked_expired(row: &SandboxRow, now: Timestamp) -> SandboxStatus {
    let setter = Setter {
        generation: row.head.generation,
        now,
    };
    let mut conditions = row
        .status
        .conditions
        .without(condition::POD_SCHEDULED)
        .without(condition::POD_OUTDATED)
        .without(condition::NETWORK_POLICY_READY);
    if let Some(suspended) = conditions.get(condition::SUSPENDED).cloned() {
        conditions = conditions.with(Condition {
            observed_generation: row.head.generation,
            ..suspended
        });
    }
    let expired = Draft::new(
        condition::READY,
        Truth::False,
        reason::SANDBOX_EXPIRED,
        "Sandbox has expired",
    );
    SandboxStatus {
        conditions: setter.set(&conditions, expired),
        ..row.status.clone()
    }
}

/// The status of a retained sandbox after it was taken down: conditions only.
pub fn torn_down(row: &SandboxRow, now: Timestamp) -> SandboxStatus {
    SandboxStatus {
        conditions: marked_expired(row, now).conditions,
        replicas: Some(0),
        ..SandboxStatus::default()
    }
}

fn view<'a>(observed: &'a Observed, outcome: &Outcome) -> PodView<'a> {
    if outcome.too_many_pods.is_some() {
        return PodView::Unknown;
    }
    if let Some(pod) = observed.pods.first() {
        return PodView::Ours(pod);
    }
    if observed.sandbox.mode == Mode::Suspended
        && let Holder::Held(pod) = &observed.pod_name
    {
        return if pod.head.is_controlled_by(observed.sandbox.head.uid) {
            PodView::Ours(pod)
        } else {
            PodView::Foreign
        };
    }
    if outcome.pod_failed {
        PodView::Unknown
    } else {
        PodView::Absent
    }
}

/// A condition before it has a generation and a time.
struct Draft {
    kind: &'static str,
    status: Truth,
    reason: Text,
    message: Text,
}

impl Draft {
    fn new(
        kind: &'static str,
        status: Truth,
        reason: impl Into<Text>,
        message: impl Into<Text>,
    ) -> Self {
        Self {
            kind,
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

struct Setter {
    generation: i64,
    now: Timestamp,
}

impl Setter {
    fn set(&self, conditions: &Conditions, draft: Draft) -> Conditions {
        conditions.with(Condition {
            kind: draft.kind.into(),
            status: draft.status,
            reason: draft.reason,
            message: draft.message,
            observed_generation: self.generation,
            since: self.now,
        })
    }
}

fn suspended(row: &SandboxRow, pod: &PodView<'_>) -> Draft {
    let (status, why, message) = match (row.mode, pod) {
        (Mode::Running, _) => (
            Truth::False,
            reason::NOT_SUSPENDED,
            "Sandbox is not suspended",
        ),
        (Mode::Suspended, PodView::Unknown) => (
            Truth::Unknown,
            reason::POD_STATE_UNKNOWN,
            "Pod state is unknown. Sandbox suspension cannot be confirmed",
        ),
        (Mode::Suspended, PodView::Absent) => (
            Truth::True,
            reason::POD_TERMINATED,
            "Pod has been terminated. Sandbox is suspended",
        ),
        (Mode::Suspended, PodView::Foreign) => (
            Truth::False,
            reason::POD_NOT_OWNED,
            "Refused to delete pod because it is not owned by this sandbox",
        ),
        (Mode::Suspended, PodView::Ours(_)) => (
            Truth::False,
            reason::POD_TERMINATING,
            "Pod is terminating. Sandbox is suspending",
        ),
    };
    Draft::new(condition::SUSPENDED, status, why, message)
}

fn finished(pod: &PodView<'_>) -> Option<Draft> {
    let PodView::Ours(pod) = pod else {
        return None;
    };
    let (why, message) = end(&pod.phase)?;
    Some(Draft::new(condition::FINISHED, Truth::True, why, message))
}

/// Reason and message of a pod that has run to its end.
fn end(phase: &PodPhase) -> Option<(&'static str, &'static str)> {
    match phase {
        PodPhase::Succeeded => Some((reason::POD_SUCCEEDED, "Pod completed successfully")),
        PodPhase::Failed => Some((reason::POD_FAILED, "Pod failed")),
        _ => None,
    }
}

fn scheduled(pod: &PodView<'_>, old: &SandboxStatus) -> Option<Draft> {
    let unknown = |message: &'static str| {
        Draft::new(
            condition::POD_SCHEDULED,
            Truth::Unknown,
            reason::POD_SCHEDULING_UNKNOWN,
            message,
        )
    };
    match pod {
        PodView::Absent | PodView::Foreign => None,
        PodView::Unknown => Some(unknown(
            "Pod state is unknown. Pod scheduling cannot be determined",
        )),
        PodView::Ours(pod) => Some(match &pod.scheduled {
            None => unknown("Pod has not reported a PodScheduled condition yet"),
            Some(said) => {
                let known = if !said.reason.is_empty() {
                    said.reason.clone()
                } else if said.status == Truth::True {
                    reason::POD_SCHEDULED.into()
                } else {
                    reason::POD_SCHEDULING_UNKNOWN.into()
                };
                // Reuse the text already held where it says the same.
                let message = old
                    .conditions
                    .get(condition::POD_SCHEDULED)
                    .map(|it| it.message.clone())
                    .filter(|message| *message == said.message)
                    .unwrap_or_else(|| said.message.clone());
                Draft::new(condition::POD_SCHEDULED, said.status, known, message)
            }
        }),
    }
}

/// What is said of a pod whose sandbox has got another pod spec since.
pub const OUTDATED: &str = "spec.podTemplate.spec was changed after the pod was created, and a pod never \
    changes; the pod that replaces it, after it is deleted or the sandbox suspended and resumed, has the new one";

fn outdated(row: &SandboxRow, pod: &PodView<'_>) -> Option<Draft> {
    let PodView::Ours(pod) = pod else {
        return None;
    };
    let concerns = row.mode == Mode::Running && !pod.head.is_deleting();
    (concerns && desired::is_outdated(row, pod)).then(|| {
        Draft::new(
            condition::POD_OUTDATED,
            Truth::True,
            reason::POD_SPEC_CHANGED,
            OUTDATED,
        )
    })
}

/// What is said of a sandbox whose pods nobody knows the rules for any more, whether it has one or not.
fn lost_policy(policy: &Policy) -> Option<Draft> {
    let Policy::Lost { .. } = policy else {
        return None;
    };
    Some(Draft::new(
        condition::NETWORK_POLICY_READY,
        Truth::False,
        reason::RULES_LOST,
        policy.obstacle()?,
    ))
}

fn ready(observed: &Observed, outcome: &Outcome, pod: &PodView<'_>, service_exists: bool) -> Draft {
    let row = &*observed.sandbox;
    let not = |why: &'static str, message: String| {
        Draft::new(condition::READY, Truth::False, why, message)
    };
    if let Some(count) = outcome.too_many_pods {
        return not(reason::MULTIPLE_PODS, multiple_pods(count));
    }
    if let Some(invalid) = outcome
        .faults
        .iter()
        .find(|fault| matches!(fault, Fault::Invalid(_)))
    {
        return not(reason::INVALID_CONFIGURATION, invalid.to_string());
    }
    if !outcome.faults.is_empty() {
        let all: Vec<String> = outcome.faults.iter().map(ToString::to_string).collect();
        return not(
            reason::RECONCILER_ERROR,
            format!("Error seen: {}", all.join("; ")),
        );
    }
    if row.mode == Mode::Suspended {
        let message = match pod {
            PodView::Absent => "Sandbox is suspended",
            _ => "Sandbox is suspending",
        };
        return not(reason::SANDBOX_SUSPENDED, message.to_owned());
    }
    if let PodView::Ours(pod) = pod
        && let Some((why, message)) = end(&pod.phase)
    {
        return not(why, message.to_owned());
    }
    let (pod_is_ready, mut message) = pod_message(observed, pod);
    let service_required = row.service == Some(true) || (row.service.is_none() && service_exists);
    if service_required {
        message.push_str(if service_exists {
            "; Service Exists"
        } else {
            "; Service does not exist"
        });
    }
    if pod_is_ready && (!service_required || service_exists) {
        return Draft::new(
            condition::READY,
            Truth::True,
            reason::DEPENDENCIES_READY,
            message,
        );
    }
    not(reason::DEPENDENCIES_NOT_READY, message)
}

/// Whether the pod is ready for use, and how that is said.
fn pod_message(observed: &Observed, pod: &PodView<'_>) -> (bool, String) {
    let PodView::Ours(pod) = pod else {
        return (
            false,
            match observed.policy.obstacle() {
                None => "Pod does not exist".to_owned(),
                Some(obstacle) => format!("Pod does not exist; {obstacle}"),
            },
        );
    };
    if pod.head.is_deleting() {
        // Its containers may still answer, but not for long: nobody should be sent there.
        return (false, "Pod is terminating".to_owned());
    }
    match (&pod.phase, pod.ready, pod.ips.is_empty()) {
        (PodPhase::Running, true, false) => (true, "Pod is Ready".to_owned()),
        (PodPhase::Running, true, true) => (false, "Pod is Ready but has no podIPs yet".to_owned()),
        (PodPhase::Running, false, _) => (false, "Pod is Running but not Ready".to_owned()),
        (phase, _, _) => (false, format!("Pod exists with phase: {}", phase.as_str())),
    }
}

/// The message of the multiple-pods condition and its event.
pub fn multiple_pods(count: usize) -> String {
    format!(
        "multiple Pods ({count}) are controlled by this Sandbox; refusing to choose or create a Pod"
    )
}

/// Whether a new status must be written, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Nothing changed that is worth a write of its own; it rides with the next one.
    None,
    /// Details changed that nobody waits for; several such changes share one write.
    Later,
    /// Somebody may be waiting for this.
    Now,
}

/// Judges the difference between the status as it is and as it should be.
pub fn urgency(row: &SandboxRow, new: &SandboxStatus) -> Urgency {
    let old = &row.status;
    if old == new {
        return Urgency::None;
    }
    let is_ready = new.conditions.is_true(condition::READY);
    let same_fields = old.selector == new.selector
        && old.service == new.service
        && old.service_fqdn == new.service_fqdn
        && old.pod_ips == new.pod_ips;
    let same_node = old.node_name == new.node_name || !is_ready;
    if same_fields && same_node && old.conditions.equal_but_generations(&new.conditions) {
        let acknowledges = old.conditions != new.conditions && !row.generation_is_from_binding();
        return if acknowledges {
            Urgency::Now
        } else {
            Urgency::None
        };
    }
    let said = |status: &SandboxStatus, kind| {
        status
            .conditions
            .get(kind)
            .map(|it| (it.status, it.reason.clone()))
    };
    let news = |kind| said(old, kind) != said(new, kind);
    let first_word = old.conditions.is_empty()
        && new.conditions.reason(condition::READY) == Some(reason::DEPENDENCIES_NOT_READY);
    let spec_changed = old
        .conditions
        .iter()
        .any(|it| it.observed_generation != row.head.generation)
        && !row.generation_is_from_binding();
    let urgent = news(condition::NETWORK_POLICY_READY)
        || !first_word
            && (news(condition::READY)
                || news(condition::SUSPENDED)
                || news(condition::FINISHED)
                || (is_ready && !same_fields)
                || spec_changed);
    if urgent { Urgency::Now } else { Urgency::Later }
}

/// The merge patch that turns the status as it is into `new`; `None` when they are equal.
pub fn patch(row: &SandboxRow, new: &SandboxStatus) -> Option<Value> {
    let old = &row.status;
    let mut status = Map::new();
    let mut text = |name: &str, old: &Option<Text>, new: &Option<Text>| {
        if old != new {
            let value = new.as_ref().map_or(Value::Null, |text| json!(&**text));
            status.insert(name.to_owned(), value);
        }
    };
    text("selector", &old.selector, &new.selector);
    text("service", &old.service, &new.service);
    text("serviceFQDN", &old.service_fqdn, &new.service_fqdn);
    text("nodeName", &old.node_name, &new.node_name);
    if old.pod_ips != new.pod_ips {
        let ips: Vec<&str> = new.pod_ips.iter().map(|ip| &**ip).collect();
        let value = if ips.is_empty() {
            Value::Null
        } else {
            json!(ips)
        };
        status.insert("podIPs".to_owned(), value);
    }
    if old.replicas != new.replicas {
        status.insert("replicas".to_owned(), json!(new.replicas));
    }
    if old.conditions != new.conditions {
        status.insert("conditions".to_owned(), new.conditions.to_value());
    }
    if status.is_empty() {
        return None;
    }
    let mut metadata = json!({"uid": row.head.uid.to_string()});
    // The list is replaced as a whole. Where somebody else keeps conditions in it, theirs must not be
    // lost to a race.
    let known = [
        condition::READY,
        condition::SUSPENDED,
        condition::POD_SCHEDULED,
        condition::FINISHED,
        condition::POD_OUTDATED,
        condition::NETWORK_POLICY_READY,
    ];
    let shared = old.conditions.iter().any(|it| !known.contains(&&*it.kind));
    if shared && let Some(members) = metadata.as_object_mut() {
        members.insert(
            "resourceVersion".to_owned(),
            json!(row.head.revision.to_string()),
        );
    }
    Some(json!({"metadata": metadata, "status": status}))
}
