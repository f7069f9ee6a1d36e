//! Volumes of pods, and claims for persistent ones.

use std::collections::HashSet;

use serde_json::Value;

use super::{Findings, container, elements, member, text};
use crate::format::names;
use crate::format::quantity::Quantity;
use crate::schema::FieldError;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes of a pod spec and returns the names of those that are sound.
pub(super) fn volumes<'a>(
    findings: &mut Findings,
    path: &str,
    spec: &'a Value,
) -> HashSet<&'a str> {
    let mut sound = HashSet::new();
    for (path, volume) in elements(spec, "volumes", path) {
        let mut own = Findings::default();
        check_source(&mut own, &path, volume);
        let name = text(volume, "name");
        own.label(format!("{path}.name"), name);
        if sound.contains(name) {
            own.duplicate(format!("{path}.name"), name);
        }
        if own.0.is_empty() && !name.is_empty() {
            sound.insert(name);
        }
        findings.0.append(&mut own.0);
    }
    sound
}

/// Exactly one source, and that one in order.
fn check_source(findings: &mut Findings, path: &str, volume: &Value) {
    let mut sources = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "name");
    let Some((first, source)) = sources.next() else {
        findings.required(path, "must specify a volume type");
        return;
    };
    for (other, _) in sources {
        findings.forbidden(
            format!("{path}.{other}"),
            "may not specify more than 1 volume type",
        );
    }
    let path = format!("{path}.{first}");
    match first.as_str() {
        "emptyDir" => {
            let limit = Quantity::parse(text(source, "sizeLimit"));
            if limit.is_ok_and(Quantity::is_negative) {
                let problem = "SizeLimit field must be a valid resource quantity";
                findings.forbidden(format!("{path}.sizeLimit"), problem);
            }
        }
        "hostPath" => {
            let host_path = text(source, "path");
            if host_path.split('/').any(|part| part == "..") {
                findings.invalid(format!("{path}.path"), host_path, "must not contain '..'");
            }
        }
        "secret" => {
            if text(source, "secretName").is_empty() {
                findings.required(format!("{path}.secretName"), "");
            }
            check_mode(
                findings,
                format!("{path}.defaultMode"),
                member(source, "defaultMode"),
            );
            check_items(findings, &path, source);
        }
        "configMap" => {
            if text(source, "name").is_empty() {
                findings.required(format!("{path}.name"), "");
            }
            check_mode(
                findings,
                format!("{path}.defaultMode"),
                member(source, "defaultMode"),
            );
            check_items(findings, &path, source);
        }
        "downwardAPI" => {
            check_mode(
                findings,
                format!("{path}.defaultMode"),
                member(source, "defaultMode"),
            );
            for (_, file) in elements(source, "items", &path) {
                check_downward_file(findings, &path, file);
            }
        }
        "projected" => check_projections(findings, &path, source),
        "ephemeral" => {
            let template = member(source, "volumeClaimTemplate");
            if template.is_null() {
                findings.required(format!("{path}.volumeClaimTemplate"), "");
            } else {
                let path = format!("{path}.volumeClaimTemplate.spec");
                claim_spec(findings, &path, member(template, "spec"));
            }
        }
        _ => {}
    }
}

