//! Containers of all three kinds.

use std::collections::HashSet;

use serde_json::Value;

use super::{Findings, elements, entries, member, pod, probe, text};
use crate::format::names;
use crate::format::quantity::Quantity;

/// Checks every container of a pod spec; `volumes` are the names of its sound volumes.
pub(super) fn containers(
    findings: &mut Findings,
    path: &str,
    spec: &Value,
    volumes: &HashSet<&str>,
) {
    let grace = member(spec, "terminationGracePeriodSeconds").as_i64();
    if elements(spec, "containers", path).next().is_none() {
        findings.required(format!("{path}.containers"), "");
    }
    let mut names = HashSet::new();
    for (path, container) in elements(spec, "containers", path) {
        common(findings, &path, container, volumes);
        unique_name(findings, &path, container, &mut names);
        probe::all(findings, &path, container, grace);
    }
    unique_host_ports(findings, elements(spec, "containers", path));
    for (path, container) in elements(spec, "initContainers", path) {
        common(findings, &path, container, volumes);
        let restart = text(container, "restartPolicy");
        let stays = restart == "Always";
        if !matches!(restart, "" | "Always" | "Never" | "OnFailure") {
            let supported = ["Always", "Never", "OnFailure"];
            findings.not_supported(format!("{path}.restartPolicy"), restart, &supported);
        }
        unique_name(findings, &path, container, &mut names);
        if stays {
            probe::all(findings, &path, container, grace);
        } else {
            for field in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                if !member(container, field).is_null() {
                    findings.forbidden(
                        format!("{path}.{field}"),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
    ephemeral(findings, path, spec, volumes, &names);
}

fn ephemeral<'a>(
    findings: &mut Findings,
    path: &str,
    spec: &'a Value,
    volumes: &HashSet<&str>,
    others: &HashSet<&'a str>,
) {
    let mut names = others.clone();
    for (path, container) in elements(spec, "ephemeralContainers", path) {
        common(findings, &path, container, volumes);
        unique_name(findings, &path, container, &mut names);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            findings.not_found(format!("{path}.targetContainerName"), target);
        }
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if !member(container, field).is_null() {
                let problem = "cannot be set for an Ephemeral Container";
                findings.forbidden(format!("{path}.{field}"), problem);
            }
        }
    }
}

fn unique_name<'a>(
    findings: &mut Findings,
    path: &str,
    container: &'a Value,
    names: &mut HashSet<&'a str>,
) {
    let name = text(container, "name");
    if !name.is_empty() && !names.insert(name) {
        findings.duplicate(format!("{path}.name"), name);
    }
}

/// What containers of all kinds have in common.
fn common(findings: &mut Findings, path: &str, container: &Value, volumes: &HashSet<&str>) {
    findings.label(format!("{path}.name"), text(container, "name"));
    let image = text(container, "image");
    if image.is_empty() {
        findings.required(format!("{path}.image"), "");
    } else if image != image.trim() {
        let problem = "must not have leading or trailing whitespace";
        findings.invalid(format!("{path}.image"), image, problem);
    }
    security(
        findings,
        &format!("{path}.securityContext"),
        member(container, "securityContext"),
    );
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = text(container, "terminationMessagePolicy");
    findings.one_of(
        format!("{path}.terminationMessagePolicy"),
        policy,
        &policies,
    );
    let policies = ["Always", "IfNotPresent", "Never"];
    let policy = text(container, "imagePullPolicy");
    findings.one_of(format!("{path}.imagePullPolicy"), policy, &policies);
    ports(findings, path, container);
    environment(findings, path, container);
    mounts(findings, path, container, volumes);
    resources(
        findings,
        &format!("{path}.resources"),
        member(container, "resources"),
    );
}

fn security(findings: &mut Findings, path: &str, context: &Value) {
    pod::security(findings, path, context);
    if member(context, "privileged") == true && member(context, "allowPrivilegeEscalation") == false
    {
        let problem = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        findings.invalid(path, context.clone(), problem);
    }
}

