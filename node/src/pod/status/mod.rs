//! The status of a pod as a kubelet writes it.
//!
//! Pure: [`pod_status`] turns states into the API's form, [`difference`] finds the smallest patch
//! that leads from what was written to what should be. Conditions, reasons and messages follow
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

use super::phase::{ContainerState, Current, Ended, PodPhase, Role, Waiting};
use crate::quantity::Amount;

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) spec: &'a PodSpec,
    pub(crate) containers: &'a [ContainerState],
    pub(crate) phase: PodPhase,
    /// Why the pod failed as a whole, as reason and message.
    pub(crate) verdict: Option<(&'a str, &'a str)>,
    pub(crate) initialized: bool,
    pub(crate) started: Timestamp,
    pub(crate) host_ip: IpAddr,
    pub(crate) pod_ip: Option<IpAddr>,
    /// The conditions written last, for their transition times.
    pub(crate) previous: &'a [PodCondition],
    pub(crate) now: Timestamp,
}

/// The condition types that are ours to write.
const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// The whole status.
pub(crate) fn pod_status(facts: &Facts<'_>) -> PodStatus {
    let (init, apps): (Vec<_>, Vec<_>) = facts
        .containers
        .iter()
        .partition(|container| container.role != Role::App);
    let init: Vec<ContainerStatus> = init.iter().map(|c| container_status(facts, c)).collect();
    let mut apps: Vec<ContainerStatus> = apps.iter().map(|c| container_status(facts, c)).collect();
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    let existing = facts.pod.status.as_ref();
    PodStatus {
        phase: Some(facts.phase.name().to_owned()),
        reason: facts.verdict.map(|(reason, _)| reason.to_owned()),
        message: facts.verdict.map(|(_, message)| message.to_owned()),
        conditions: Some(conditions(facts)),
        host_ip: Some(facts.host_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: facts.host_ip.to_string(),
        }]),
        pod_ip: facts.pod_ip.map(|ip| ip.to_string()),
        pod_ips: facts.pod_ip.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        start_time: Some(Time(facts.started)),
        qos_class: existing
            .and_then(|status| status.qos_class.clone())
            .or_else(|| Some(qos_class(facts.spec).to_owned())),
        observed_generation: facts.pod.metadata.generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(apps),
        ..PodStatus::default()
    }
}

fn container_status(facts: &Facts<'_>, container: &ContainerState) -> ContainerStatus {
    let spec = spec_of(facts.spec, &container.name);
    let image = spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
    let id = match (&container.current, &container.last) {
        (Current::Running(running), _) => Some(&running.id),
        (Current::Ended(ended), _) | (_, Some(ended)) => Some(&ended.id),
        _ => None,
    };
    let ready = match container.role {
        Role::Init => container.final_code() == Some(0),
        Role::Sidecar | Role::App => container.is_ready(),
    };
    ContainerStatus {
        name: container.name.clone(),
        state: Some(match &container.current {
            Current::Waiting(waiting) => waiting_state(facts, Some(waiting)),
            Current::Starting => waiting_state(facts, None),
            Current::Running(running) => ApiState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(running.since)),
                }),
                ..ApiState::default()
            },
            Current::Ended(ended) => terminated(ended),
        }),
        last_state: Some(container.last.as_ref().map(terminated).unwrap_or_default()),
        ready,
        restart_count: i32::try_from(container.restarts).unwrap_or(i32::MAX),
        image_id: if id.is_some() {
            format!("process://{image}")
        } else {
            String::new()
        },
        image,
        container_id: id
            .filter(|id| !id.is_empty())
            .map(|id| format!("process://{id}")),
        started: Some(container.is_started()),
        ..ContainerStatus::default()
    }
}

fn spec_of<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    let mut all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    all.find(|container| container.name == name)
}

fn waiting_state(facts: &Facts<'_>, waiting: Option<&Waiting>) -> ApiState {
    // What has no reason of its own waits for its turn.
    let turn = if facts.spec.init_containers.iter().flatten().next().is_some() {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let reason = waiting
        .and_then(|waiting| waiting.reason.name())
        .unwrap_or(turn);
    ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: waiting
                .map(|waiting| waiting.message.clone())
                .filter(|message| !message.is_empty()),
        }),
        ..ApiState::default()
    }
}

fn terminated(ended: &Ended) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            reason: Some(ended.reason.to_owned()),
            message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
            started_at: Some(Time(ended.started)),
            finished_at: Some(Time(ended.finished)),
            container_id: (!ended.id.is_empty()).then(|| format!("process://{}", ended.id)),
            signal: None,
        }),
        ..ApiState::default()
    }
}

