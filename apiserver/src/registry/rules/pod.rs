//! Pods and pod templates.

use serde_json::Value;

use super::{Findings, container, elements, member, text, volume};
use crate::format::names;
use crate::schema::FieldError;

/// Whose spec it is: templates may leave to the pod what pods must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Pod,
    Template,
}

/// Everything wrong with a pod's spec.
pub(in crate::registry) fn pod(pod: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    spec(&mut findings, "spec", member(pod, "spec"), Owner::Pod);
    findings.0
}

pub(super) fn spec(findings: &mut Findings, path: &str, spec: &Value, owner: Owner) {
    let volumes = volume::volumes(findings, path, spec);
    container::containers(findings, path, spec, &volumes);
    if owner == Owner::Template && !member(spec, "ephemeralContainers").is_null() {
        let path = format!("{path}.ephemeralContainers");
        findings.forbidden(path, "ephemeral containers not allowed in pod template");
    }
    host_ports(findings, path, spec, owner);
    let restart = ["Always", "OnFailure", "Never"];
    findings.one_of(
        format!("{path}.restartPolicy"),
        text(spec, "restartPolicy"),
        &restart,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    findings.one_of(format!("{path}.dnsPolicy"), text(spec, "dnsPolicy"), &dns);
    findings.labels(
        &format!("{path}.nodeSelector"),
        member(spec, "nodeSelector"),
    );
    for field in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let name = text(spec, field);
        if !name.is_empty() {
            findings.text(
                format!("{path}.{field}"),
                name,
                names::dns1123_subdomain_errors(name),
            );
        }
    }
    security(
        findings,
        &format!("{path}.securityContext"),
        member(spec, "securityContext"),
    );
    for field in ["hostname", "subdomain"] {
        findings.label(format!("{path}.{field}"), text(spec, field));
    }
    if let Some(seconds) = member(spec, "activeDeadlineSeconds").as_i64() {
        for error in names::in_range_errors(seconds, 1, i64::from(i32::MAX)) {
            findings.invalid(format!("{path}.activeDeadlineSeconds"), seconds, error);
        }
    }
    for (path, toleration) in elements(spec, "tolerations", path) {
        check_toleration(findings, &path, toleration);
    }
    for (path, constraint) in elements(spec, "topologySpreadConstraints", path) {
        check_spread(findings, &path, constraint);
    }
    for (path, gate) in elements(spec, "readinessGates", path) {
        let condition = text(gate, "conditionType");
        let errors = names::label_key_errors(condition);
        findings.text(format!("{path}.conditionType"), condition, errors);
    }
}

/// What the security contexts of pods and of containers have in common.
pub(super) fn security(findings: &mut Findings, path: &str, context: &Value) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = member(context, field).as_i64() {
            for error in names::in_range_errors(id, 0, i64::from(i32::MAX)) {
                findings.invalid(format!("{path}.{field}"), id, error);
            }
        }
    }
}

fn check_spread(findings: &mut Findings, path: &str, constraint: &Value) {
    let skew = member(constraint, "maxSkew").as_i64().unwrap_or_default();
    if skew <= 0 {
        findings.invalid(format!("{path}.maxSkew"), skew, "must be greater than zero");
    }
    let action = text(constraint, "whenUnsatisfiable");
    let supported = ["DoNotSchedule", "ScheduleAnyway"];
    if !action.is_empty() && !supported.contains(&action) {
        findings.not_supported(format!("{path}.whenUnsatisfiable"), action, &supported);
    }
}

/// In the host's network a container's port is the host's port.
fn host_ports(findings: &mut Findings, path: &str, spec: &Value, owner: Owner) {
    if member(spec, "hostNetwork") != true {
        return;
    }
    for (path, container) in elements(spec, "containers", path) {
        for (path, port) in elements(container, "ports", &path) {
            let number = |field| member(port, field).as_i64().unwrap_or_default();
            let (host, own) = (number("hostPort"), number("containerPort"));
            if (owner == Owner::Pod || host != 0) && host != own {
                let problem = "must match `containerPort` when `hostNetwork` is true";
                findings.invalid(format!("{path}.hostPort"), host, problem);
            }
        }
    }
}

fn check_toleration(findings: &mut Findings, path: &str, toleration: &Value) {
    let [key, operator, value, effect] =
        ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
    if !key.is_empty() {
        findings.text(format!("{path}.key"), key, names::label_key_errors(key));
    } else if operator != "Exists" {
        findings.invalid(
            format!("{path}.operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if !member(toleration, "tolerationSeconds").is_null() && effect != "NoExecute" {
        let problem = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        findings.invalid(format!("{path}.effect"), effect, problem);
    }
    match operator {
        "" | "Equal" => {
            let errors = names::label_value_errors(value);
            if !errors.is_empty() {
                findings.invalid(format!("{path}.operator"), value, errors.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            let problem = "value must be empty when `operator` is 'Exists'";
            findings.invalid(format!("{path}.operator"), value, problem);
        }
        "Exists" => {}
        other => {
            findings.not_supported(format!("{path}.operator"), other, &["Equal", "Exists"]);
        }
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !effect.is_empty() && !effects.contains(&effect) {
        findings.not_supported(format!("{path}.effect"), effect, &effects);
    }
}
