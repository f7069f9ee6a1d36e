//! Hooks of built-in kinds, called the way the write path calls them.

use serde_json::json;

use super::*;
use crate::meta;
use crate::store::WindowLimits;

fn with_context<T>(name: &str, body: impl FnOnce(&Context<'_>) -> T) -> T {
    let store = Store::new(WindowLimits::default());
    body(&Context {
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        namespace: "ns",
        name,
        subresource: "",
        store: &store,
    })
}

/// The object as the write path hands it to the hooks: typed and with defaults.
fn typed(group: &str, plural: &str, mut object: Value) -> Value {
    let kind = match plural {
        "pods" => "Pod",
        "services" => "Service",
        "secrets" => "Secret",
        "namespaces" => "Namespace",
        "deployments" => "Deployment",
        "jobs" => "Job",
        other => panic!("no kind for {other}"),
    };
    crate::wire::typed::conform(group, "v1", kind, &mut object).unwrap();
    crate::registry::builtin::defaults::apply(group, "v1", kind, &mut object);
    object
}

fn within<'a>(ctx: &'a Context<'a>, subresource: &'a str) -> Context<'a> {
    Context {
        subresource,
        ..*ctx
    }
}

fn created(group: &str, plural: &str, object: Value) -> Value {
    let mut object = typed(group, plural, object);
    with_context("x", |ctx| {
        strategy_for(group, plural).prepare_create(ctx, &mut object);
    });
    object
}

fn refused(group: &str, plural: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let errors = with_context("x", |ctx| {
        strategy_for(group, plural).validate(ctx, new, old)
    });
    errors.into_iter().map(|error| error.path).collect()
}

#[test]
fn a_new_pod_is_pending_whatever_its_author_says() {
    let pod = created(
        "",
        "pods",
        json!({"spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running"}}),
    );
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
}

#[test]
fn a_pod_spec_changes_only_where_published() {
    let pod = |change: fn(&mut Value)| {
        let mut pod = json!({"spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i",
            "args": ["a"]}], "tolerations": [{"key": "k"}]}});
        change(&mut pod["spec"]);
        typed("", "pods", pod)
    };
    let old = pod(|_| {});
    let refused = |new| refused("", "pods", &new, Some(&old));
    assert!(refused(pod(|s| s["containers"][0]["image"] = "j".into())).is_empty());
    assert!(refused(pod(|s| s["activeDeadlineSeconds"] = 5.into())).is_empty());
    assert!(
        refused(pod(
            |s| s["tolerations"] = json!([{"key": "k"}, {"key": "l"}])
        ))
        .is_empty()
    );
    assert_eq!(
        refused(pod(|s| s["containers"][0]["args"] = json!([]))),
        ["spec"]
    );
    assert_eq!(refused(pod(|s| s["nodeName"] = "m".into())), ["spec"]);
    assert_eq!(
        refused(pod(|s| s["schedulingGates"] = json!([{"name": "g"}]))),
        ["spec.schedulingGates"]
    );
    let resized = pod(|s| s["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}}));
    assert_eq!(refused(resized.clone()), ["spec"]);
    let through_resize = with_context("x", |ctx| {
        strategy_for("", "pods")
            .validate(&within(ctx, "resize"), &resized, Some(&old))
            .len()
    });
    assert_eq!(through_resize, 0);
    assert_eq!(
        refused(pod(|s| s["nodeSelector"] = json!({"a": "b"}))),
        ["spec"]
    );
    assert_eq!(
        refused(pod(|s| s["tolerations"] = json!([]))),
        ["spec.tolerations"]
    );
}

#[test]
fn only_running_pods_end_gracefully() {
    let pods = strategy_for("", "pods");
    let grace = |object: Value, requested| match pods.deletion(&object, requested) {
        Deletion::Graceful { seconds } => seconds,
        other => panic!("pods are graceful, not {other:?}"),
    };
    let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}});
    assert_eq!(grace(running.clone(), None), 7);
    assert_eq!(grace(running.clone(), Some(0)), 0);
    assert_eq!(grace(running, Some(-3)), 1);
    assert_eq!(grace(json!({"spec": {}}), Some(30)), 0);
    assert_eq!(
        grace(
            json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}),
            None
        ),
        0
    );
}

#[test]
fn services_get_an_address_unless_headless() {
    let spec = json!({"spec": {"ports": [{"port": 80}]}});
    let service = created("", "services", spec.clone());
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(service["spec"]["clusterIPs"], json!([address]));
    assert_eq!(
        service["spec"]["ports"][0],
        json!({"port": 80, "protocol": "TCP", "targetPort": 80})
    );
    assert_eq!(
        created("", "services", spec),
        service,
        "the address follows the name"
    );
    let headless = created("", "services", json!({"spec": {"clusterIP": "None"}}));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert!(refused("", "services", &headless, None).is_empty());
    assert_eq!(
        refused(
            "",
            "services",
            &created("", "services", json!({"spec": {}})),
            None
        ),
        ["spec.ports"]
    );
    let mut moved = service.clone();
    moved["spec"]["clusterIP"] = "10.96.1.1".into();
    assert_eq!(
        refused("", "services", &moved, Some(&service)),
        ["spec.clusterIPs[0]"]
    );
}

