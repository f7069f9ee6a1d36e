//! Networking, budgets and leases.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;

use super::{Findings, elements, member, port_errors, text};
use crate::format::names;
use crate::schema::FieldError;

/// What is wrong with a text that is no address.
pub(in crate::registry) const NOT_AN_ADDRESS: &str =
    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(in crate::registry) fn service(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    let kind = text(spec, "type");
    let ports: Vec<(String, &Value)> = elements(spec, "ports", "spec").collect();
    if ports.is_empty() && kind != "ExternalName" && text(spec, "clusterIP") != "None" {
        findings.required("spec.ports", "");
    }
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        findings.required("spec.externalName", "");
    }
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    for (path, port) in &ports {
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            findings.required(format!("{path}.name"), "");
        } else if !name.is_empty() {
            findings.label(format!("{path}.name"), name);
            if !names.insert(name) {
                findings.duplicate(format!("{path}.name"), name);
            }
        }
        let number = member(port, "port").as_i64().unwrap_or_default();
        for error in names::port_number_errors(number) {
            findings.invalid(format!("{path}.port"), number, error);
        }
        let protocol = text(port, "protocol");
        findings.one_of(
            format!("{path}.protocol"),
            protocol,
            &["SCTP", "TCP", "UDP"],
        );
        let target = member(port, "targetPort");
        for error in port_errors(target) {
            findings.invalid(format!("{path}.targetPort"), target.clone(), error);
        }
        node_port(&mut findings, path, port, kind);
        if !numbers.insert((number, protocol)) {
            let twin = serde_json::json!({ "protocol": protocol, "port": number });
            findings.duplicate(path, twin);
        }
    }
    findings.labels("spec.selector", member(spec, "selector"));
    let affinities = ["ClientIP", "None"];
    findings.one_of(
        "spec.sessionAffinity",
        text(spec, "sessionAffinity"),
        &affinities,
    );
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    findings.one_of("spec.type", kind, &kinds);
    traffic(&mut findings, spec, kind);
    for (path, address) in elements(spec, "externalIPs", "spec") {
        let address = address.as_str().unwrap_or_default();
        if address.parse::<IpAddr>().is_err() {
            findings.invalid(path, address, NOT_AN_ADDRESS);
        }
    }
    findings.0
}

/// A service that has no node ports cannot ask for one.
fn node_port(findings: &mut Findings, path: &str, port: &Value, kind: &str) {
    let number = member(port, "nodePort").as_i64().unwrap_or_default();
    if number == 0 {
        return;
    }
    let path = format!("{path}.nodePort");
    if matches!(kind, "ClusterIP" | "ExternalName") {
        findings.forbidden(path, &format!("may not be used when `type` is '{kind}'"));
    } else if !(30_000..=32_767).contains(&number) {
        let problem =
            "provided port is not in the valid range. The range of valid ports is 30000-32767";
        findings.invalid(path, number, problem);
    }
}

/// Which addresses a service has and who may reach it.
fn traffic(findings: &mut Findings, spec: &Value, kind: &str) {
    for (path, family) in elements(spec, "ipFamilies", "spec") {
        let family = family.as_str().unwrap_or_default();
        let families = ["IPv4", "IPv6"];
        if !families.contains(&family) {
            findings.not_supported(path, family, &families);
        }
    }
    let policies = ["Cluster", "Local"];
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() && !policies.contains(&internal) {
        findings.not_supported("spec.internalTrafficPolicy", internal, &policies);
    }
    let external = text(spec, "externalTrafficPolicy");
    if external.is_empty() {
        return;
    }
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || elements(spec, "externalIPs", "spec").next().is_some();
    let path = "spec.externalTrafficPolicy";
    if !reachable {
        let problem = "may only be set for externally-accessible services";
        findings.invalid(path, external, problem);
    } else if !policies.contains(&external) {
        findings.not_supported(path, external, &policies);
    }
}