fn ports(findings: &mut Findings, path: &str, container: &Value) {
    let mut names = HashSet::new();
    for (path, port) in elements(container, "ports", path) {
        let name = text(port, "name");
        if !name.is_empty() {
            let errors = names::port_name_errors(name);
            if !errors.is_empty() {
                findings.text(format!("{path}.name"), name, errors);
            } else if !names.insert(name) {
                findings.duplicate(format!("{path}.name"), name);
            }
        }
        match member(port, "containerPort").as_i64().unwrap_or_default() {
            0 => findings.required(format!("{path}.containerPort"), ""),
            number => {
                for error in names::port_number_errors(number) {
                    findings.invalid(format!("{path}.containerPort"), number, error);
                }
            }
        }
        if let Some(number) = member(port, "hostPort")
            .as_i64()
            .filter(|number| *number != 0)
        {
            for error in names::port_number_errors(number) {
                findings.invalid(format!("{path}.hostPort"), number, error);
            }
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        findings.one_of(
            format!("{path}.protocol"),
            text(port, "protocol"),
            &protocols,
        );
    }
}

/// No two containers that run at the same time can have one port of the host.
fn unique_host_ports<'a>(
    findings: &mut Findings,
    containers: impl Iterator<Item = (String, &'a Value)>,
) {
    let mut taken = HashSet::new();
    for (path, container) in containers {
        for (path, port) in elements(container, "ports", &path) {
            let number = member(port, "hostPort").as_i64().unwrap_or_default();
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if number != 0 && !taken.insert(key.clone()) {
                findings.duplicate(format!("{path}.hostPort"), key);
            }
        }
    }
}

fn environment(findings: &mut Findings, path: &str, container: &Value) {
    for (path, variable) in elements(container, "env", path) {
        let name = text(variable, "name");
        if !name.is_empty() {
            findings.text(format!("{path}.name"), name, names::env_name_errors(name));
        }
        let source = member(variable, "valueFrom");
        if source.is_null() {
            continue;
        }
        let path = format!("{path}.valueFrom");
        let kinds = [
            "fieldRef",
            "resourceFieldRef",
            "configMapKeyRef",
            "secretKeyRef",
            "fileKeyRef",
        ];
        let given = kinds
            .iter()
            .filter(|kind| !member(source, kind).is_null())
            .count();
        if given == 0 {
            findings.invalid(
                &path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
                 `secretKeyRef` or `fileKeyRef`",
            );
        } else if !text(variable, "value").is_empty() {
            findings.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if given > 1 {
            findings.invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            );
        }
        let field = member(source, "fieldRef");
        if !field.is_null() {
            own_field(
                findings,
                &format!("{path}.fieldRef.fieldPath"),
                text(field, "fieldPath"),
            );
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let reference = member(source, kind);
            if !reference.is_null() {
                let name = text(reference, "name");
                let errors = names::dns1123_subdomain_errors(name);
                findings.text(format!("{path}.{kind}.name"), name, errors);
                let key = text(reference, "key");
                if !key.is_empty() {
                    let errors = names::config_map_key_errors(key);
                    findings.text(format!("{path}.{kind}.key"), key, errors);
                }
            }
        }
    }
    for (index, source) in elements(container, "envFrom", path) {
        let kinds = ["configMapRef", "secretRef"];
        let given: Vec<&str> = kinds
            .into_iter()
            .filter(|kind| !member(source, kind).is_null())
            .collect();
        let list = format!("{path}.envFrom");
        match given.as_slice() {
            [] => findings.invalid(
                list,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            [kind] if text(member(source, kind), "name").is_empty() => {
                findings.required(format!("{index}.{kind}.name"), "");
            }
            [_] => {}
            _ => findings.invalid(
                list,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

/// A field of the pod that a variable takes its value from.
fn own_field(findings: &mut Findings, path: &str, field: &str) {
    const ALLOWED: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    // These have a name, but not as the value of a variable.
    const KNOWN: [&str; 6] = [
        "metadata.annotations",
        "metadata.labels",
        "spec.hostNetwork",
        "spec.restartPolicy",
        "spec.schedulerName",
        "status.phase",
    ];
    let member = field
        .strip_suffix("']")
        .and_then(|field| field.split_once("['"));
    let member =
        member.filter(|(map, _)| matches!(*map, "metadata.annotations" | "metadata.labels"));
    if field.is_empty() || ALLOWED.contains(&field) {
        return;
    }
    if let Some((_, key)) = member {
        findings.text(
            path,
            field,
            names::label_key_errors(&key.to_ascii_lowercase()),
        );
    } else if KNOWN.contains(&field) {
        findings.not_supported(path, field, &ALLOWED);
    } else {
        let problem = format!("error converting fieldPath: field label not supported: {field}");
        findings.invalid(path, field, problem);
    }
}

fn mounts(findings: &mut Findings, path: &str, container: &Value, volumes: &HashSet<&str>) {
    let mut points = HashSet::new();
    for (path, mount) in elements(container, "volumeMounts", path) {
        let (name, point) = (text(mount, "name"), text(mount, "mountPath"));
        if !volumes.contains(name) {
            findings.not_found(format!("{path}.name"), name);
        }
        if !point.is_empty() && !points.insert(point) {
            findings.invalid(format!("{path}.mountPath"), point, "must be unique");
        }
        let (sub_path, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub_path.is_empty() && !expression.is_empty() {
            let problem = "subPathExpr and subPath are mutually exclusive";
            findings.invalid(format!("{path}.subPathExpr"), expression, problem);
        }
        for (field, inner) in [("subPath", sub_path), ("subPathExpr", expression)] {
            for error in descending_path_errors(inner) {
                findings.invalid(format!("{path}.{field}"), inner, error);
            }
        }
    }
}

/// A path that leads downwards from where it starts.
pub(super) fn descending_path_errors(path: &str) -> Vec<&'static str> {
    let mut errors = Vec::new();
    if path.starts_with('/') {
        errors.push("must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        errors.push("must not contain '..'");
    }
    errors
}

/// Requests and limits.
pub(super) fn resources(findings: &mut Findings, path: &str, resources: &Value) {
    for list in ["limits", "requests"] {
        for (name, quantity) in entries(resources, list) {
            let path = format!("{path}.{list}[{name}]");
            resource_name(findings, &path, name);
            let spelling = quantity.as_str().unwrap_or_default();
            if Quantity::parse(spelling).is_ok_and(Quantity::is_negative) {
                findings.invalid(path, spelling, "must be greater than or equal to 0");
            }
        }
    }
    for (name, request) in entries(resources, "requests") {
        let limit = member(member(resources, "limits"), name)
            .as_str()
            .unwrap_or_default();
        let request = request.as_str().unwrap_or_default();
        let shareable = !name.starts_with("hugepages-") && (!name.contains('/') || is_native(name));
        match (Quantity::parse(request), Quantity::parse(limit)) {
            (Ok(wanted), Ok(allowed)) if wanted != allowed && !shareable => {
                let problem = format!("must be equal to {name} limit of {limit}");
                findings.invalid(format!("{path}.requests"), request, problem);
            }
            (Ok(wanted), Ok(allowed)) if wanted > allowed => {
                let problem = format!("must be less than or equal to {name} limit of {limit}");
                findings.invalid(format!("{path}.requests"), request, problem);
            }
            (Ok(_), Err(_)) if !shareable => {
                let problem = "Limit must be set for non overcommitable resources";
                findings.required(format!("{path}.limits"), problem);
            }
            _ => {}
        }
    }
}

fn is_native(name: &str) -> bool {
    name.split('/')
        .next()
        .is_some_and(|domain| domain.ends_with("kubernetes.io"))
}

fn resource_name(findings: &mut Findings, path: &str, name: &str) {
    let errors = names::label_key_errors(name);
    if !errors.is_empty() {
        findings.text(path, name, errors);
        return;
    }
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        findings.invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        );
    }
}
