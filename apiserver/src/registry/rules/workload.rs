//! Workloads: selectors that fit their templates, and templates that are pods to be.

use serde_json::{Value, json};

use super::pod::{self, Owner};
use super::{Findings, elements, member, text, volume};
use crate::schema::FieldError;
use crate::selector::LabelSelector;

pub(in crate::registry) fn deployment(object: &Value) -> Vec<FieldError> {
    replicated(object, "deployment", "ReplicaSet")
}

pub(in crate::registry) fn replica_set(object: &Value) -> Vec<FieldError> {
    // The word is the real server's.
    replicated(object, "deployment", "ReplicaSet")
}

pub(in crate::registry) fn daemon_set(object: &Value) -> Vec<FieldError> {
    replicated(object, "daemonset", "DaemonSet")
}

pub(in crate::registry) fn stateful_set(object: &Value) -> Vec<FieldError> {
    // Claims of the set become volumes of its pods.
    let mut object = object.clone();
    let claims: Vec<Value> = elements(member(&object, "spec"), "volumeClaimTemplates", "")
        .map(|(_, claim)| {
            let name = text(member(claim, "metadata"), "name");
            json!({ "name": name, "persistentVolumeClaim": { "claimName": name } })
        })
        .collect();
    if let Some(spec) = object
        .pointer_mut("/spec/template/spec")
        .and_then(Value::as_object_mut)
        && !claims.is_empty()
    {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.retain(|volume| claims.iter().all(|claim| claim["name"] != volume["name"]));
            volumes.extend(claims);
        }
    }
    let mut errors = replicated(&object, "statefulset", "StatefulSet");
    let mut findings = Findings::default();
    let spec = member(&object, "spec");
    findings.label("spec.serviceName", text(spec, "serviceName"));
    let policy = text(spec, "podManagementPolicy");
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let problem = "must be 'OrderedReady' or 'Parallel'";
        findings.invalid("spec.podManagementPolicy", policy, problem);
    }
    for (path, claim) in elements(spec, "volumeClaimTemplates", "spec") {
        volume::claim_spec(
            &mut findings,
            &format!("{path}.spec"),
            member(claim, "spec"),
        );
    }
    errors.append(&mut findings.0);
    errors
}

pub(in crate::registry) fn job(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    job_spec(&mut findings, "spec", spec);
    if member(spec, "selector").is_null() {
        findings.required("spec.selector", "");
    } else {
        check_selection(&mut findings, spec, "spec.template.metadata.labels");
    }
    findings.0
}

pub(in crate::registry) fn cron_job(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    let policies = ["Allow", "Forbid", "Replace"];
    let policy = text(spec, "concurrencyPolicy");
    findings.one_of("spec.concurrencyPolicy", policy, &policies);
    let schedule = text(spec, "schedule");
    let fields = schedule.split_whitespace().count();
    if !schedule.is_empty() && !schedule.starts_with('@') && fields != 5 {
        let problem = format!("expected exactly 5 fields, found {fields}: [{schedule}]");
        findings.invalid("spec.schedule", schedule, problem);
    }
    for field in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        findings.non_negative(format!("spec.{field}"), member(spec, field));
    }
    let job = member(member(spec, "jobTemplate"), "spec");
    job_spec(&mut findings, "spec.jobTemplate.spec", job);
    if !member(job, "selector").is_null() {
        let problem = "`selector` will be auto-generated";
        findings.invalid(
            "spec.jobTemplate.spec.selector",
            member(job, "selector").clone(),
            problem,
        );
    }
    findings.0
}

pub(in crate::registry) fn pod_template(object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    check_template(&mut findings, "template", member(object, "template"));
    findings.0
}

/// What sets of always running pods have in common. `word` and `kind` are how messages name them.
fn replicated(object: &Value, word: &str, kind: &str) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = member(object, "spec");
    for field in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        findings.non_negative(format!("spec.{field}"), member(spec, field));
    }
    let selector = member(spec, "selector");
    if selector.is_null() {
        findings.required("spec.selector", "");
    } else {
        let is_empty = |field| {
            let part = member(selector, field);
            part.as_object().is_none_or(serde_json::Map::is_empty)
                && part.as_array().is_none_or(Vec::is_empty)
        };
        if is_empty("matchLabels") && is_empty("matchExpressions") {
            let problem = format!("empty selector is invalid for {word}");
            findings.invalid("spec.selector", selector.clone(), problem);
        }
        check_selection(&mut findings, spec, "spec.template.metadata.labels");
    }
    check_template(&mut findings, "spec.template", member(spec, "template"));
    let pod = member(member(spec, "template"), "spec");
    let restart = text(pod, "restartPolicy");
    if restart != "Always" {
        findings.not_supported("spec.template.spec.restartPolicy", restart, &["Always"]);
    }
    if !member(pod, "activeDeadlineSeconds").is_null() {
        let problem = format!("activeDeadlineSeconds in {kind} is not Supported");
        findings.forbidden("spec.template.spec.activeDeadlineSeconds", &problem);
    }
    findings.0
}

fn job_spec(findings: &mut Findings, path: &str, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        findings.non_negative(format!("{path}.{field}"), member(spec, field));
    }
    check_template(
        findings,
        &format!("{path}.template"),
        member(spec, "template"),
    );
    let restart = text(member(member(spec, "template"), "spec"), "restartPolicy");
    if matches!(restart, "" | "Always") {
        // The default is for pods that run for ever, so it counts as no choice.
        findings.required(
            format!("{path}.template.spec.restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        );
    }
}

fn check_template(findings: &mut Findings, path: &str, template: &Value) {
    let labels = member(member(template, "metadata"), "labels");
    findings.labels(&format!("{path}.labels"), labels);
    pod::spec(
        findings,
        &format!("{path}.spec"),
        member(template, "spec"),
        Owner::Template,
    );
}

/// A selector must find the pods made from the template beside it.
fn check_selection(findings: &mut Findings, spec: &Value, path: &str) {
    let labels = member(member(member(spec, "template"), "metadata"), "labels");
    match LabelSelector::from_object(member(spec, "selector")) {
        Err(_) => {
            let selector = member(spec, "selector").clone();
            findings.invalid("spec.selector", selector, "invalid label selector");
        }
        Ok(selector) => {
            let matches = selector.matches(|key| labels.get(key).and_then(Value::as_str));
            if !selector.is_empty() && !matches {
                let problem = "`selector` does not match template `labels`";
                findings.invalid(path, labels.clone(), problem);
            }
        }
    }
}
