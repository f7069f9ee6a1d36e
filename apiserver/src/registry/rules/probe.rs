//! Probes and lifecycle hooks.

use serde_json::Value;

use super::{Findings, elements, member, port_errors, text};

/// Checks the probes and hooks of a container that keeps running.
pub(super) fn all(findings: &mut Findings, path: &str, container: &Value, grace: Option<i64>) {
    for hook in ["postStart", "preStop"] {
        let handler = member(member(container, "lifecycle"), hook);
        if !handler.is_null() {
            check_handler(
                findings,
                &format!("{path}.lifecycle.{hook}"),
                handler,
                grace,
            );
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = member(container, field);
        if probe.is_null() {
            continue;
        }
        let path = format!("{path}.{field}");
        check_handler(findings, &path, probe, grace);
        let numbers = [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        for number in numbers {
            findings.non_negative(format!("{path}.{number}"), member(probe, number));
        }
        let threshold = member(probe, "successThreshold")
            .as_i64()
            .unwrap_or_default();
        if field != "readinessProbe" && threshold != 1 {
            findings.invalid(format!("{path}.successThreshold"), threshold, "must be 1");
        }
        let seconds = member(probe, "terminationGracePeriodSeconds").as_i64();
        if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0) {
            let path = format!("{path}.terminationGracePeriodSeconds");
            findings.invalid(path, seconds, "must be greater than 0");
        }
        if field == "readinessProbe" && seconds.is_some() {
            let problem = "must not be set for readinessProbes";
            let path = format!("{path}.terminationGracePeriodSeconds");
            findings.invalid(path, seconds.unwrap_or_default(), problem);
        }
    }
}

/// Exactly one way to ask.
fn check_handler(findings: &mut Findings, path: &str, handler: &Value, grace: Option<i64>) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let given: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| !member(handler, kind).is_null())
        .collect();
    let Some((first, others)) = given.split_first() else {
        findings.required(path, "must specify a handler type");
        return;
    };
    for other in others {
        let problem = "may not specify more than 1 handler type";
        findings.forbidden(format!("{path}.{other}"), problem);
    }
    let action = member(handler, first);
    let path = format!("{path}.{first}");
    match *first {
        "exec" if elements(action, "command", "").next().is_none() => {
            findings.required(format!("{path}.command"), "");
        }
        "httpGet" => {
            check_port(findings, &path, action);
            if text(action, "path").is_empty() {
                findings.required(format!("{path}.path"), "");
            }
            let scheme = text(action, "scheme");
            if !matches!(scheme, "HTTP" | "HTTPS") {
                findings.not_supported(format!("{path}.scheme"), scheme, &["HTTP", "HTTPS"]);
            }
        }
        "tcpSocket" | "grpc" => check_port(findings, &path, action),
        "sleep" => {
            let seconds = member(action, "seconds").as_i64().unwrap_or_default();
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let problem = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                );
                findings.invalid(path, seconds, problem);
            }
        }
        _ => {}
    }
}

fn check_port(findings: &mut Findings, path: &str, action: &Value) {
    let port = member(action, "port");
    for error in port_errors(port) {
        findings.invalid(format!("{path}.port"), port.clone(), error);
    }
}
