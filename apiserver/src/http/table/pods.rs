//! Pods: the one status that sums up phase, conditions and container states.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, Kind, age, at, condition, has_condition, is_deleting, items, name, number};
use super::{since, text, text_column, text_or, wide_column};

const COLUMNS: &[Column] = &[
    text_column("Name"),
    text_column("Ready"),
    text_column("Status"),
    text_column("Restarts"),
    text_column("Age"),
    wide_column("IP"),
    wide_column("Node"),
    wide_column("Nominated Node"),
    wide_column("Readiness Gates"),
];

pub(super) static PODS: Kind = Kind {
    columns: COLUMNS,
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = text_or(
        items(pod, "status.podIPs").first().unwrap_or(&Value::Null),
        "ip",
        "<none>",
    );
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        summary.restarts.text(now).into(),
        age(pod, now),
        ip.into(),
        text_or(pod, "spec.nodeName", "<none>").into(),
        text_or(pod, "status.nominatedNodeName", "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

/// Marks the row of a pod that will not run again.
pub(super) fn completion(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(pod, "status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({ "type": "Completed", "status": "True", "reason": reason, "message": message }))
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts<'a>,
}

/// How often containers were started again, and when the last of them ended.
#[derive(Default, Clone, Copy)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, container: &'a Value) {
        self.count += number(container, "restartCount");
        // Times of one spelling sort as text.
        self.last = self
            .last
            .max(text(container, "lastState.terminated.finishedAt"));
    }

    fn text(&self, now: Timestamp) -> String {
        if self.count == 0 || self.last.is_empty() {
            return self.count.to_string();
        }
        format!("{} ({} ago)", self.count, since(self.last, now))
    }
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let sidecars: Vec<&str> = items(pod, "spec.initContainers")
            .iter()
            .filter(|container| text(container, "restartPolicy") == "Always")
            .map(|container| text(container, "name"))
            .collect();
        let mut summary = Self {
            ready: 0,
            total: items(pod, "spec.containers").len() + sidecars.len(),
            status: text_or(pod, "status.reason", text(pod, "status.phase")).to_owned(),
            restarts: Restarts::default(),
        };
        let scheduled = condition(pod, "PodScheduled");
        if scheduled.is_some_and(|condition| text(condition, "reason") == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut summary.status);
        }
        let sidecar_restarts = summary.read_init_containers(pod, &sidecars);
        if let Some(restarts) = sidecar_restarts {
            summary.restarts = restarts;
            summary.read_containers(pod);
        }
        if is_deleting(pod) {
            if text(pod, "status.reason") == "NodeLost" {
                "Unknown".clone_into(&mut summary.status);
            } else if !matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.status);
            }
        }
        summary
    }

    /// Reads the init containers. Once they are through, returns the restarts of those that keep
    /// running beside the others.
    fn read_init_containers(&mut self, pod: &'a Value, sidecars: &[&str]) -> Option<Restarts<'a>> {
        let mut sidecar_restarts = Restarts::default();
        let mut initializing = false;
        for (index, container) in items(pod, "status.initContainerStatuses")
            .iter()
            .enumerate()
        {
            self.restarts.add(container);
            let is_sidecar = sidecars.contains(&text(container, "name"));
            if is_sidecar {
                sidecar_restarts.add(container);
            }
            let terminated = at(container, "state.terminated");
            let waiting = text(container, "state.waiting.reason");
            if terminated.is_object() && number(terminated, "exitCode") == 0 {
                continue;
            }
            if is_sidecar && at(container, "started") == true {
                self.ready += usize::from(at(container, "ready") == true);
                continue;
            }
            self.status = if terminated.is_object() {
                format!("Init:{}", end_of(terminated))
            } else if !matches!(waiting, "" | "PodInitializing") {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", items(pod, "spec.initContainers").len())
            };
            initializing = true;
            break;
        }
        (!initializing || has_condition(pod, "Initialized")).then_some(sidecar_restarts)
    }

    fn read_containers(&mut self, pod: &'a Value) {
        let mut running = false;
        let mut failure = None;
        for container in items(pod, "status.containerStatuses").iter().rev() {
            self.restarts.add(container);
            let waiting = text(container, "state.waiting.reason");
            let terminated = at(container, "state.terminated");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if terminated.is_object() {
                self.status = end_of(terminated);
                if number(terminated, "exitCode") != 0 {
                    failure = Some(self.status.clone());
                }
            } else if at(container, "ready") == true && at(container, "state.running").is_object() {
                running = true;
                self.ready += 1;
            }
        }
        // One container that ended does not make a pod complete.
        if self.status == "Completed" {
            if running && has_condition(pod, "Ready") {
                "Running".clone_into(&mut self.status);
            } else if let Some(failure) = failure {
                self.status = failure;
            } else if running {
                "NotReady".clone_into(&mut self.status);
            }
        }
    }
}

/// How a container ended: the reason, the signal or the exit code.
fn end_of(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match number(terminated, "signal") {
        0 => format!("ExitCode:{}", number(terminated, "exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| has_condition(pod, text(gate, "conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}
