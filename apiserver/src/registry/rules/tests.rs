//! The rules one by one: what is refused, and in which words.

use serde_json::{Value, json};

use crate::registry::builtin::defaults;
use crate::schema::FieldError;
use crate::wire::typed;

fn completed(group: &str, kind: &str, mut object: Value) -> Value {
    typed::conform(group, "v1", kind, &mut object).expect("valid types");
    defaults::apply(group, "v1", kind, &mut object);
    object
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

/// The findings for a pod whose spec is a sound one with `changes` merged in.
fn pod(changes: &Value) -> Vec<String> {
    let mut spec = json!({"containers": [{"name": "a", "image": "b"}]});
    json_patch::merge(&mut spec, changes);
    texts(super::pod(&completed("", "Pod", json!({"spec": spec}))))
}

/// The findings for a pod whose one container has `changes` merged in.
fn container(changes: &Value) -> Vec<String> {
    let mut container = json!({"name": "a", "image": "b"});
    json_patch::merge(&mut container, changes);
    pod(&json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}))
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
    '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex \
    used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn sound_pods_pass() {
    assert_eq!(pod(&json!({})), Vec::<String>::new());
    assert_eq!(
        container(&json!({
            "ports": [{"containerPort": 80, "name": "web"}],
            "env": [{"name": "A.b-c", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a/b"}],
            "resources": {"limits": {"cpu": "1", "example.com/gpu": 1}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        })),
        Vec::<String>::new()
    );
}

#[test]
fn containers() {
    assert_eq!(
        pod(&json!({"containers": null})),
        ["spec.containers: Required value"]
    );
    assert_eq!(
        container(&json!({"image": null})),
        ["spec.containers[0].image: Required value"]
    );
    assert_eq!(
        container(&json!({"name": "A"})),
        [format!(
            "spec.containers[0].name: Invalid value: \"A\": {LABEL}"
        )]
    );
    assert_eq!(
        pod(
            &json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "c"}],
                   "initContainers": [{"name": "a", "image": "b"}]})
        ),
        [
            "spec.containers[1].name: Duplicate value: \"a\"",
            "spec.initContainers[0].name: Duplicate value: \"a\"",
        ]
    );
    assert_eq!(
        container(&json!({"imagePullPolicy": "Sometimes"})),
        [
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \
          \"Always\", \"IfNotPresent\", \"Never\""
        ]
    );
    assert_eq!(
        pod(
            &json!({"initContainers": [{"name": "i", "image": "b", "livenessProbe": {"exec": {"command": ["a"]}}}]})
        ),
        [
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers \
          without restartPolicy=Always"
        ]
    );
}

