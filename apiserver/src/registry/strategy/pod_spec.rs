//! Defaults of a pod spec that depend on other fields or exist only in code.
//!
//! Published behaviour: the defaulting functions of `core/v1`. Used for Pods and for the templates
//! of workloads.

use serde_json::{Map, Value};

use super::{child, default, items, items_mut, text};

/// Completes a pod spec.
pub(super) fn complete(spec: &mut Value) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "enableServiceLinks", true);
    default(spec, "securityContext", Map::new());
    // The deprecated name of the field follows the current one, and the other way round.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !account.is_empty() {
        default(spec, "serviceAccountName", account.as_str());
        default(spec, "serviceAccount", account);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list) {
            complete_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        complete_volume(volume);
    }
}

/// The service class that a pod's requests and limits put it in.
pub(super) fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in items(spec, "containers").chain(items(spec, "initContainers")) {
        let quantity = |list: &str, resource: &str| {
            container
                .get("resources")?
                .get(list)?
                .get(resource)
                .map(Value::to_string)
        };
        for resource in ["cpu", "memory"] {
            let (request, limit) = (quantity("requests", resource), quantity("limits", resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &=
                limit.is_some() && request.as_ref().is_none_or(|r| Some(r) == limit.as_ref());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn complete_container(container: &mut Value, host_network: bool) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", Map::new());
    let policy = pull_policy(text(container, "image"));
    default(container, "imagePullPolicy", policy);
    for port in items_mut(container, "ports") {
        default(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default(port, "hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            complete_probe(probe);
        }
    }
    let hooks = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut);
    for hook in hooks.into_iter().flat_map(Map::values_mut) {
        complete_http(hook);
    }
    for variable in items_mut(container, "env") {
        if let Some(reference) = variable
            .get_mut("valueFrom")
            .and_then(|v| v.get_mut("fieldRef"))
        {
            default(reference, "apiVersion", "v1");
        }
    }
    requests_from_limits(container);
}

fn complete_probe(probe: &mut Value) {
    default(probe, "timeoutSeconds", 1);
    default(probe, "periodSeconds", 10);
    default(probe, "successThreshold", 1);
    default(probe, "failureThreshold", 3);
    complete_http(probe);
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object()) {
        default(grpc, "service", "");
    }
}

fn complete_http(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet").filter(|http| http.is_object()) {
        default(http, "path", "/");
        default(http, "scheme", "HTTP");
    }
}

/// A resource with a limit and no request requests its limit.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container
        .get("resources")
        .and_then(|resources| resources.get("limits"))
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    let requests = child(container, "resources").and_then(|resources| child(resources, "requests"));
    if let Some(requests) = requests {
        for (resource, quantity) in limits {
            default(requests, &resource, quantity);
        }
    }
}

fn complete_volume(volume: &mut Value) {
    let sources = ["configMap", "secret", "downwardAPI", "projected"];
    for source in sources {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            default(source, "defaultMode", 0o644);
            complete_field_references(source);
            for part in items_mut(source, "sources") {
                complete_projection(part);
            }
        }
    }
    if let Some(host) = volume.get_mut("hostPath").filter(|host| host.is_object()) {
        default(host, "type", "");
    }
    let named = volume
        .as_object()
        .is_some_and(|map| map.keys().any(|key| key != "name"));
    if !named {
        default(volume, "emptyDir", Map::new());
    }
}

fn complete_projection(part: &mut Value) {
    if let Some(token) = part
        .get_mut("serviceAccountToken")
        .filter(|token| token.is_object())
    {
        default(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = part.get_mut("downwardAPI") {
        complete_field_references(downward);
    }
}

fn complete_field_references(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(reference) = item.get_mut("fieldRef") {
            default(reference, "apiVersion", "v1");
        }
    }
}

/// `Always` for a moving tag, `IfNotPresent` for a fixed one.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains('@') {
        return "IfNotPresent";
    }
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let cases = [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1", "IfNotPresent"),
            ("host:5000/busybox", "Always"),
            ("host:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:0", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn containers_probes_ports_and_volumes_are_completed() {
        let mut spec = json!({
            "serviceAccount": "robot",
            "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "a"}, {"name": "s", "secret": {"secretName": "x"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
        });
        complete(&mut spec);
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["serviceAccountName"], "robot");
        let container = &spec["containers"][0];
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/");
        assert_eq!(container["readinessProbe"]["periodSeconds"], 10);
        assert_eq!(
            container["resources"]["requests"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(
            container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
            "v1"
        );
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        let token = &spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["expirationSeconds"], 3600);
        let again = spec.clone();
        complete(&mut spec);
        assert_eq!(spec, again, "completing twice changes nothing");
    }

    #[test]
    fn the_service_class_follows_requests_and_limits() {
        let class =
            |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
        let smaller = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(class(smaller), "Burstable");
    }
}