/// One condition before it has its times.
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Finding {
    fn holds(kind: &'static str) -> Self {
        Self {
            kind,
            holds: true,
            reason: None,
            message: None,
        }
    }

    fn fails(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self {
            kind,
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

fn conditions(facts: &Facts<'_>) -> Vec<PodCondition> {
    let sandbox = Finding {
        holds: facts.pod_ip.is_some() && !facts.phase.is_terminal(),
        ..Finding::holds("PodReadyToStartContainers")
    };
    let containers = containers_ready(facts);
    let ready = ready(facts, &containers);
    let findings = [
        sandbox,
        initialized(facts),
        ready,
        containers,
        Finding::holds("PodScheduled"),
    ];
    findings
        .into_iter()
        .map(|finding| timed(facts, finding))
        .collect()
}

fn timed(facts: &Facts<'_>, finding: Finding) -> PodCondition {
    let status = if finding.holds { "True" } else { "False" };
    let previous = facts.previous.iter().find(|old| old.type_ == finding.kind);
    let since = previous
        .filter(|old| old.status == status)
        .and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: finding.kind.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message,
        last_transition_time: Some(since.unwrap_or(Time(facts.now))),
        last_probe_time: None,
        observed_generation: facts.pod.metadata.generation,
    }
}

fn initialized(facts: &Facts<'_>) -> Finding {
    let incomplete: Vec<&str> = facts
        .containers
        .iter()
        .filter(|container| match container.role {
            Role::Init => container.final_code() != Some(0),
            Role::Sidecar => !container.is_started() && !facts.initialized,
            Role::App => false,
        })
        .map(|container| container.name.as_str())
        .collect();
    if facts.phase == PodPhase::Succeeded {
        return Finding {
            reason: Some("PodCompleted"),
            ..Finding::holds("Initialized")
        };
    }
    if incomplete.is_empty() || facts.initialized {
        return Finding::holds("Initialized");
    }
    let message = format!(
        "containers with incomplete status: [{}]",
        incomplete.join(" ")
    );
    Finding::fails("Initialized", "ContainersNotInitialized", Some(message))
}

fn containers_ready(facts: &Facts<'_>) -> Finding {
    let kind = "ContainersReady";
    let unready: Vec<&str> = facts
        .containers
        .iter()
        .filter(|container| container.role != Role::Init && !container.is_ready())
        .map(|container| container.name.as_str())
        .collect();
    match facts.phase {
        PodPhase::Succeeded => Finding::fails(kind, "PodCompleted", None),
        PodPhase::Failed => Finding::fails(kind, "PodFailed", None),
        _ if unready.is_empty() => Finding::holds(kind),
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Finding::fails(kind, "ContainersNotReady", Some(message))
        }
    }
}

fn ready(facts: &Facts<'_>, containers: &Finding) -> Finding {
    if !containers.holds {
        return Finding {
            kind: "Ready",
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let known = facts
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let gates = facts.spec.readiness_gates.iter().flatten();
    let closed: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            let condition = known
                .into_iter()
                .flatten()
                .find(|condition| condition.type_ == *kind);
            match condition {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if closed.is_empty() {
        Finding::holds("Ready")
    } else {
        Finding::fails("Ready", "ReadinessGatesNotReady", Some(closed.join(", ")))
    }
}

/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let amounts = |map: Option<&BTreeMap<String, _>>, name: &str| {
            map.and_then(|map| map.get(name))
                .and_then(Amount::of)
                .filter(|amount| !amount.is_zero())
        };
        let resources = container.resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = amounts(resources.and_then(|r| r.limits.as_ref()), name);
            let request = amounts(resources.and_then(|r| r.requests.as_ref()), name);
            any |= limit.is_some() || request.is_some();
            // A missing request is the limit's.
            guaranteed &= limit.is_some() && request.or(limit) == limit;
        }
    }
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

/// The strategic merge patch of the status subresource that turns `written` into `wanted`; `None`
/// when they agree. Conditions of others are not touched.
pub(crate) fn difference(written: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (written, wanted) = (object(written), object(wanted));
    let mut patch = Map::new();
    for (key, value) in &wanted {
        if key == "conditions" {
            let changed = changed_conditions(written.get(key), value);
            if !changed.is_empty() {
                patch.insert(key.clone(), Value::Array(changed));
            }
        } else if written.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in ["reason", "message", "podIP", "podIPs"] {
        if written.contains_key(key) && !wanted.contains_key(key) {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
    (!patch.is_empty()).then(|| json!({"status": patch}))
}

fn changed_conditions(written: Option<&Value>, wanted: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let written = written.map(list).unwrap_or_default();
    let mut changed = Vec::new();
    for mut condition in list(wanted) {
        let old = written
            .iter()
            .find(|old| old.get("type") == condition.get("type"));
        if old == Some(&condition) {
            continue;
        }
        if let (Some(old), Some(new)) = (old, condition.as_object_mut()) {
            for key in ["reason", "message"] {
                if old.get(key).is_some() && !new.contains_key(key) {
                    new.insert(key.to_owned(), Value::Null);
                }
            }
        }
        changed.push(condition);
    }
    changed
}

/// The part of a status found in the API that counts as written by us.
pub(crate) fn own(status: Option<&PodStatus>) -> PodStatus {
    let mut own = status.cloned().unwrap_or_default();
    if let Some(conditions) = &mut own.conditions {
        conditions.retain(|condition| OWN_CONDITIONS.contains(&condition.type_.as_str()));
    }
    own
}

#[cfg(test)]
mod tests;
