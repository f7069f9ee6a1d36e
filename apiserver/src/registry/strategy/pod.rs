//! Pods: completed spec, an initial status, a graceful end, and a spec that hardly changes.

use serde_json::{Value, json};

use super::{Context, Deletion, Strategy, child, default, items, pod_spec, text};
use crate::meta;
use crate::registry::rules;
use crate::schema::FieldError;

#[derive(Debug)]
pub(super) struct Pod;

impl Strategy for Pod {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            default(spec, "serviceAccountName", "default");
            default(spec, "serviceAccount", "default");
            default(spec, "priority", 0);
            default(spec, "preemptionPolicy", "PreemptLowerPriority");
            tolerate_unready_nodes(spec);
            // A negative period stands for the shortest.
            let grace = spec.get_mut("terminationGracePeriodSeconds");
            if let Some(grace) = grace.filter(|grace| grace.as_i64().is_some_and(|n| n < 0)) {
                *grace = 1.into();
            }
        }
        let class = object.get("spec").map_or("BestEffort", pod_spec::qos_class);
        let status = json!({ "phase": "Pending", "qosClass": class });
        meta::put(object, &["status".to_owned()], Some(status));
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        if ctx.subresource.is_empty()
            && let Some(spec) = child(new, "spec")
        {
            tolerate_unready_nodes(spec);
        }
    }

    fn admit(&self, ctx: &Context<'_>, object: &Value) -> Result<(), String> {
        let account = object
            .get("spec")
            .map_or("", |spec| text(spec, "serviceAccountName"));
        // The default account appears moments after its namespace; nobody has to wait for that.
        if matches!(account, "" | "default") || ctx.has_neighbour("serviceaccounts", account) {
            return Ok(());
        }
        Err(format!(
            "error looking up service account {}/{account}: serviceaccount \"{account}\" not found",
            ctx.namespace
        ))
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = rules::pod(new);
        let specs = (new.get("spec"), old.and_then(|old| old.get("spec")));
        let (Some(new), Some(old)) = specs else {
            let created = new.get("spec").unwrap_or(&Value::Null);
            if items(created, "ephemeralContainers").next().is_some() {
                let path = "spec.ephemeralContainers";
                errors.push(FieldError::forbidden(path, "cannot be set on create"));
            }
            return errors;
        };
        errors.extend(extended_deadline(new, old));
        let gated = is_gated(old);
        if comparable(new, gated, ctx) != comparable(old, gated, ctx) {
            errors.push(FieldError::forbidden(
                "spec",
                "pod updates may not change fields other than \
                 `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                 tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                 was previously negative)",
            ));
        }
        let kept = |toleration: &Value| items(new, "tolerations").any(|other| other == toleration);
        if !items(old, "tolerations").all(kept) {
            errors.push(FieldError::forbidden(
                "spec.tolerations",
                "existing toleration can not be modified except its tolerationSeconds",
            ));
        }
        let known: Vec<&Value> = items(old, "schedulingGates").collect();
        if items(new, "schedulingGates").any(|gate| !known.contains(&gate)) {
            errors.push(FieldError::forbidden(
                "spec.schedulingGates",
                "only deletion is allowed, but found new scheduling gates",
            ));
        }
        errors
    }

    fn deletion(&self, object: &Value, requested: Option<i64>) -> Deletion {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let phase = object
            .get("status")
            .map_or("", |status| text(status, "phase"));
        // Nobody runs these: there is nothing to stop.
        let idle = text(spec, "nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed");
        let own = spec
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64);
        let seconds = match requested.or(own).unwrap_or(30) {
            _ if idle => 0,
            negative if negative < 0 => 1,
            seconds => seconds,
        };
        Deletion::Graceful { seconds }
    }
}

/// The tolerations that admission adds to every pod.
fn tolerate_unready_nodes(spec: &mut Value) {
    let missing = ["not-ready", "unreachable"].map(|state| {
        json!({
            "key": format!("node.kubernetes.io/{state}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        })
    });
    for toleration in missing {
        let covered = items(spec, "tolerations").any(|existing| {
            let key = text(existing, "key");
            (key.is_empty() && text(existing, "operator") == "Exists"
                || key == text(&toleration, "key"))
                && matches!(text(existing, "effect"), "" | "NoExecute")
        });
        if covered {
            continue;
        }
        default(spec, "tolerations", Vec::<Value>::new());
        if let Some(list) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            list.push(toleration);
        }
    }
}

/// The deadline of a running pod may be set or brought forward, nothing else.
fn extended_deadline(new: &Value, old: &Value) -> Option<FieldError> {
    let deadline = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    let before = deadline(old)?;
    let problem = match deadline(new) {
        None => "must not update from a positive integer to nil value",
        Some(after) if after > before => "must be less than or equal to previous value",
        Some(_) => return None,
    };
    let path = "spec.activeDeadlineSeconds";
    Some(FieldError::invalid(path, &json!(deadline(new)), problem))
}

/// Whether a pod is held back from scheduling.
fn is_gated(spec: &Value) -> bool {
    items(spec, "schedulingGates").next().is_some()
}

/// A spec without the fields that this write may change: a few anywhere, placement while the pod is
/// held back from scheduling, and those that a subresource exists for.
fn comparable(spec: &Value, gated: bool, ctx: &Context<'_>) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else {
        return spec;
    };
    let mut changeable = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if gated {
        changeable.extend(["nodeSelector", "affinity"]);
    }
    match ctx.subresource {
        "binding" => changeable.push("nodeName"),
        "ephemeralcontainers" => changeable.push("ephemeralContainers"),
        "resize" => changeable.push("resources"),
        _ => {}
    }
    for field in changeable {
        map.shift_remove(field);
    }
    let grace = map
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    if grace.is_some_and(|seconds| seconds < 0) {
        map.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    for list in ["containers", "initContainers"] {
        let containers = map.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            container.shift_remove("image");
            if ctx.subresource == "resize" {
                container.shift_remove("resources");
            }
        }
    }
    spec
}