fn check_projections(findings: &mut Findings, path: &str, source: &Value) {
    check_mode(
        findings,
        format!("{path}.defaultMode"),
        member(source, "defaultMode"),
    );
    let mut targets = HashSet::new();
    for (at, part) in elements(source, "sources", path) {
        if part.as_object().is_some_and(|part| part.len() > 1) {
            findings.forbidden(&at, "may not specify more than 1 volume type per source");
        }
        for kind in ["secret", "configMap"] {
            let projection = member(part, kind);
            if projection.is_null() {
                continue;
            }
            let at = format!("{at}.{kind}");
            if text(projection, "name").is_empty() {
                findings.required(format!("{at}.name"), "");
            }
            check_items(findings, &at, projection);
            for (_, item) in elements(projection, "items", &at) {
                let target = text(item, "path");
                if !target.is_empty() && !targets.insert(target) {
                    let problem = "conflicting duplicate paths";
                    findings.invalid(path, text(projection, "name"), problem);
                }
            }
        }
        let downward = member(part, "downwardAPI");
        for (_, file) in elements(downward, "items", &at) {
            check_downward_file(findings, &format!("{at}.downwardAPI"), file);
            let target = text(file, "path");
            if !target.is_empty() && !targets.insert(target) {
                findings.invalid(path, target, "conflicting duplicate paths");
            }
        }
        let token = member(part, "serviceAccountToken");
        let seconds = member(token, "expirationSeconds").as_i64();
        if let Some(seconds) = seconds.filter(|seconds| *seconds < 600) {
            let problem = "may not specify a duration less than 10 minutes";
            findings.invalid(
                format!("{at}.serviceAccountToken.expirationSeconds"),
                seconds,
                problem,
            );
        }
    }
}

fn check_items(findings: &mut Findings, path: &str, source: &Value) {
    for (path, item) in elements(source, "items", path) {
        check_target(findings, &path, text(item, "path"));
        check_mode(findings, format!("{path}.mode"), member(item, "mode"));
    }
}

fn check_downward_file(findings: &mut Findings, path: &str, file: &Value) {
    check_target(findings, path, text(file, "path"));
    let (field, resource) = (member(file, "fieldRef"), member(file, "resourceFieldRef"));
    match (field.is_null(), resource.is_null()) {
        (true, true) => {
            findings.required(path, "one of fieldRef and resourceFieldRef is required");
        }
        (false, false) => {
            let problem = "fieldRef and resourceFieldRef can not be specified simultaneously";
            findings.invalid(path, "resource", problem);
        }
        _ => {}
    }
    check_mode(findings, format!("{path}.mode"), member(file, "mode"));
}

/// Where a file goes inside a volume: below it, and not among the names the volume uses itself.
fn check_target(findings: &mut Findings, path: &str, target: &str) {
    for error in container::descending_path_errors(target) {
        findings.invalid(format!("{path}.path"), target, error);
    }
    if target.starts_with("..") && !target.starts_with("../") && target != ".." {
        findings.invalid(format!("{path}.path"), target, "must not start with '..'");
    }
}

fn check_mode(findings: &mut Findings, path: String, mode: &Value) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        findings.invalid(path, mode, FILE_MODE);
    }
}

/// Everything wrong with a persistent volume claim.
pub(in crate::registry) fn claim(claim: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    claim_spec(&mut findings, "spec", member(claim, "spec"));
    findings.0
}

pub(super) fn claim_spec(findings: &mut Findings, path: &str, spec: &Value) {
    let modes: Vec<&str> = elements(spec, "accessModes", path)
        .filter_map(|(_, mode)| mode.as_str())
        .collect();
    let supported = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    let list = format!("{path}.accessModes");
    if modes.is_empty() {
        findings.required(&list, "at least 1 access mode is required");
    }
    for mode in modes.iter().filter(|mode| !supported.contains(mode)) {
        findings.not_supported(&list, mode, &supported);
    }
    if modes.contains(&"ReadWriteOncePod") && modes.len() > 1 {
        findings.forbidden(
            &list,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
    let storage = text(member(member(spec, "resources"), "requests"), "storage");
    let at = format!("{path}.resources[storage]");
    match Quantity::parse(storage) {
        Err(_) => findings.required(at, ""),
        Ok(size) if size.is_negative() || size.is_zero() => {
            findings.invalid(at, storage, "must be greater than zero");
        }
        Ok(_) => {}
    }
    findings.labels(
        &format!("{path}.selector.matchLabels"),
        member(member(spec, "selector"), "matchLabels"),
    );
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        let errors = names::dns1123_subdomain_errors(class);
        findings.text(format!("{path}.storageClassName"), class, errors);
    }
    let mode = text(spec, "volumeMode");
    if !matches!(mode, "" | "Block" | "Filesystem") {
        findings.not_supported(format!("{path}.volumeMode"), mode, &["Block", "Filesystem"]);
    }
}