pub(in crate::registry) fn network_policy(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in elements(spec, direction, "spec") {
            for (path, port) in elements(rule, "ports", &path) {
                let protocol = text(port, "protocol");
                let supported = ["SCTP", "TCP", "UDP"];
                if !supported.contains(&protocol) {
                    findings.not_supported(format!("{path}.protocol"), protocol, &supported);
                }
                let number = member(port, "port");
                for error in if number.is_null() {
                    Vec::new()
                } else {
                    port_errors(number)
                } {
                    findings.invalid(format!("{path}.port"), number.clone(), error);
                }
            }
            for (path, peer) in elements(rule, peers, &path) {
                let given = ["podSelector", "namespaceSelector", "ipBlock"]
                    .iter()
                    .filter(|field| !member(peer, field).is_null())
                    .count();
                if given == 0 {
                    findings.required(&path, "must specify a peer");
                } else if given > 1 && !member(peer, "ipBlock").is_null() {
                    let problem = "may not specify both ipBlock and another peer";
                    findings.forbidden(&path, problem);
                }
            }
        }
    }
    for (path, direction) in elements(spec, "policyTypes", "spec") {
        let direction = direction.as_str().unwrap_or_default();
        let supported = ["Ingress", "Egress"];
        if !supported.contains(&direction) {
            findings.not_supported(path, direction, &supported);
        }
    }
    findings.0
}

pub(in crate::registry) fn ingress(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    let default = member(spec, "defaultBackend");
    if default.is_null() && elements(spec, "rules", "spec").next().is_none() {
        let problem = "either `defaultBackend` or `rules` must be specified";
        findings.invalid("spec", "", problem);
    }
    for (path, rule) in elements(spec, "rules", "spec") {
        let http = member(rule, "http");
        if http.is_null() {
            continue;
        }
        let path = format!("{path}.http");
        if elements(http, "paths", &path).next().is_none() {
            findings.required(format!("{path}.paths"), "");
        }
        for (path, entry) in elements(http, "paths", &path) {
            let target = text(entry, "path");
            match text(entry, "pathType") {
                "" => {
                    findings.required(format!("{path}.pathType"), "pathType must be specified");
                }
                "Exact" | "Prefix" if !target.starts_with('/') => {
                    findings.invalid(format!("{path}.path"), target, "must be an absolute path");
                }
                "Exact" | "Prefix" | "ImplementationSpecific" => {}
                other => findings.not_supported(
                    format!("{path}.pathType"),
                    other,
                    &["Exact", "ImplementationSpecific", "Prefix"],
                ),
            }
        }
    }
    findings.0
}

pub(in crate::registry) fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let kind = text(object, "addressType");
    let supported = ["FQDN", "IPv4", "IPv6"];
    if !kind.is_empty() && !supported.contains(&kind) {
        findings.not_supported("addressType", kind, &supported);
    }
    if old.is_some_and(|old| text(old, "addressType") != kind) {
        findings.invalid("addressType", kind, "field is immutable");
    }
    for (index, endpoint) in member(object, "endpoints")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if elements(endpoint, "addresses", "").next().is_none() {
            let path = format!("endpoints[{index}].addresses");
            findings.required(path, "must contain at least 1 address");
        }
    }
    findings.0
}

pub(in crate::registry) fn disruption_budget(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    let both = ["minAvailable", "maxUnavailable"].map(|field| member(spec, field));
    if both.iter().all(|value| !value.is_null()) {
        let problem = "minAvailable and maxUnavailable cannot be both set";
        findings.invalid("spec", spec.clone(), problem);
    }
    for (field, value) in ["minAvailable", "maxUnavailable"].into_iter().zip(both) {
        let path = format!("spec.{field}");
        match value {
            Value::String(share) => {
                let percent = share
                    .strip_suffix('%')
                    .and_then(|share| share.parse::<u32>().ok());
                match percent {
                    None => findings.invalid(
                        path,
                        share.as_str(),
                        "a valid percent string must be a numeric string followed by an ending '%' \
                         (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                    ),
                    Some(percent) if percent > 100 => {
                        findings.invalid(path, share.as_str(), "must not be greater than 100%");
                    }
                    Some(_) => {}
                }
            }
            number => findings.non_negative(path, number),
        }
    }
    findings.0
}

pub(in crate::registry) fn lease(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    let seconds = member(spec, "leaseDurationSeconds").as_i64();
    if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0) {
        findings.invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        );
    }
    findings.non_negative("spec.leaseTransitions", member(spec, "leaseTransitions"));
    findings.0
}
