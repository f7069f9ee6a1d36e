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
        }
        let class = object.get("spec").map_or("BestEffort", pod_spec::qos_class);
        let status = json!({ "phase": "Pending", "qosClass": class });
        meta::put(object, &["status".to_owned()], Some(status));
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
            return errors;
        };
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
