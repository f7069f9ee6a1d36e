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
    let job = |spec: Value| completed("batch", "v1", "Job", json!({"spec": spec}))["spec"].take();
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
