//! Defaults of the built-in kinds that no OpenAPI document carries.
//!
//! They belong to types, not to kinds: a container gets its defaults wherever it appears. Most are
//! constants in a table; those that depend on other fields are functions of one type. The values are
//! those of Kubernetes' defaulting functions; a suite compares the results with a real server's.

use serde_json::{Map, Value, json};

use crate::wire::typed;

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

/// A value that does not depend on anything.
#[derive(Debug, Clone, Copy)]
enum Constant {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    EmptyObject,
}

impl Constant {
    fn value(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::EmptyObject => Value::Object(Map::new()),
        }
    }
}

use Constant::{EmptyObject, Flag, Number, Text};

/// The mode of files in volumes: `0644`.
const FILE_MODE: Constant = Number(0o644);

/// Type, field and value.
const CONSTANTS: &[(&str, &str, Constant)] = &[
    ("core.v1.PodSpec", "restartPolicy", Text("Always")),
    (
        "core.v1.PodSpec",
        "terminationGracePeriodSeconds",
        Number(30),
    ),
    ("core.v1.PodSpec", "dnsPolicy", Text("ClusterFirst")),
    ("core.v1.PodSpec", "securityContext", EmptyObject),
    (
        "core.v1.PodSpec",
        "schedulerName",
        Text("default-scheduler"),
    ),
    (
        "core.v1.Container",
        "terminationMessagePath",
        Text("/dev/termination-log"),
    ),
    (
        "core.v1.Container",
        "terminationMessagePolicy",
        Text("File"),
    ),
    (
        "core.v1.EphemeralContainerCommon",
        "terminationMessagePath",
        Text("/dev/termination-log"),
    ),
    (
        "core.v1.EphemeralContainerCommon",
        "terminationMessagePolicy",
        Text("File"),
    ),
    ("core.v1.ContainerPort", "protocol", Text("TCP")),
    ("core.v1.Probe", "timeoutSeconds", Number(1)),
    ("core.v1.Probe", "periodSeconds", Number(10)),
    ("core.v1.Probe", "successThreshold", Number(1)),
    ("core.v1.Probe", "failureThreshold", Number(3)),
    ("core.v1.HTTPGetAction", "path", Text("/")),
    ("core.v1.HTTPGetAction", "scheme", Text("HTTP")),
    ("core.v1.GRPCAction", "service", Text("")),
    ("core.v1.ObjectFieldSelector", "apiVersion", Text("v1")),
    ("core.v1.SecretVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.ProjectedVolumeSource", "defaultMode", FILE_MODE),
    (
        "core.v1.ServiceAccountTokenProjection",
        "expirationSeconds",
        Number(3600),
    ),
    ("core.v1.HostPathVolumeSource", "type", Text("")),
    (
        "core.v1.ISCSIVolumeSource",
        "iscsiInterface",
        Text("default"),
    ),
    ("core.v1.RBDVolumeSource", "pool", Text("rbd")),
    ("core.v1.RBDVolumeSource", "user", Text("admin")),
    (
        "core.v1.RBDVolumeSource",
        "keyring",
        Text("/etc/ceph/keyring"),
    ),
    ("core.v1.ServicePort", "protocol", Text("TCP")),
    ("core.v1.ServiceSpec", "sessionAffinity", Text("None")),
    ("core.v1.ServiceSpec", "type", Text("ClusterIP")),
    ("core.v1.EndpointPort", "protocol", Text("TCP")),
    ("core.v1.Secret", "type", Text("Opaque")),
    (
        "core.v1.PersistentVolumeSpec",
        "persistentVolumeReclaimPolicy",
        Text("Retain"),
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeMode",
        Text("Filesystem"),
    ),
    ("core.v1.PersistentVolumeStatus", "phase", Text("Pending")),
    (
        "core.v1.PersistentVolumeClaimSpec",
        "volumeMode",
        Text("Filesystem"),
    ),
    (
        "core.v1.PersistentVolumeClaimStatus",
        "phase",
        Text("Pending"),
    ),
    ("core.v1.NamespaceStatus", "phase", Text("Active")),
    ("apps.v1.DeploymentSpec", "replicas", Number(1)),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", Number(10)),
    (
        "apps.v1.DeploymentSpec",
        "progressDeadlineSeconds",
        Number(600),
    ),
    ("apps.v1.DeploymentStrategy", "type", Text("RollingUpdate")),
    (
        "apps.v1.RollingUpdateDeployment",
        "maxUnavailable",
        Text("25%"),
    ),
    ("apps.v1.RollingUpdateDeployment", "maxSurge", Text("25%")),
    ("apps.v1.ReplicaSetSpec", "replicas", Number(1)),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", Number(10)),
    (
        "apps.v1.DaemonSetUpdateStrategy",
        "type",
        Text("RollingUpdate"),
    ),
    (
        "apps.v1.RollingUpdateDaemonSet",
        "maxUnavailable",
        Number(1),
    ),
    ("apps.v1.RollingUpdateDaemonSet", "maxSurge", Number(0)),
    ("apps.v1.StatefulSetSpec", "replicas", Number(1)),
    (
        "apps.v1.StatefulSetSpec",
        "revisionHistoryLimit",
        Number(10),
    ),
    (
        "apps.v1.StatefulSetSpec",
        "podManagementPolicy",
        Text("OrderedReady"),
    ),
    (
        "apps.v1.StatefulSetSpec",
        "persistentVolumeClaimRetentionPolicy",
        EmptyObject,
    ),
    (
        "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenDeleted",
        Text("Retain"),
    ),
    (
        "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenScaled",
        Text("Retain"),
    ),
    (
        "apps.v1.RollingUpdateStatefulSetStrategy",
        "partition",
        Number(0),
    ),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", Text("Allow")),
    ("batch.v1.CronJobSpec", "suspend", Flag(false)),
    (
        "batch.v1.CronJobSpec",
        "successfulJobsHistoryLimit",
        Number(3),
    ),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", Number(1)),
    (
        "batch.v1.PodFailurePolicyOnPodConditionsPattern",
        "status",
        Text("True"),
    ),
    ("networking.v1.NetworkPolicyPort", "protocol", Text("TCP")),
    (
        "networking.v1.IngressClassParametersReference",
        "scope",
        Text("Cluster"),
    ),
    ("rbac.v1.RoleRef", "apiGroup", Text(RBAC_GROUP)),
    ("storage.v1.StorageClass", "reclaimPolicy", Text("Delete")),
    (
        "storage.v1.StorageClass",
        "volumeBindingMode",
        Text("Immediate"),
    ),
    (
        "scheduling.v1.PriorityClass",
        "preemptionPolicy",
        Text("PreemptLowerPriority"),
    ),
    ("discovery.v1.EndpointPort", "name", Text("")),
    ("discovery.v1.EndpointPort", "protocol", Text("TCP")),
    (
        "autoscaling.v2.HorizontalPodAutoscalerSpec",
        "minReplicas",
        Number(1),
    ),
    (
        "authentication.v1.TokenRequestSpec",
        "expirationSeconds",
        Number(3600),
    ),
];

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(group: &str, version: &str, kind: &str, mut object: Value) -> Value {
        typed::conform(group, version, kind, &mut object).expect("valid types");
        apply(group, version, kind, &mut object);
        let once = object.clone();
        typed::conform(group, version, kind, &mut object).expect("still valid");
        apply(group, version, kind, &mut object);
        assert_eq!(object, once, "completing twice changes nothing");
        object
    }

    #[test]
    fn every_constant_names_a_field_of_a_known_type() {
        for (r#type, field, constant) in CONSTANTS {
            let name = format!("io.k8s.api.{type}");
            assert!(typed::has_field(&name, field), "{type} has no {field}");
            assert!(!constant.value().is_null());
        }
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1", "IfNotPresent"),
            ("host:5000/busybox", "Always"),
            ("host:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:0", "IfNotPresent"),
        ] {
            let pod = completed(
                "",
                "v1",
                "Pod",
                json!({"spec": {"containers": [{"name": "a", "image": image}]}}),
            );
            assert_eq!(
                pod["spec"]["containers"][0]["imagePullPolicy"], policy,
                "{image}"
            );
        }
    }

    #[test]
    fn templates_get_the_defaults_of_types_but_not_those_of_pods() {
        let containers = json!([{"name": "a", "image": "b:1", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}}}]);
        let pod = completed(
            "",
            "v1",
            "Pod",
            json!({"spec": {"containers": containers, "hostNetwork": true, "serviceAccount": "robot"}}),
        );
        let spec = &pod["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(
            (
                spec["enableServiceLinks"].as_bool(),
                spec["serviceAccountName"].as_str()
            ),
            (Some(true), Some("robot"))
        );
        assert_eq!(
            spec["containers"][0]["resources"]["requests"],
            json!({"cpu": "1"})
        );
        assert_eq!(
            spec["containers"][0]["ports"][0],
            json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80})
        );
        assert_eq!(
            spec["containers"][0]["livenessProbe"]["httpGet"]["scheme"],
            "HTTP"
        );

        let set = completed(
            "apps",
            "v1",
            "ReplicaSet",
            json!({"spec": {"template": {"spec": {"containers": containers}}}}),
        );
        let spec = &set["spec"]["template"]["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert!(spec.get("enableServiceLinks").is_none());
        assert!(spec["containers"][0]["resources"].get("requests").is_none());
    }

    #[test]
    fn strategies_are_completed_as_far_as_they_apply() {
        let strategy = |strategy: Value| {
            completed(
                "apps",
                "v1",
                "Deployment",
                json!({"spec": {"strategy": strategy}}),
            )["spec"]["strategy"]
                .take()
        };
        assert_eq!(
            strategy(json!({"type": "Recreate"})),
            json!({"type": "Recreate"})
        );
        assert_eq!(
            strategy(json!({"rollingUpdate": {"maxSurge": 0}})),
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}})
        );
        let update = |strategy: Value| {
            completed(
                "apps",
                "v1",
                "StatefulSet",
                json!({"spec": {"updateStrategy": strategy}}),
            )["spec"]["updateStrategy"]
                .take()
        };
        assert_eq!(
            update(json!({})),
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            update(json!({"type": "OnDelete"})),
            json!({"type": "OnDelete"})
        );
    }

    #[test]
    fn jobs_services_and_autoscalers() {
        let job =
            |spec: Value| completed("batch", "v1", "Job", json!({"spec": spec}))["spec"].take();
        assert_eq!(job(json!({}))["completions"], 1);
        let queue = job(
            json!({"parallelism": 3, "podFailurePolicy": {"rules": []}, "backoffLimitPerIndex": 1}),
        );
        assert!(queue.get("completions").is_none());
        assert_eq!(
            (&queue["podReplacementPolicy"], &queue["backoffLimit"]),
            (&json!("Failed"), &json!(i32::MAX))
        );

        let service =
            |spec: Value| completed("", "v1", "Service", json!({"spec": spec}))["spec"].take();
        let name = service(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(
            name,
            json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "a.b"})
        );
        let affine = service(
            json!({"sessionAffinity": "ClientIP", "ports": [{"port": 1}, {"port": 2, "targetPort": "x"}]}),
        );
        assert_eq!(
            affine["sessionAffinityConfig"],
            json!({"clientIP": {"timeoutSeconds": 10800}})
        );
        assert_eq!(
            (
                &affine["ports"][0]["targetPort"],
                &affine["ports"][1]["targetPort"]
            ),
            (&json!(1), &json!("x"))
        );
        assert!(
            service(json!({"sessionAffinityConfig": {"clientIP": {}}}))
                .get("sessionAffinityConfig")
                .is_none()
        );
        assert_eq!(
            service(json!({"externalIPs": ["1.1.1.1"]}))["externalTrafficPolicy"],
            "Cluster"
        );

        let scaler = completed(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Min"}}}}),
        );
        let behavior = &scaler["spec"]["behavior"];
        assert_eq!(behavior["scaleUp"]["stabilizationWindowSeconds"], 0);
        assert_eq!(behavior["scaleDown"]["selectPolicy"], "Min");
        assert!(
            behavior["scaleDown"]
                .get("stabilizationWindowSeconds")
                .is_none()
        );
    }
}