#[test]
fn an_update_without_an_address_keeps_it() {
    let old = created("", "services", json!({"spec": {"ports": [{"port": 80}]}}));
    let mut new = typed("", "services", json!({"spec": {"ports": [{"port": 81}]}}));
    with_context("x", |ctx| {
        strategy_for("", "services").prepare_update(ctx, &mut new, &old);
    });
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(new["spec"]["ports"][0]["targetPort"], 81);
}

#[test]
fn string_data_becomes_data_and_frozen_objects_stay() {
    let secret = created(
        "",
        "secrets",
        json!({"stringData": {"a": "b"}, "immutable": true}),
    );
    assert_eq!(
        secret,
        json!({"metadata": {}, "immutable": true, "type": "Opaque", "data": {"a": "Yg=="}})
    );
    let mut changed = secret.clone();
    changed["data"]["a"] = "Yw==".into();
    assert_eq!(refused("", "secrets", &changed, Some(&secret)), ["data"]);
    let bad = json!({"type": "Opaque", "data": {"a": "?", "b/c": "Yg=="}});
    assert_eq!(refused("", "secrets", &bad, None), ["data[b/c]", "data[a]"]);
    let tls = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
    assert_eq!(refused("", "secrets", &tls, None), ["data[tls.key]"]);
}

#[test]
fn secrets_hold_what_their_type_promises() {
    let secret = |kind: &str, data: Value| {
        let object = json!({"type": kind, "data": data});
        refused("", "secrets", &typed("", "secrets", object), None)
    };
    let config = "kubernetes.io/dockerconfigjson";
    assert!(secret(config, json!({".dockerconfigjson": "e30="})).is_empty());
    assert_eq!(
        secret(config, json!({".dockerconfigjson": "eA=="})),
        ["data[.dockerconfigjson]"]
    );
    assert!(secret("kubernetes.io/basic-auth", json!({"password": "eA=="})).is_empty());
    assert_eq!(secret("kubernetes.io/basic-auth", json!({})).len(), 2);
}

#[test]
fn a_namespace_is_held_by_its_own_finalizers() {
    let namespaces = strategy_for("", "namespaces");
    let namespace = created("", "namespaces", json!({"metadata": {"name": "x"}}));
    assert!(namespaces.holds(&namespace));
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "x"
    );
    let mut update = namespace.clone();
    update["spec"]["finalizers"] = json!([]);
    with_context("x", |ctx| {
        namespaces.prepare_update(ctx, &mut update, &namespace);
    });
    assert!(
        namespaces.holds(&update),
        "only the finalize subresource empties them"
    );
    update["spec"]["finalizers"] = json!([]);
    with_context("x", |ctx| {
        namespaces.prepare_update(&within(ctx, "finalize"), &mut update, &namespace);
    });
    assert!(!namespaces.holds(&update));
}

#[test]
fn events_are_one_object_in_two_forms() {
    let events = strategy_for("events.k8s.io", "events");
    let view = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n",
        "regarding": {"name": "p"}, "reportingController": "c", "deprecatedCount": 2, "type": "Normal"});
    let core = events.stored_form(view.clone());
    assert_eq!(core["message"], "n");
    assert_eq!(core["involvedObject"]["name"], "p");
    assert_eq!(core["count"], 2);
    let mut back = events.view_form(core);
    back["apiVersion"] = "events.k8s.io/v1".into();
    assert_eq!(back, view);
}

#[test]
fn workloads_complete_their_templates_and_keep_their_selectors() {
    let spec = json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    let deployment = created("apps", "deployments", spec);
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(
        deployment["spec"]["template"]["spec"]["restartPolicy"],
        "Always"
    );
    let mut moved = deployment.clone();
    moved["spec"]["selector"] = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    assert_eq!(
        refused("apps", "deployments", &moved, Some(&deployment)),
        ["spec.selector"]
    );
    let job = created(
        "batch",
        "jobs",
        json!({"metadata": {"uid": "u", "name": "j"},
        "spec": {"template": {"spec": {}}}}),
    );
    let label = "batch.kubernetes.io/controller-uid";
    assert_eq!(job["spec"]["selector"]["matchLabels"][label], "u");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"][label], "u");
}

#[test]
fn deleting_a_definition_waits_for_its_objects() {
    let definitions = strategy_for("apiextensions.k8s.io", "customresourcedefinitions");
    let mut definition = json!({"metadata": {"name": "x"}});
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    definitions.mark_deleting(&mut definition, now);
    assert_eq!(meta::finalizers(&definition), [definition::CLEANUP]);
    let once = definition.clone();
    definitions.mark_deleting(&mut definition, now);
    assert_eq!(definition, once);
    meta::remove_finalizer(&mut definition, definition::CLEANUP);
    definitions.mark_deleting(&mut definition, now);
    assert!(
        meta::finalizers(&definition).is_empty(),
        "the finalizer comes only once"
    );
}
