//! Defaults of the built-in kinds that no OpenAPI document carries.
//!
//! They belong to types, not to kinds: a container gets its defaults wherever it appears. Most are
//! constants in a table; those that depend on other fields are functions of one type. The values are
//! those of Kubernetes' defaulting functions; a suite compares the results with a real server's.

mod constants;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::wire::typed;
use constants::{CONSTANTS, RBAC_GROUP};

/// Completes an object that conforms to its type.
pub(crate) fn apply(group: &str, version: &str, kind: &str, object: &mut Value) {
    typed::visit(group, version, kind, object, &mut |r#type, fields| {
        complete(r#type, fields);
        for (_, field, constant) in CONSTANTS.iter().filter(|(owner, ..)| *owner == r#type) {
            if is_absent(fields, field) {
                fields.insert((*field).to_owned(), constant.value());
            }
        }
    });
}

/// What depends on other fields. Outer types come before inner ones, so what is added here is
/// completed in turn.
fn complete(r#type: &str, fields: &mut Map<String, Value>) {
    match r#type {
        "core.v1.Pod" => pod(fields),
        "core.v1.PodSpec" => service_account(fields),
        "core.v1.Container" | "core.v1.EphemeralContainerCommon" => {
            pull_policy(fields, "image", "imagePullPolicy");
        }
        "core.v1.ImageVolumeSource" => pull_policy(fields, "reference", "pullPolicy"),
        "core.v1.Volume" if fields.keys().all(|field| field == "name") => {
            fields.insert("emptyDir".to_owned(), json!({}));
        }
        "core.v1.ServiceSpec" => service(fields),
        "core.v1.ServicePort" => {
            let unset = is_absent(fields, "targetPort")
                || fields.get("targetPort").is_some_and(|port| port == 0);
            if unset && let Some(port) = fields.get("port").cloned() {
                fields.insert("targetPort".to_owned(), port);
            }
        }
        "apps.v1.DeploymentStrategy" | "apps.v1.DaemonSetUpdateStrategy" => {
            let rolling = is_absent(fields, "type") || is_text(fields, "type", "RollingUpdate");
            if rolling && is_absent(fields, "rollingUpdate") {
                fields.insert("rollingUpdate".to_owned(), json!({}));
            }
        }
        // A strategy that is named but not described stays undescribed.
        "apps.v1.StatefulSetUpdateStrategy" if is_absent(fields, "type") => {
            fields.insert("type".to_owned(), "RollingUpdate".into());
            if is_absent(fields, "rollingUpdate") {
                fields.insert("rollingUpdate".to_owned(), json!({}));
            }
        }
        "batch.v1.Job" => {
            if let Some(Value::Object(spec)) = fields.get_mut("spec") {
                job(spec);
            }
        }
        "networking.v1.NetworkPolicySpec" if is_absent(fields, "policyTypes") => {
            let egress = !is_absent(fields, "egress");
            let types: &[&str] = if egress {
                &["Ingress", "Egress"]
            } else {
                &["Ingress"]
            };
            fields.insert("policyTypes".to_owned(), json!(types));
        }
        "rbac.v1.Subject" => {
            let known = is_text(fields, "kind", "User") || is_text(fields, "kind", "Group");
            if known && is_absent(fields, "apiGroup") {
                fields.insert("apiGroup".to_owned(), RBAC_GROUP.into());
            }
        }
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => autoscaler(fields),
        _ => {}
    }
}

/// Defaults of pods that their templates do not get.
fn pod(fields: &mut Map<String, Value>) {
    let Some(Value::Object(spec)) = fields.get_mut("spec") else {
        return;
    };
    if is_absent(spec, "enableServiceLinks") {
        spec.insert("enableServiceLinks".to_owned(), true.into());
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in objects(spec, list) {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                requests_from_limits(resources);
            }
            if host_network {
                for port in objects(container, "ports") {
                    if is_absent(port, "hostPort")
                        && let Some(number) = port.get("containerPort").cloned()
                    {
                        port.insert("hostPort".to_owned(), number);
                    }
                }
            }
        }
    }
}

/// A resource with a limit and no request requests its limit.
fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

