//! Roles and their bindings. The server stores them for clients; it does not enforce them.

use serde_json::Value;

use super::{Findings, elements, member, text};
use crate::schema::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(in crate::registry) fn role(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut findings = Findings::default();
    for (index, rule) in member(object, "rules")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = format!("rules[{index}]");
        let is_empty = |field: &str| elements(rule, field, "").next().is_none();
        if is_empty("verbs") {
            findings.required(
                format!("{path}.verbs"),
                "verbs must contain at least one value",
            );
        }
        let urls = format!("{path}.nonResourceURLs");
        if !is_empty("nonResourceURLs") {
            let value = member(rule, "nonResourceURLs");
            if namespaced {
                let problem = "namespaced rules cannot apply to non-resource URLs";
                findings.invalid(&urls, value.clone(), problem);
            }
            if !(is_empty("apiGroups") && is_empty("resources") && is_empty("resourceNames")) {
                let problem = "rules cannot apply to both regular resources and non-resource URLs";
                findings.invalid(&urls, value.clone(), problem);
            }
            continue;
        }
        if is_empty("apiGroups") {
            let problem = "resource rules must supply at least one api group";
            findings.required(format!("{path}.apiGroups"), problem);
        }
        if is_empty("resources") {
            let problem = "resource rules must supply at least one resource";
            findings.required(format!("{path}.resources"), problem);
        }
    }
    findings.0
}

pub(in crate::registry) fn binding(
    object: &Value,
    old: Option<&Value>,
    namespaced: bool,
) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let role = member(object, "roleRef");
    if text(role, "apiGroup") != GROUP {
        findings.not_supported("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&text(role, "kind")) {
        findings.not_supported("roleRef.kind", text(role, "kind"), kinds);
    }
    if old.is_some_and(|old| member(old, "roleRef") != role) {
        findings.invalid("roleRef", role.clone(), "cannot change roleRef");
    }
    for (index, subject) in member(object, "subjects")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = format!("subjects[{index}]");
        let group = text(subject, "apiGroup");
        match text(subject, "kind") {
            "ServiceAccount" => {
                if !group.is_empty() {
                    findings.not_supported(format!("{path}.apiGroup"), group, &[""]);
                }
                if !namespaced && text(subject, "namespace").is_empty() {
                    findings.required(format!("{path}.namespace"), "");
                }
            }
            "User" | "Group" if group != GROUP => {
                findings.not_supported(format!("{path}.apiGroup"), group, &[GROUP]);
            }
            "User" | "Group" => {}
            kind => {
                let supported = ["ServiceAccount", "User", "Group"];
                findings.not_supported(format!("{path}.kind"), kind, &supported);
            }
        }
    }
    findings.0
}
