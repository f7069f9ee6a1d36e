//! What claims may ask for.

use std::sync::Arc;

use agent_sandbox_crds::template::EnvVarsInjectionPolicy;
use agent_sandbox_crds::{annotations, labels};
use serde_json::{Map, Value, json};

use super::{claim, claim_with, template};
use crate::claim::rules::{env, metadata};
use crate::fixtures::uid;
use crate::objects::{EnvEntry, Labels, PodBlueprint};

fn check(kind: &str, key: &str, value: &str) -> Result<(), String> {
    let domains = ["sandbox.users.io".to_owned(), "corp.example".to_owned()];
    let object = claim(json!({"additionalPodMetadata": {kind: {key: value}}}));
    metadata::check(&object, &domains).map_err(|rejection| {
        assert_eq!(rejection.reason, "InvalidMetadata");
        assert!(rejection.message.contains(key), "{}", rejection.message);
        rejection.message
    })
}

#[test]
fn labels_need_an_allowed_domain_and_a_valid_value() {
    for (key, value) in [
        ("sandbox.users.io/team", "a"),
        ("deep.sandbox.users.io/team", "a"),
        ("Corp.Example/x", ""),
        ("corp.example/x_y.z", "A-1"),
    ] {
        assert_eq!(check("labels", key, value), Ok(()), "{key}");
    }
    let long = "x".repeat(64);
    for (key, value) in [
        ("team", "a"),
        ("app", "sandbox-router"),
        ("App", "Sandbox-Router"),
        ("other.example/x", "a"),
        ("notcorp.example.org/x", "a"),
        ("xcorp.example/x", "a"),
        ("agents.x-k8s.io/claim-uid", "a"),
        ("corp.example/", "a"),
        ("corp.example/-x", "a"),
        ("-corp.example/x", "a"),
        ("corp.example/x", "not valid"),
        ("corp.example/x", long.as_str()),
    ] {
        assert!(check("labels", key, value).is_err(), "{key}={value}");
    }
}

#[test]
fn annotations_are_free_except_for_reserved_domains() {
    for key in [
        "note",
        "podsnapshot.gke.io/ps-name",
        "example.com/x",
        annotations::SAFE_TO_EVICT,
        "notkubernetes.io/x",
    ] {
        assert_eq!(
            check("annotations", key, "any value at all"),
            Ok(()),
            "{key}"
        );
    }
    for key in [
        "kubernetes.io/x",
        "sub.kubernetes.io/x",
        "K8S.io/x",
        "agents.x-k8s.io/pod-name",
        "extensions.agents.x-k8s.io/x",
        "bad key",
    ] {
        assert!(check("annotations", key, "v").is_err(), "{key}");
    }
}

fn blueprint(labels: &[(&str, &str)], notes: &[(&str, &str)]) -> PodBlueprint {
    let set = |pairs: &[(&str, &str)]| -> Arc<Labels> {
        Arc::new(
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        )
    };
    PodBlueprint {
        spec: "{}".into(),
        labels: set(labels),
        annotations: set(notes),
    }
}

#[test]
fn metadata_is_the_templates_the_operators_and_the_claims() {
    let object = claim_with(
        json!({"labels": {labels::CREATED_BY: "python-client"}}),
        json!({"additionalPodMetadata": {"labels": {"sandbox.users.io/a": "1"}, "annotations": {"b": "2"}}}),
        json!({}),
    );
    let template = template(json!({"podTemplate": {"spec": {}, "metadata": {
        "labels": {"app": "x"}, "annotations": {"c": "3"},
    }}}));
    let pool = blueprint(
        &[(labels::WARM_POOL_SANDBOX, "p")],
        &[(annotations::SAFE_TO_EVICT, "true")],
    );
    let merged = metadata::merged(&object, Some(&template), &pool).unwrap();
    assert_eq!(
        json!(merged.labels),
        json!({
            "app": "x", "sandbox.users.io/a": "1", labels::CLAIM_UID: uid(1),
            labels::CREATED_BY: "python-client", labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
        })
    );
    assert_eq!(json!(merged.annotations), json!({"b": "2", "c": "3"}));
}

#[test]
fn a_contradiction_of_the_template_is_the_users_mistake() {
    let object = claim(json!({"additionalPodMetadata": {"annotations": {"c": "9"}}}));
    let differs =
        template(json!({"podTemplate": {"spec": {}, "metadata": {"annotations": {"c": "3"}}}}));
    let rejection = metadata::merged(&object, Some(&differs), &blueprint(&[], &[])).unwrap_err();
    assert_eq!(rejection.reason, "InvalidMetadata");
    assert!(rejection.message.contains("\"9\"") && rejection.message.contains("\"3\""));
    let agrees =
        template(json!({"podTemplate": {"spec": {}, "metadata": {"annotations": {"c": "9"}}}}));
    assert!(metadata::merged(&object, Some(&agrees), &blueprint(&[], &[])).is_ok());
}

#[test]
fn safe_to_evict_survives_adoption_only_when_the_claim_says_so_or_it_protects() {
    let evict = |claimed: Option<&str>, from_template: Option<&str>, reachable: bool| {
        let notes = claimed.map_or(
            json!({}),
            |value| json!({annotations::SAFE_TO_EVICT: value}),
        );
        let object = claim(json!({"additionalPodMetadata": {"annotations": notes}}));
        let notes = from_template.map_or(
            json!({}),
            |value| json!({annotations::SAFE_TO_EVICT: value}),
        );
        let template =
            template(json!({"podTemplate": {"spec": {}, "metadata": {"annotations": notes}}}));
        let in_pool = from_template.unwrap_or("true");
        let pool = blueprint(&[], &[(annotations::SAFE_TO_EVICT, in_pool)]);
        let merged = metadata::merged(&object, reachable.then_some(&template), &pool).unwrap();
        merged.annotations.get(annotations::SAFE_TO_EVICT).cloned()
    };
    for reachable in [true, false] {
        assert_eq!(evict(None, None, reachable), None, "the pool's default");
        assert_eq!(
            evict(None, Some("false"), reachable).as_deref(),
            Some("false")
        );
        assert_eq!(evict(None, Some("true"), reachable), None);
        assert_eq!(
            evict(Some("true"), None, reachable).as_deref(),
            Some("true")
        );
    }
}

