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

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = rules::pod(new);
        let specs = (new.get("spec"), old.and_then(|old| old.get("spec")));
        let (Some(new), Some(old)) = specs else {
            return errors;
        };
        if comparable(new) != comparable(old) {
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

/// A spec without the fields that may change. What a binding, a resize or an ephemeral container
/// changes arrives through its own subresource, whose write cannot touch anything else.
fn comparable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let changeable = [
        "activeDeadlineSeconds",
        "tolerations",
        "nodeName",
        "ephemeralContainers",
        "schedulingGates",
        "nodeSelector",
        "affinity",
    ];
    let gated = spec
        .get("schedulingGates")
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty());
    if let Some(map) = spec.as_object_mut() {
        for field in changeable {
            // Placement may be narrowed only while the pod is held back from scheduling.
            if gated || !matches!(field, "nodeSelector" | "affinity") {
                map.shift_remove(field);
            }
        }
        if map
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|s| s < 0)
        {
            map.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
        }
        for list in ["containers", "initContainers"] {
            for container in map
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(container) = container.as_object_mut() {
                    container.shift_remove("image");
                    container.shift_remove("resources");
                }
            }
        }
    }
    spec
}
