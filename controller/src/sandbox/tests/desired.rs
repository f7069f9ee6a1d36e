//! Children and patches.

use std::sync::Arc;

use agent_sandbox_crds::{annotations, labels};
use serde_json::{Value, json};

use super::{own_pod, sandbox};
use crate::error::Fault;
use crate::fixtures::{owner, row, uid};
use crate::names;
use crate::objects::{SandboxRow, ServiceRow};
use crate::sandbox::desired;

fn owned(kind: &str, labels: Value, template: Value) -> Arc<SandboxRow> {
    row(json!({
        "metadata": {"name": "my-sandbox", "ownerReferences": owner(kind, "o", &uid(8)), "labels": labels},
        "spec": {"podTemplate": {"metadata": template, "spec": {"containers": []}}},
    }))
}

#[test]
fn a_pod_is_built_from_the_raw_template() {
    let row: Arc<SandboxRow> = row(json!({
        "metadata": {"name": "my-sandbox", "labels": {"agents.x-k8s.io/created-by": "curl", "team": "x"}},
        "spec": {
            "podTemplate": {
                "metadata": {
                    "labels": {"b": "2", "a": "1", "agents.x-k8s.io/claim-uid": "forged"},
                    "annotations": {"note": "n", "opentelemetry.io/trace-context": "{}"},
                },
                "spec": {"containers": [{"name": "m"}], "future": {"x": 1}, "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}, {"metadata": {"name": "more"}, "spec": {}}],
        },
    }));
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "my-sandbox",
            "namespace": "n",
            "labels": {
                "a": "1", "b": "2",
                labels::SANDBOX_NAME_HASH: "374de8f5", names::SANDBOX_UID: uid(1), labels::CREATED_BY: "unknown",
            },
            "ownerReferences": [{
                "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": "my-sandbox",
                "uid": uid(1), "controller": true, "blockOwnerDeletion": true,
            }],
            "annotations": {
                annotations::PROPAGATED_ANNOTATIONS: "note",
                annotations::PROPAGATED_LABELS: "a,b",
                names::POD_SPEC: crate::fingerprint::of(&row.pod.spec).unwrap(),
                "note": "n",
            },
        },
        "spec": {
            "containers": [{"name": "m"}],
            "future": {"x": 1},
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-my-sandbox"}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "more", "persistentVolumeClaim": {"claimName": "more-my-sandbox"}},
            ],
        },
    });
    assert_eq!(desired::pod(&row, None).unwrap(), expected);
}

#[test]
fn system_labels_follow_the_owner() {
    let set = json!({
        labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_REF_HASH: "t",
        labels::CLAIM_UID: "c", labels::CREATED_BY: "go-client",
    });
    let reached = |kind: &str| {
        let pod = desired::pod(&owned(kind, set.clone(), json!({})), None).unwrap();
        let labels = pod["metadata"]["labels"].as_object().unwrap().clone();
        let mut names: Vec<String> = labels
            .keys()
            .filter_map(|key| key.strip_prefix(labels::CORE_PREFIX).map(ToOwned::to_owned))
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        reached("SandboxWarmPool"),
        [
            "created-by",
            "sandbox-name-hash",
            "sandbox-template-ref-hash",
            "sandbox-uid",
            "warm-pool-sandbox"
        ]
    );
    assert_eq!(
        reached("SandboxClaim"),
        [
            "claim-uid",
            "created-by",
            "sandbox-name-hash",
            "sandbox-template-ref-hash",
            "sandbox-uid"
        ]
    );
    assert_eq!(
        reached("Deployment"),
        ["created-by", "sandbox-name-hash", "sandbox-uid"]
    );
}

#[test]
fn the_labels_of_pool_and_template_stand_on_one_pod() {
    let set = json!({labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_REF_HASH: "t"});
    let member = owned("SandboxWarmPool", set.clone(), json!({}));
    let made = desired::pod(&member, None).unwrap();
    let changed = changes(&member, json!({"name": "my-sandbox"}), "labels");
    for on_pod in [&made["metadata"]["labels"], &changed] {
        assert_eq!(on_pod[labels::WARM_POOL_SANDBOX], "p");
        assert_eq!(on_pod[labels::SANDBOX_TEMPLATE_REF_HASH], "t");
    }
}