#[test]
fn ports_and_environment() {
    assert_eq!(
        container(
            &json!({"ports": [{"containerPort": 0}, {"containerPort": 70000},
            {"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"},
            {"containerPort": 3, "protocol": "X"}]})
        ),
        [
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and \
             65535, inclusive",
            "spec.containers[0].ports[3].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[4].protocol: Unsupported value: \"X\": supported values: \
             \"SCTP\", \"TCP\", \"UDP\"",
        ]
    );
    assert_eq!(
        container(
            &json!({"ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]})
        ),
        ["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8\""]
    );
    assert_eq!(
        container(&json!({"env": [
            {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {}},
            {"name": "a=b"},
        ], "envFrom": [{}]})),
        [
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when \
             `value` is not empty",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: \
             `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[2].name: Invalid value: \"a=b\": a valid environment variable \
             name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or \
             `secretRef`",
        ]
    );
}

#[test]
fn mounts_and_volumes() {
    assert_eq!(
        container(
            &json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}, {"name": "v", "mountPath": "/v"},
            {"name": "v", "mountPath": "/v", "subPath": "../x"}]})
        ),
        [
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[2].mountPath: Invalid value: \"/v\": must be unique",
            "spec.containers[0].volumeMounts[2].subPath: Invalid value: \"../x\": must not contain '..'",
        ]
    );
    let volume = |volume: Value| pod(&json!({"volumes": [volume]}));
    assert_eq!(
        volume(json!({"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}})),
        ["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"]
    );
    assert_eq!(
        volume(json!({"name": "v", "secret": {}})),
        ["spec.volumes[0].secret.secretName: Required value"]
    );
    assert_eq!(
        volume(
            json!({"name": "v", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "/x"}]}})
        ),
        [
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 \
             and 0777 (octal), both inclusive",
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"/x\": must be a relative path",
        ]
    );
    assert_eq!(
        pod(&json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]})),
        ["spec.volumes[1].name: Duplicate value: \"v\""]
    );
    let token = json!({"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}, {"secret": {}, "configMap": {"name": "c"}}]}});
    assert_eq!(
        volume(token),
        [
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid \
             value: 60: may not specify a duration less than 10 minutes",
            "spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type \
             per source",
            "spec.volumes[0].projected.sources[1].secret.name: Required value",
        ]
    );
}

#[test]
fn resources_and_probes() {
    assert_eq!(
        container(
            &json!({"resources": {"limits": {"cpu": "-1", "gpu": 1}, "requests": {"gpu": 1}}})
        )[..2],
        [
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or \
             equal to 0",
            "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard \
             resource type or fully qualified",
        ]
    );
    assert_eq!(
        container(
            &json!({"resources": {"limits": {"cpu": "1", "a.b/c": 2}, "requests": {"cpu": "2", "a.b/c": 1}}})
        ),
        [
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal \
             to cpu limit of 1",
            "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to a.b/c limit \
             of 2",
        ]
    );
    assert_eq!(
        container(
            &json!({"livenessProbe": {"httpGet": {"port": 0}, "exec": {"command": ["a"]}, "successThreshold": 2}})
        ),
        [
            "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler \
             type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ]
    );
    assert_eq!(
        container(&json!({"readinessProbe": {"periodSeconds": -1}})),
        [
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than \
             or equal to 0",
        ]
    );
    assert_eq!(
        container(&json!({"startupProbe": {"tcpSocket": {"port": "no_port"}}})),
        [
            "spec.containers[0].startupProbe.tcpSocket.port: Invalid value: \"no_port\": must contain \
          only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
        ]
    );
}

#[test]
fn pods_as_a_whole() {
    assert_eq!(
        pod(&json!({"restartPolicy": "Maybe", "dnsPolicy": "X", "activeDeadlineSeconds": 0})),
        [
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
             \"OnFailure\", \"Never\"",
            "spec.dnsPolicy: Unsupported value: \"X\": supported values: \
             \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ]
    );
    assert_eq!(
        pod(
            &json!({"hostNetwork": true, "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 1, "hostPort": 2}]}]})
        ),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when \
          `hostNetwork` is true"
        ]
    );
    assert_eq!(
        pod(
            &json!({"tolerations": [{"operator": "Equal", "value": "x"}, {"key": "a", "operator": "Exists", "value": "b"},
                                   {"key": "a", "tolerationSeconds": 1}]})
        ),
        [
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when \
             `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` \
             is 'Exists'",
            "spec.tolerations[2].effect: Invalid value: \"\": effect must be 'NoExecute' when \
             `tolerationSeconds` is set",
        ]
    );
}

#[test]
fn workloads() {
    let template = |labels: Value, restart: &str| json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": restart, "containers": [{"name": "a", "image": "b"}]}});
    let deployment = |spec: Value| {
        texts(super::deployment(&completed(
            "apps",
            "Deployment",
            json!({"spec": spec}),
        )))
    };
    let sound = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always")});
    assert_eq!(deployment(sound), Vec::<String>::new());
    assert_eq!(
        deployment(json!({"template": template(json!({}), "Always")})),
        ["spec.selector: Required value"]
    );
    assert_eq!(
        deployment(
            json!({"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "c"}), "Never")})
        ),
        [
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match \
             template `labels`",
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
             \"Always\"",
        ]
    );
    assert_eq!(
        deployment(json!({"selector": {}, "template": template(json!({}), "Always")})),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    let job = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always")}});
    assert_eq!(
        texts(super::job(&completed("batch", "Job", job))),
        [
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
        ]
    );
    let cron = json!({"spec": {"schedule": "* * *", "concurrencyPolicy": "X", "jobTemplate": {"spec": {"template": template(json!({}), "Never")}}}});
    assert_eq!(
        texts(super::cron_job(&completed("batch", "CronJob", cron))),
        [
            "spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \
             \"Forbid\", \"Replace\"",
            "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
        ]
    );
    // Claims of a stateful set are volumes of its pods.
    let mut set = json!({"spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/d"}]);
    assert_eq!(
        texts(super::stateful_set(&completed("apps", "StatefulSet", set))),
        Vec::<String>::new()
    );
}

#[test]
fn claims_policies_and_access() {
    assert_eq!(
        texts(super::claim(&completed(
            "",
            "PersistentVolumeClaim",
            json!({"spec": {}})
        ))),
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ]
    );
    let budget = json!({"spec": {"minAvailable": 1, "maxUnavailable": "x"}});
    assert_eq!(texts(super::disruption_budget(&budget)).len(), 2);
    let slice = json!({"addressType": "IPv4", "endpoints": [{}]});
    assert_eq!(
        texts(super::endpoint_slice(
            &slice,
            Some(&json!({"addressType": "IPv6"}))
        )),
        [
            "addressType: Invalid value: \"IPv4\": field is immutable",
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ]
    );
    assert_eq!(
        texts(super::lease(&json!({"spec": {"leaseDurationSeconds": 0}}))),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    assert_eq!(
        texts(super::role(
            &json!({"rules": [{"verbs": ["get"]}, {"nonResourceURLs": ["/x"], "verbs": ["get"]}]}),
            true
        )),
        [
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
             non-resource URLs",
        ]
    );
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"roleRef": {"apiGroup": group, "kind": "Role", "name": "r"}, "subjects": [{"kind": "Robot", "name": "x"}]});
    assert_eq!(
        texts(super::binding(&binding, None, false)),
        [
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \
             \"User\", \"Group\"",
        ]
    );
    let policy = json!({"spec": {"policyTypes": ["Sideways"], "ingress": [{"from": [{}], "ports": [{"port": 0}]}]}});
    assert_eq!(
        texts(super::network_policy(&completed(
            "networking.k8s.io",
            "NetworkPolicy",
            policy
        ))),
        [
            "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \
             \"Egress\"",
        ]
    );
    let ingress = json!({"spec": {"rules": [{"http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": {}}, {"backend": {}}]}}]}});
    assert_eq!(
        texts(super::ingress(&ingress)),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
        ]
    );
}

