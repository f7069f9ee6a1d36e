//! What the built-in kinds demand, in the words of the answer.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Patch, Target, pod, text, with};

/// Posts every object of a table and compares the message.
async fn refusals(target: &Target, path: &str, cases: Vec<(Value, &str)>) -> Result<()> {
    for (object, message) in cases {
        target
            .post(path, &object)
            .await?
            .error_saying(422, "Invalid", message);
    }
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test(flavor = "multi_thread")]
async fn pods() -> Result<()> {
    let target = Target::new().await?;
    let spec = |change: Value| {
        let mut pod = pod("p");
        pod["spec"] = with(pod["spec"].take(), change);
        pod
    };
    let container = |change: Value| {
        spec(json!({"containers": [with(json!({"name": "a", "image": "b"}), change)]}))
    };
    let cases = vec![
        (
            spec(json!({"containers": []})),
            "Pod \"p\" is invalid: spec.containers: Required value",
        ),
        (
            container(json!({"name": "A"})),
            "Pod \"p\" is invalid: spec.containers[0].name: Invalid value: \"A\": a lowercase RFC \
             1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
             validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (
            container(json!({"imagePullPolicy": "Sometimes"})),
            "Pod \"p\" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: \
             \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "Pod \"p\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            container(
                json!({"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            "Pod \"p\" is invalid: spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not \
             be specified when `value` is not empty",
        ),
        (
            container(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
            "Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must \
             be less than or equal to cpu limit of 1",
        ),
        (
            container(json!({"livenessProbe": {"periodSeconds": 1}})),
            "Pod \"p\" is invalid: spec.containers[0].livenessProbe: Required value: must specify a \
             handler type",
        ),
        // The letters of this name break two rules at once.
        (
            container(json!({"ports": [{"containerPort": 80, "name": "UPPER"}]})),
            "Pod \"p\" is invalid: [spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must \
             contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), \
             spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain at least one \
             letter (a-z)]",
        ),
        (
            spec(json!({"volumes": [{"name": "v", "secret": {"secretName": ""}}]})),
            "Pod \"p\" is invalid: spec.volumes[0].secret.secretName: Required value",
        ),
        (
            spec(json!({"restartPolicy": "Maybe"})),
            "Pod \"p\" is invalid: spec.restartPolicy: Unsupported value: \"Maybe\": supported \
             values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            spec(json!({"activeDeadlineSeconds": 0})),
            "Pod \"p\" is invalid: spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 \
             and 2147483647, inclusive",
        ),
        (
            spec(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})),
            "Pod \"p\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            spec(json!({"securityContext": {"runAsUser": -1}})),
            "Pod \"p\" is invalid: spec.securityContext.runAsUser: Invalid value: -1: must be \
             between 0 and 2147483647, inclusive",
        ),
        (
            container(json!({"image": " i"})),
            "Pod \"p\" is invalid: spec.containers[0].image: Invalid value: \" i\": must not have \
             leading or trailing whitespace",
        ),
        (
            container(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nope"}}}]}),
            ),
            "Pod \"p\" is invalid: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid \
             value: \"metadata.nope\": error converting fieldPath: field label not supported: \
             metadata.nope",
        ),
        (
            container(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]}),
            ),
            "Pod \"p\" is invalid: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: \
             Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \
             \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
             \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \
             \"status.podIPs\"",
        ),
    ];
    refusals(&target, &target.path("/api/v1", "pods"), cases).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_its_spec() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    target.create(&pods, &pod("p")).await?;
    let path = format!("{pods}/p");
    let image = json!({"spec": {"containers": [{"name": "main", "image": "local.test/other:1"}]}});
    target.patch(Patch::Strategic, &path, &image).await?.ok()?;
    let deadline = json!({"spec": {"activeDeadlineSeconds": 600}});
    target.patch(Patch::Merge, &path, &deadline).await?.ok()?;
    let later = json!({"spec": {"activeDeadlineSeconds": 601}});
    target
        .patch(Patch::Merge, &path, &later)
        .await?
        .error_saying(
            422,
            "Invalid",
            "Pod \"p\" is invalid: spec.activeDeadlineSeconds: Invalid value: 601: must be less \
             than or equal to previous value",
        );
    let toleration = json!([{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "k", "operator": "Exists"}}]);
    target.patch(Patch::Json, &path, &toleration).await?.ok()?;
    // What admission added is added again.
    let only = json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}});
    let kept = target.patch(Patch::Merge, &path, &only).await?.ok()?;
    assert_eq!(
        kept["spec"]["tolerations"].as_array().map(Vec::len),
        Some(3)
    );
    for change in [
        json!({"spec": {"hostNetwork": true}}),
        json!({"spec": {"nodeSelector": {"a": "b"}}}),
        json!({"spec": {"restartPolicy": "Never"}}),
    ] {
        let status = target
            .patch(Patch::Merge, &path, &change)
            .await?
            .error(422, "Invalid");
        assert!(
            text(&status, "/message").starts_with(
                "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than \
                 `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                 tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                 previously negative)"
            ),
            "{status}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services() -> Result<()> {
    let target = Target::new().await?;
    let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    let cases = vec![
        (
            service(json!({"selector": {"a": "b"}})),
            "Service \"s\" is invalid: spec.ports: Required value",
        ),
        (
            service(json!({"ports": [{"port": 70000}]})),
            "Service \"s\" is invalid: [spec.ports[0].port: Invalid value: 70000: must be between 1 \
             and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 70000: must be between 1 \
             and 65535, inclusive]",
        ),
        (
            service(json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]})),
            "Service \"s\" is invalid: spec.ports[0].name: Required value",
        ),
        (
            service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]})),
            "Service \"s\" is invalid: spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            service(json!({"type": "Magic", "ports": [{"port": 1}]})),
            "Service \"s\" is invalid: spec.type: Unsupported value: \"Magic\": supported values: \
             \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            service(json!({"ports": [{"port": 1, "nodePort": 30000}]})),
            "Service \"s\" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` \
             is 'ClusterIP'",
        ),
        (
            service(json!({"ports": [{"port": 1}], "externalTrafficPolicy": "Local"})),
            "Service \"s\" is invalid: spec.externalTrafficPolicy: Invalid value: \"Local\": may only \
             be set for externally-accessible services",
        ),
        (
            service(json!({"ports": [{"port": 1}], "internalTrafficPolicy": "Near"})),
            "Service \"s\" is invalid: spec.internalTrafficPolicy: Unsupported value: \"Near\": \
             supported values: \"Cluster\", \"Local\"",
        ),
        (
            service(json!({"ports": [{"port": 1}], "clusterIP": "nowhere"})),
            "Service \"s\" is invalid: spec.clusterIPs[0]: Invalid value: \"nowhere\": must be a \
             valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            service(json!({"ports": [{"port": 1}], "clusterIP": "192.0.2.1"})),
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: failed to \
             allocate IP 192.0.2.1: the provided network does not match the current range",
        ),
        (
            service(json!({"ports": [{"port": 1}], "ipFamilyPolicy": "RequireDualStack"})),
            "Service \"s\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this \
             cluster is not configured for dual-stack services",
        ),
    ];
    refusals(&target, &target.path("/api/v1", "services"), cases).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_changes_its_type_leaves_nothing_behind() -> Result<()> {
    let target = Target::new().await?;
    let services = target.path("/api/v1", "services");
    let object =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}], "type": "NodePort"}});
    let created = target.create(&services, &object).await?;
    assert_eq!(created["spec"]["externalTrafficPolicy"], "Cluster");
    let path = format!("{services}/s");
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let plain = target.patch(Patch::Merge, &path, &plain).await?.ok()?;
    assert_eq!(plain["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    assert!(plain["spec"].get("externalTrafficPolicy").is_none());
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    let named = json!({"spec": {"type": "ExternalName", "externalName": "a.example.com"}});
    let named = target.patch(Patch::Merge, &path, &named).await?.ok()?;
    assert_eq!(
        named["spec"],
        json!({"externalName": "a.example.com", "sessionAffinity": "None", "type": "ExternalName",
            "ports": [{"port": 1, "protocol": "TCP", "targetPort": 1}]})
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_secrets_and_claims() -> Result<()> {
    let target = Target::new().await?;
    refusals(
        &target,
        &target.config_maps(""),
        vec![(
            json!({"metadata": {"name": "c"}, "data": {"a/b": "x"}}),
            "ConfigMap \"c\" is invalid: data[a/b]: Invalid value: \"a/b\": a valid config key must \
             consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
             or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        )],
    )
    .await?;
    refusals(
        &target,
        &target.path("/api/v1", "secrets"),
        vec![(
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "Secret \"s\" is invalid: data[tls.key]: Required value",
        ), (
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/basic-auth"}),
            "Secret \"s\" is invalid: [data[username]: Required value, data[password]: Required value]",
        ), (
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/service-account-token"}),
            "Secret \"s\" is invalid: metadata.annotations[kubernetes.io/service-account.name]: \
             Required value",
        )],
    )
    .await?;
    refusals(
        &target,
        &target.path("/api/v1", "persistentvolumeclaims"),
        vec![(
            json!({"metadata": {"name": "c"}, "spec": {}}),
            "PersistentVolumeClaim \"c\" is invalid: [spec.accessModes: Required value: at least 1 \
             access mode is required, spec.resources[storage]: Required value]",
        )],
    )
    .await?;
    let claims = target.path("/api/v1", "persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}});
    target.create(&claims, &claim).await?;
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let path = format!("{claims}/c");
    let status = target
        .patch(Patch::Merge, &path, &larger)
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").starts_with(
            "PersistentVolumeClaim \"c\" is invalid: spec: Forbidden: spec is immutable after creation"
        ),
        "{status}"
    );
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    target
        .patch(Patch::Merge, &format!("{path}/status"), &bound)
        .await?
        .ok()?;
    let frozen = json!({"metadata": {"name": "f"}, "data": {"k": "v"}, "immutable": true});
    target.create(&target.config_maps(""), &frozen).await?;
    target
        .patch(
            Patch::Merge,
            &target.config_maps("f"),
            &json!({"data": {"k": "w"}}),
        )
        .await?
        .error_saying(
            422,
            "Invalid",
            "ConfigMap \"f\" is invalid: data: Forbidden: field is immutable when `immutable` is \
             set",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads() -> Result<()> {
    let target = Target::new().await?;
    let template = |labels: Value, restart: &str| {
        json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": restart, "schedulerName": "none",
            "containers": [{"name": "a", "image": "local.test/none:1"}]}})
    };
    let deployment = |spec: Value| json!({"metadata": {"name": "d"}, "spec": spec});
    let cases = vec![
        (
            deployment(
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "c"}), "Always")}),
            ),
            "Deployment.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: \
             {\"a\":\"c\"}: `selector` does not match template `labels`",
        ),
        (
            deployment(
                json!({"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always")}),
            ),
            "Deployment.apps \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than \
             or equal to 0",
        ),
        (
            deployment(
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Never")}),
            ),
            "Deployment.apps \"d\" is invalid: spec.template.spec.restartPolicy: Unsupported value: \
             \"Never\": supported values: \"Always\"",
        ),
    ];
    refusals(&target, &target.path("/apis/apps/v1", "deployments"), cases).await?;
    let job =
        json!({"metadata": {"name": "j"}, "spec": {"template": template(json!({}), "Always")}});
    refusals(
        &target,
        &target.path("/apis/batch/v1", "jobs"),
        vec![(
            job,
            "Job.batch \"j\" is invalid: spec.template.spec.restartPolicy: Required value: valid \
             values: \"OnFailure\", \"Never\"",
        )],
    )
    .await?;
    let deployments = target.path("/apis/apps/v1", "deployments");
    let sound = deployment(
        json!({"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}), "Always")}),
    );
    target.create(&deployments, &sound).await?;
    let change = json!({"spec": {"selector": {"matchLabels": {"a": "b", "c": "d"}}, "template": {"metadata": {"labels": {"c": "d"}}}}});
    let status = target
        .patch(Patch::Merge, &format!("{deployments}/d"), &change)
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("spec.selector: Invalid value")
            && text(&status, "/message").ends_with("field is immutable"),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn access_and_networking() -> Result<()> {
    let target = Target::new().await?;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    refusals(
        &target,
        &target.path(rbac, "roles"),
        vec![(
            json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}),
            "Role.rbac.authorization.k8s.io \"r\" is invalid: [rules[0].apiGroups: Required value: \
             resource rules must supply at least one api group, rules[0].resources: Required value: \
             resource rules must supply at least one resource]",
        )],
    )
    .await?;
    refusals(
        &target,
        &target.path(rbac, "rolebindings"),
        vec![(
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Thing", "name": "x"}}),
            "RoleBinding.rbac.authorization.k8s.io \"b\" is invalid: roleRef.kind: Unsupported value: \
             \"Thing\": supported values: \"Role\", \"ClusterRole\"",
        )],
    )
    .await?;
    refusals(
        &target,
        &target.path("/apis/coordination.k8s.io/v1", "leases"),
        vec![(
            json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}}),
            "Lease.coordination.k8s.io \"l\" is invalid: spec.leaseDurationSeconds: Invalid value: 0: \
             must be greater than 0",
        )],
    )
    .await?;
    refusals(
        &target,
        &target.path("/apis/networking.k8s.io/v1", "ingresses"),
        vec![(
            json!({"metadata": {"name": "i"}, "spec": {"rules": [{"http": {"paths": [
                {"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 1}}}}]}}]}}),
            "Ingress.networking.k8s.io \"i\" is invalid: spec.rules[0].http.paths[0].path: Invalid \
             value: \"x\": must be an absolute path",
        )],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_belong_to_the_namespace_of_their_subject() -> Result<()> {
    let target = Target::new().await?;
    let event = |namespace: &str| json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": namespace}});
    let events = target.path("/api/v1", "events");
    refusals(
        &target,
        &events,
        vec![
            (
                event("elsewhere"),
                "Event \"e\" is invalid: involvedObject.namespace: Invalid value: \"elsewhere\": does \
                 not match event.namespace",
            ),
            (
                event(""),
                "Event \"e\" is invalid: involvedObject.namespace: Invalid value: \"\": does not match \
                 event.namespace",
            ),
        ],
    )
    .await?;
    target.create(&events, &event(target.namespace())).await?;
    Ok(())
}