/// The older name of the field follows the newer, and stands in for it.
fn service_account(fields: &mut Map<String, Value>) {
    let account = match fields.get("serviceAccountName").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => match fields.get("serviceAccount").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => return,
        },
    };
    fields.insert("serviceAccountName".to_owned(), account.as_str().into());
    fields.insert("serviceAccount".to_owned(), account.into());
}

/// An image without a fixed version is looked for every time.
fn pull_policy(fields: &mut Map<String, Value>, image: &str, policy: &str) {
    if !is_absent(fields, policy) {
        return;
    }
    let image = fields
        .get(image)
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Only the last segment can carry a tag: a registry may have a port.
    let last = image.rsplit('/').next().unwrap_or(image);
    let value = match (last.contains('@'), last.split_once(':')) {
        (false, None | Some((_, "latest"))) => "Always",
        _ => "IfNotPresent",
    };
    fields.insert(policy.to_owned(), value.into());
}

fn service(fields: &mut Map<String, Value>) {
    if is_text(fields, "sessionAffinity", "ClientIP") {
        let timeout = fields
            .get("sessionAffinityConfig")
            .and_then(|config| config.pointer("/clientIP/timeoutSeconds"));
        if timeout.is_none() {
            let config = json!({ "clientIP": { "timeoutSeconds": 10800 } });
            fields.insert("sessionAffinityConfig".to_owned(), config);
        }
    } else {
        fields.shift_remove("sessionAffinityConfig");
    }
    let cluster_ip = is_absent(fields, "type") || is_text(fields, "type", "ClusterIP");
    let node_port = is_text(fields, "type", "NodePort");
    let balancer = is_text(fields, "type", "LoadBalancer");
    let external = fields
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|ips| !ips.is_empty());
    let mut set = |field: &str, value: Value| {
        if is_absent(fields, field) {
            fields.insert(field.to_owned(), value);
        }
    };
    if node_port || balancer || (cluster_ip && external) {
        set("externalTrafficPolicy", "Cluster".into());
    }
    if cluster_ip || node_port || balancer {
        set("internalTrafficPolicy", "Cluster".into());
    }
    if balancer {
        set("allocateLoadBalancerNodePorts", true.into());
    }
}

fn job(spec: &mut Map<String, Value>) {
    // A job that says neither completes once; one that says how many at once is a work queue.
    if is_absent(spec, "completions") && is_absent(spec, "parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    let backoff = if is_absent(spec, "backoffLimitPerIndex") {
        6
    } else {
        i32::MAX
    };
    let replacement = if is_absent(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    for (field, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(backoff)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
        ("manualSelector", json!(false)),
    ] {
        if is_absent(spec, field) {
            spec.insert(field.to_owned(), value);
        }
    }
}

fn autoscaler(spec: &mut Map<String, Value>) {
    if is_absent(spec, "metrics") {
        let target = json!({ "type": "Utilization", "averageUtilization": 80 });
        let metrics =
            json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }]);
        spec.insert("metrics".to_owned(), metrics);
    }
    let Some(Value::Object(behavior)) = spec.get_mut("behavior") else {
        return;
    };
    let per_period =
        |r#type: &str, value: i64| json!({ "type": r#type, "value": value, "periodSeconds": 15 });
    let directions = [
        (
            "scaleUp",
            json!([per_period("Pods", 4), per_period("Percent", 100)]),
            Some(0),
        ),
        ("scaleDown", json!([per_period("Percent", 100)]), None),
    ];
    for (direction, policies, window) in directions {
        let rules = behavior.entry(direction).or_insert_with(|| json!({}));
        let Some(rules) = rules.as_object_mut() else {
            continue;
        };
        if is_absent(rules, "policies") {
            rules.insert("policies".to_owned(), policies);
        }
        if is_absent(rules, "selectPolicy") {
            rules.insert("selectPolicy".to_owned(), "Max".into());
        }
        if let Some(window) = window.filter(|_| is_absent(rules, "stabilizationWindowSeconds")) {
            rules.insert("stabilizationWindowSeconds".to_owned(), json!(window));
        }
    }
}

/// Whether a field holds nothing: absent, null, or an empty text or list.
fn is_absent(fields: &Map<String, Value>, field: &str) -> bool {
    match fields.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn is_text(fields: &Map<String, Value>, field: &str, text: &str) -> bool {
    fields.get(field).is_some_and(|value| value == text)
}

fn objects<'a>(
    fields: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    fields
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}