#[test]
fn privileges_and_identities_do_not_contradict() {
    let found = container(
        &json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false, "runAsGroup": -1}}),
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("spec.containers[0].securityContext.runAsGroup: Invalid value: -1")
    );
    assert!(found[1].starts_with("spec.containers[0].securityContext: Invalid value: {"));
    let sound = json!({"securityContext": {"privileged": true, "runAsUser": 0}});
    assert_eq!(container(&sound), Vec::<String>::new());
}

#[test]
fn variables_come_from_fields_that_have_one_value() {
    let from = |field: &str| {
        container(&json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": field}}}]}))
    };
    for field in ["metadata.name", "status.podIP", "metadata.labels['a.io/b']"] {
        assert_eq!(from(field), Vec::<String>::new(), "{field}");
    }
    for field in [
        "metadata.labels",
        "metadata.nope",
        "metadata.annotations['a b']",
    ] {
        let found = from(field);
        assert_eq!(found.len(), 1, "{field}: {found:?}");
    }
}

#[test]
fn spreading_needs_a_skew_and_a_way_out() {
    assert_eq!(
        pod(
            &json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "Never"}]})
        ),
        [
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": \
             supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ]
    );
}

#[test]
fn services_are_reached_as_their_type_allows() {
    let service = |spec: Value| {
        texts(super::service(&completed(
            "",
            "Service",
            json!({"spec": spec}),
        )))
    };
    let with = |kind: &str, node_port: u16| {
        service(json!({"type": kind, "ports": [{"port": 1, "nodePort": node_port}]}))
    };
    assert_eq!(with("NodePort", 30000), Vec::<String>::new());
    assert_eq!(
        with("NodePort", 1),
        [
            "spec.ports[0].nodePort: Invalid value: 1: provided port is not in the valid range. The \
             range of valid ports is 30000-32767"
        ]
    );
    assert_eq!(
        with("ClusterIP", 30000),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
    );
    let addressed = json!({"ports": [{"port": 1}], "externalIPs": ["192.0.2.1", "here"],
        "ipFamilies": ["IPv9"], "externalTrafficPolicy": "Near"});
    assert_eq!(
        service(addressed),
        [
            "spec.ipFamilies[0]: Unsupported value: \"IPv9\": supported values: \"IPv4\", \"IPv6\"",
            "spec.externalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \
             \"Local\"",
            "spec.externalIPs[1]: Invalid value: \"here\": must be a valid IP address, (e.g. 10.9.8.7 \
             or 2001:db8::ffff)",
        ]
    );
}