/// Every key that is reserved, by prefix or by name, wherever a pod template can have it.
#[test]
fn no_reserved_key_of_a_template_reaches_a_pod_it_is_made_for_or_brought_in_line_with() {
    let reserved = [
        labels::SANDBOX_NAME_HASH,
        labels::WARM_POOL_SANDBOX,
        labels::SANDBOX_TEMPLATE_REF_HASH,
        labels::SANDBOX_TEMPLATE_HASH,
        labels::SANDBOX_POD_TEMPLATE_HASH,
        labels::LAUNCH_TYPE,
        labels::CREATED_BY,
        labels::CLAIM_UID,
        labels::ADOPTABLE,
        names::SANDBOX_UID,
        names::REQUIRED_POLICY,
        annotations::PROPAGATED_LABELS,
        "agents.x-k8s.io/of-the-future",
        "extensions.agents.x-k8s.io/of-the-future",
    ];
    let mut forged = json!({"mine": "forged"});
    for key in reserved {
        forged[key] = json!("forged");
    }
    let mut notes = forged.clone();
    notes[annotations::TRACE_CONTEXT] = json!("forged");
    let template = json!({"labels": forged, "annotations": notes});
    let row = owned("Deployment", json!({}), template);
    let made = desired::pod(&row, None).unwrap();
    for part in ["labels", "annotations"] {
        let changed = changes(&row, json!({"name": "my-sandbox"}), part);
        for set in [&made["metadata"][part], &changed] {
            let set = set.as_object().unwrap();
            let through = set.iter().filter(|(_, value)| *value == "forged");
            let through: Vec<&String> = through.map(|(key, _)| key).collect();
            assert_eq!(through, ["mine"], "{part}");
        }
    }
}

#[test]
fn a_pod_that_is_as_it_should_be_needs_no_patch() {
    let template = json!({"labels": {"a": "1"}, "annotations": {"n": "m"}});
    let row = owned("SandboxClaim", json!({labels::CLAIM_UID: "c"}), template);
    let pod = desired::pod(&row, None).unwrap();
    let pod = own_pod(pod["metadata"].clone(), json!({}));
    assert_eq!(desired::pod_patch(&row, &pod, false), None);
}

#[test]
fn a_patch_says_only_what_differs() {
    let row = owned(
        "SandboxClaim",
        json!({labels::CLAIM_UID: "c", labels::SANDBOX_TEMPLATE_REF_HASH: "t"}),
        json!({"labels": {"kept": "1", "changed": "new"}}),
    );
    let pod = own_pod(
        json!({
            "labels": {
                labels::SANDBOX_NAME_HASH: "374de8f5", labels::WARM_POOL_SANDBOX: "p",
                labels::SANDBOX_TEMPLATE_REF_HASH: "t", "kept": "1", "changed": "old",
                "dropped": "1", "foreign": "1",
            },
            "annotations": {
                annotations::PROPAGATED_LABELS: "changed,dropped,kept",
                annotations::PROPAGATED_ANNOTATIONS: annotations::SAFE_TO_EVICT,
                annotations::SAFE_TO_EVICT: "true",
            },
        }),
        json!({}),
    );
    assert_eq!(
        desired::pod_patch(&row, &pod, false).unwrap(),
        json!({"metadata": {
            "uid": uid(2),
            "managedFields": [{}],
            "labels": {
                "changed": "new", labels::CLAIM_UID: "c", names::SANDBOX_UID: uid(1),
                "dropped": null, labels::WARM_POOL_SANDBOX: null,
            },
            "annotations": {
                annotations::SAFE_TO_EVICT: null,
                annotations::PROPAGATED_LABELS: "changed,kept",
                annotations::PROPAGATED_ANNOTATIONS: "",
            },
        }})
    );
}

#[test]
fn reserved_keys_recorded_by_older_controllers_are_scrubbed() {
    let row = sandbox(json!({}));
    let pod = own_pod(
        json!({
            "labels": {labels::SANDBOX_NAME_HASH: desired::name_hash(&row), names::SANDBOX_UID: uid(1), "agents.x-k8s.io/old": "1"},
            "annotations": {
                annotations::PROPAGATED_LABELS: format!("agents.x-k8s.io/old,{}", labels::SANDBOX_NAME_HASH),
                annotations::PROPAGATED_ANNOTATIONS: annotations::PROPAGATED_LABELS,
            },
        }),
        json!({}),
    );
    assert_eq!(
        desired::pod_patch(&row, &pod, false).unwrap()["metadata"]["labels"],
        json!({"agents.x-k8s.io/old": null})
    );
}