fn pod(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn entry(name: &str, value: &str, container: Option<&str>) -> EnvEntry {
    EnvEntry {
        name: name.to_owned(),
        value: value.to_owned(),
        container_name: container.map(ToOwned::to_owned),
    }
}

fn inject(
    base: Value,
    entries: &[EnvEntry],
    policy: &EnvVarsInjectionPolicy,
) -> Result<Value, String> {
    let mut spec = pod(base);
    env::inject(&mut spec, entries, policy)
        .map(|()| Value::Object(spec))
        .map_err(|rejection| {
            assert_eq!(rejection.reason, "EnvVarsInjectionRejected");
            rejection.message
        })
}

#[test]
fn env_goes_to_the_container_it_names_or_the_first() {
    let base = json!({
        "initContainers": [{"name": "init"}],
        "containers": [{"name": "a", "env": [{"name": "X", "valueFrom": {"fieldRef": {}}}]}, {"name": "b"}],
    });
    let entries = [
        entry("D", "default", None),
        entry("N", "named", Some("a")),
        entry("B", "b", Some("b")),
        entry("I", "i", Some("init")),
        entry("E", "", Some("")),
    ];
    let spec = inject(base, &entries, &EnvVarsInjectionPolicy::Allowed).unwrap();
    assert_eq!(
        spec["containers"][0]["env"],
        json!([
            {"name": "X", "valueFrom": {"fieldRef": {}}}, {"name": "N", "value": "named"},
            {"name": "D", "value": "default"}, {"name": "E", "value": ""},
        ])
    );
    assert_eq!(
        spec["containers"][1]["env"],
        json!([{"name": "B", "value": "b"}])
    );
    assert_eq!(
        spec["initContainers"][0]["env"],
        json!([{"name": "I", "value": "i"}])
    );
}

#[test]
fn an_init_container_with_sources_takes_no_additions_and_bothers_no_other() {
    use EnvVarsInjectionPolicy::{Allowed, Overrides};
    let pod = json!({
        "initContainers": [{"name": "init", "envFrom": [{"configMapRef": {"name": "m"}}]}],
        "containers": [{"name": "main"}],
    });
    let into_init = [entry("Y", "1", Some("init"))];
    let refused = inject(pod.clone(), &into_init, &Allowed).unwrap_err();
    assert!(
        refused.contains("envFrom") && refused.contains("\"init\""),
        "{refused}"
    );
    let injected = json!([{"name": "Y", "value": "1"}]);
    let replaced = inject(pod.clone(), &into_init, &Overrides).unwrap();
    assert_eq!(replaced["initContainers"][0]["env"], injected);
    let beside = inject(pod, &[entry("Y", "1", None)], &Allowed).unwrap();
    assert_eq!(beside["containers"][0]["env"], injected);
    assert!(beside["initContainers"][0].get("env").is_none());
}

#[test]
fn env_policies_hold() {
    use EnvVarsInjectionPolicy::{Allowed, Disallowed, Overrides};
    let base = json!({"containers": [{"name": "a", "env": [{"name": "X", "valueFrom": {"fieldRef": {}}}]}]});
    let sourced = json!({"containers": [{"name": "a", "envFrom": [{"secretRef": {"name": "s"}}]}, {"name": "b"}]});
    let one = |name: &str| [entry(name, "1", None)];
    assert!(inject(base.clone(), &[], &Disallowed).is_ok());
    assert!(
        inject(base.clone(), &one("Y"), &Disallowed)
            .unwrap_err()
            .contains("Disallowed")
    );
    assert!(
        inject(base.clone(), &one("X"), &Allowed)
            .unwrap_err()
            .contains("already defined")
    );
    let replaced = inject(base.clone(), &one("X"), &Overrides).unwrap();
    assert_eq!(
        replaced["containers"][0]["env"],
        json!([{"name": "X", "value": "1"}])
    );
    assert!(
        inject(sourced.clone(), &one("Y"), &Allowed)
            .unwrap_err()
            .contains("envFrom")
    );
    assert!(inject(sourced.clone(), &one("Y"), &Overrides).is_ok());
    assert!(inject(sourced.clone(), &[entry("Y", "1", Some("b"))], &Allowed).is_ok());
    assert_eq!(inject(sourced.clone(), &[], &Allowed).unwrap(), sourced);
    let twice = [entry("Y", "1", None), entry("Y", "2", None)];
    assert!(inject(base.clone(), &twice, &Allowed).is_err());
    assert!(
        inject(base.clone(), &[entry("Y", "1", Some("nope"))], &Overrides)
            .unwrap_err()
            .contains("\"nope\"")
    );
    for bad in ["", "A=B", "A\nB", "ä"] {
        assert!(
            inject(base.clone(), &one(bad), &Overrides).is_err(),
            "{bad:?}"
        );
    }
    assert!(
        inject(json!({}), &one("Y"), &Allowed)
            .unwrap_err()
            .contains("no container")
    );
}