#[test]
fn adoption_is_conditional_on_what_was_seen() {
    let row = sandbox(json!({}));
    let pod = own_pod(
        json!({"ownerReferences": [], "resourceVersion": "77"}),
        json!({}),
    );
    let patch = desired::pod_patch(&row, &pod, true).unwrap();
    assert_eq!(patch["metadata"]["resourceVersion"], "77");
    assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], uid(1));
    assert_eq!(
        patch["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        true
    );
    let tracking = patch["metadata"].get("managedFields");
    assert!(tracking.is_none(), "a user's record of fields must stay");
}

#[test]
fn the_adoptable_label_may_name_its_sandbox() {
    let row = sandbox(json!({}));
    for (value, adoptable) in [
        ("true", true),
        ("s", true),
        (&*uid(1), true),
        ("other", false),
        ("", false),
    ] {
        let pod = own_pod(json!({"labels": {labels::ADOPTABLE: value}}), json!({}));
        assert_eq!(
            desired::is_adoptable(&row, &pod.labels),
            adoptable,
            "{value}"
        );
    }
}

#[test]
fn service_ports_are_unique_sorted_and_named() {
    let ports = |pod: Value| {
        desired::service_ports(&sandbox(json!({"podTemplate": {"spec": pod}})))
            .iter()
            .map(|port| {
                format!(
                    "{} {}/{}",
                    port["name"].as_str().unwrap(),
                    port["port"],
                    port["protocol"].as_str().unwrap()
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(json!({"containers": [{"name": "a"}]})), [""; 0]);
    assert_eq!(
        ports(json!({
            "containers": [
                {"ports": [{"containerPort": 9090}, {"containerPort": 80, "name": "web"}]},
                {"ports": [{"containerPort": 81, "name": "web"}, {"containerPort": 80, "name": "again"}, {"containerPort": 0}]},
            ],
            "initContainers": [
                {"restartPolicy": "Always", "ports": [{"containerPort": 53, "protocol": "UDP"}]},
                {"ports": [{"containerPort": 1234}]},
            ],
        })),
        [
            "p-53-udp 53/UDP",
            "web 80/TCP",
            "p-81-tcp 81/TCP",
            "p-9090-tcp 9090/TCP"
        ]
    );
    assert_eq!(
        ports(
            json!({"containers": [{"ports": [{"containerPort": 1, "name": "p-80-tcp"}, {"containerPort": 80}]}]})
        ),
        ["p-80-tcp 1/TCP", "p-80-tcp-2 80/TCP"]
    );
}

fn service(object: Value) -> Arc<ServiceRow> {
    let mut base = json!({
        "metadata": {"name": "s", "uid": uid(5), "labels": {labels::SANDBOX_NAME_HASH: "HASH"}},
        "spec": {"clusterIP": "None", "selector": {labels::SANDBOX_NAME_HASH: "HASH", names::SANDBOX_UID: uid(1)}},
    });
    let hash = desired::name_hash(&sandbox(json!({})));
    base["metadata"]["labels"][labels::SANDBOX_NAME_HASH] = json!(hash);
    base["spec"]["selector"][labels::SANDBOX_NAME_HASH] = json!(hash);
    for part in ["metadata", "spec"] {
        for (key, value) in object[part].as_object().into_iter().flatten() {
            base[part][key] = value.clone();
        }
    }
    row(base)
}

#[test]
fn unmanaged_port_fields_are_no_drift_and_managed_ones_are() {
    let pod = json!({"spec": {"containers": [{"ports": [{"containerPort": 80, "name": "web"}]}]}});
    let row = sandbox(json!({"service": true, "podTemplate": pod}));
    let port = |more: Value| {
        let mut port = json!({"name": "web", "protocol": "TCP", "port": 80, "targetPort": 80});
        for (key, value) in more.as_object().unwrap() {
            port[key] = value.clone();
        }
        service(json!({"spec": {"ports": [port]}}))
    };
    assert_eq!(
        desired::service_patch(
            &row,
            &port(json!({"nodePort": 30000, "appProtocol": "http"})),
            false
        ),
        None
    );
    let drifted = desired::service_patch(&row, &port(json!({"targetPort": 81})), false).unwrap();
    assert_eq!(drifted["spec"]["ports"][0]["targetPort"], 80);
    // Without the sandbox asking for the Service, only label and selector are kept in order.
    let unset = sandbox(json!({}));
    assert_eq!(
        desired::service_patch(&unset, &port(json!({"targetPort": 81})), false),
        None
    );
    let stolen = service(json!({"spec": {"selector": {"app": "other"}}}));
    let repaired = desired::service_patch(&unset, &stolen, false).unwrap();
    assert_eq!(repaired["spec"]["selector"]["app"], Value::Null);
    assert_eq!(repaired["spec"]["selector"].as_object().unwrap().len(), 3);
}

#[test]
fn an_adopted_service_loses_its_own_selector_and_ports() {
    let row = sandbox(json!({"service": true}));
    let found = service(json!({"spec": {
        "selector": {"app": "x"},
        "ports": [{"name": "a", "protocol": "TCP", "port": 1, "targetPort": 1}],
    }}));
    let patch = desired::service_patch(&row, &found, true).unwrap();
    assert_eq!(patch["spec"]["ports"], json!([]));
    assert_eq!(patch["spec"]["selector"]["app"], Value::Null);
    assert_eq!(patch["metadata"]["ownerReferences"][0]["name"], "s");
}

#[test]
fn volume_claim_templates_are_checked_by_name() {
    let names = |list: Value| {
        desired::volume_claim_templates(&sandbox(json!({"volumeClaimTemplates": list})))
            .map(|list| list.len())
    };
    let entry = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
    assert_eq!(names(json!([entry("a"), entry("b-1")])), Ok(2));
    for bad in [
        json!([entry("")]),
        json!([entry("A")]),
        json!([entry("a-")]),
        json!([entry("a"), entry("a")]),
        json!([{"spec": {}}]),
    ] {
        let error = names(bad.clone()).unwrap_err();
        assert!(
            matches!(&error, Fault::Invalid(text) if text.starts_with("spec.volumeClaimTemplates[")),
            "{bad} {error}"
        );
    }
}

#[test]
fn a_volume_claim_keeps_the_templates_metadata() {
    let row = sandbox(json!({"volumeClaimTemplates": [
        {"metadata": {"name": "data", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"storageClassName": "fast", "future": 1}},
    ]}));
    let templates = desired::volume_claim_templates(&row).unwrap();
    let claim = desired::volume_claim(&row, &templates[0]);
    assert_eq!(claim["metadata"]["name"], "data-s");
    assert_eq!(claim["metadata"]["labels"]["a"], "b");
    assert_eq!(
        claim["metadata"]["labels"][labels::SANDBOX_NAME_HASH],
        desired::name_hash(&row)
    );
    assert_eq!(claim["metadata"]["annotations"]["c"], "d");
    assert_eq!(
        claim["spec"],
        json!({"storageClassName": "fast", "future": 1})
    );
}

/// What a patch of the pod's metadata sets, by key.
fn changes(row: &SandboxRow, metadata: Value, part: &str) -> Value {
    let pod = own_pod(metadata, json!({}));
    let patch = desired::pod_patch(row, &pod, false).unwrap();
    patch["metadata"][part].clone()
}

#[test]
fn ownership_is_written_also_where_the_labels_are_right_already() {
    let row = owned("Deployment", json!({}), json!({}));
    let made = desired::pod(&row, None).unwrap();
    let mut metadata = made["metadata"].clone();
    metadata["ownerReferences"] = json!([]);
    let pod = own_pod(metadata, json!({}));
    assert_eq!(desired::pod_patch(&row, &pod, false), None);
    let patch = desired::pod_patch(&row, &pod, true).unwrap();
    let members = patch["metadata"].as_object().unwrap();
    assert_eq!(members["ownerReferences"][0]["uid"], uid(1));
    assert!(!members.contains_key("labels") && !members.contains_key("annotations"));
}

#[test]
fn reserved_keys_of_the_template_do_not_reach_an_existing_pod_either() {
    let template = json!({
        "labels": {"a": "1", labels::CLAIM_UID: "forged", "extensions.agents.x-k8s.io/x": "1"},
        "annotations": {"b": "2", annotations::TRACE_CONTEXT: "{}", annotations::POD_NAME: "x"},
    });
    let row = owned("Deployment", json!({}), template);
    let bare = json!({"name": "my-sandbox"});
    let set = changes(&row, bare.clone(), "labels");
    let mut keys: Vec<&String> = set.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["a", labels::SANDBOX_NAME_HASH, names::SANDBOX_UID],);
    let set = changes(&row, bare, "annotations");
    assert_eq!(
        set,
        json!({
            "b": "2",
            annotations::PROPAGATED_LABELS: "a", annotations::PROPAGATED_ANNOTATIONS: "b",
        })
    );
}

#[test]
fn an_existing_pod_gets_and_loses_what_its_sandboxes_owner_says() {
    let all = json!({
        labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_REF_HASH: "t",
        labels::CLAIM_UID: "c",
    });
    let bare = || json!({"name": "my-sandbox"});
    let member = owned("SandboxWarmPool", all.clone(), json!({}));
    let set = changes(&member, bare(), "labels");
    assert_eq!(set[labels::WARM_POOL_SANDBOX], "p");
    assert_eq!(set[labels::SANDBOX_TEMPLATE_REF_HASH], "t");

    let wearing = json!({"name": "my-sandbox", "labels": {
        labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_REF_HASH: "t",
    }});
    // No extension owns it any more, or the sandbox lost the label.
    for (kind, set) in [("Deployment", all), ("SandboxClaim", json!({}))] {
        let lost = changes(&owned(kind, set, json!({})), wearing.clone(), "labels");
        for key in [labels::WARM_POOL_SANDBOX, labels::SANDBOX_TEMPLATE_REF_HASH] {
            assert_eq!(
                lost.as_object().unwrap().get(key),
                Some(&Value::Null),
                "{kind} {key}"
            );
        }
    }
}

#[test]
fn the_creator_on_a_pod_follows_the_sandbox() {
    let by = |creator: &str| {
        owned(
            "Deployment",
            json!({labels::CREATED_BY: creator}),
            json!({}),
        )
    };
    let worn =
        |creator: &str| json!({"name": "my-sandbox", "labels": {labels::CREATED_BY: creator}});
    for (creator, before, after) in [
        ("go-client", "python-client", json!("go-client")),
        ("curl", "go-client", json!("unknown")),
    ] {
        let set = changes(&by(creator), worn(before), "labels");
        assert_eq!(set[labels::CREATED_BY], after);
    }
    let set = changes(&by("go-client"), worn("go-client"), "labels");
    assert!(!set.as_object().unwrap().contains_key(labels::CREATED_BY));
    let gone = changes(
        &owned("Deployment", json!({}), json!({})),
        worn("go-client"),
        "labels",
    );
    assert_eq!(
        gone.as_object().unwrap().get(labels::CREATED_BY),
        Some(&Value::Null)
    );
}

#[test]
fn a_service_that_lost_its_label_gets_it_back() {
    let row = sandbox(json!({"service": true}));
    let mut bare = desired::service(&row);
    bare["metadata"]["labels"] = json!({"theirs": "1"});
    let found: Arc<ServiceRow> = crate::fixtures::row(bare);
    let patch = desired::service_patch(&row, &found, false).unwrap();
    assert_eq!(
        patch["metadata"]["labels"],
        json!({labels::SANDBOX_NAME_HASH: desired::name_hash(&row)})
    );
    assert_eq!(patch.get("spec"), None, "nothing else had drifted");
}

#[test]
fn a_pod_is_out_of_date_when_it_says_that_it_was_made_from_something_else() {
    let with_image = |image: &str| {
        sandbox(json!({"podTemplate": {"spec": {"containers": [{"name": "m", "image": image}]}}}))
    };
    let made = desired::pod(&with_image("a"), None).unwrap();
    let pod = own_pod(made["metadata"].clone(), json!({}));
    assert!(!desired::is_outdated(&with_image("a"), &pod));
    assert!(desired::is_outdated(&with_image("b"), &pod));
    let silent = own_pod(json!({}), json!({}));
    assert!(!desired::is_outdated(&with_image("b"), &silent));
}
