//! Objects and patches of claims.

use agent_sandbox_crds::{annotations, labels};
use serde_json::json;

use super::{CLAIM, bound, claim, claim_with, sandbox, template};
use crate::claim::desired;
use crate::fixtures::{owner, uid};
use crate::names;

#[test]
fn a_binding_is_conditional_and_complete() {
    let object = claim_with(
        json!({"labels": {labels::CREATED_BY: "go-client"}, "annotations": {annotations::TRACE_CONTEXT: "{}"}}),
        json!({}),
        json!({}),
    );
    let template =
        template(json!({"podTemplate": {"spec": {}, "metadata": {"labels": {"app": "x"}}}}));
    let member = sandbox(
        json!({
            "resourceVersion": "55",
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(40)),
            "labels": {labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_REF_HASH: "kept"},
        }),
        json!({"podTemplate": {"spec": {}, "metadata": {
            "labels": {"app": "x", labels::WARM_POOL_SANDBOX: "p", labels::SANDBOX_TEMPLATE_HASH: "h"},
            "annotations": {annotations::SAFE_TO_EVICT: "true"},
        }}}),
        Some(("True", "DependenciesReady")),
    );
    assert_eq!(
        desired::binding(&object, &member, Some(&template)).unwrap(),
        json!({
            "metadata": {
                "uid": uid(20),
                "resourceVersion": "55",
                "ownerReferences": [{
                    "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim",
                    "name": "c", "uid": uid(CLAIM), "controller": true, "blockOwnerDeletion": true,
                }],
                "managedFields": [{}],
                "annotations": {names::BINDING_GENERATION: "8", annotations::TRACE_CONTEXT: "{}"},
                "labels": {
                    labels::WARM_POOL_SANDBOX: null,
                    labels::SANDBOX_TEMPLATE_HASH: null,
                    labels::SANDBOX_POD_TEMPLATE_HASH: null,
                    labels::LAUNCH_TYPE: "warm",
                    labels::CLAIM_UID: uid(CLAIM),
                    labels::CREATED_BY: "go-client",
                    labels::SANDBOX_TEMPLATE_REF_HASH: "kept",
                },
            },
            "spec": {"podTemplate": {"metadata": {
                "labels": {
                    labels::WARM_POOL_SANDBOX: null,
                    labels::SANDBOX_TEMPLATE_HASH: null,
                    labels::CLAIM_UID: uid(CLAIM),
                    labels::CREATED_BY: "go-client",
                    labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
                },
                "annotations": {annotations::SAFE_TO_EVICT: null},
            }}},
        })
    );
}

#[test]
fn a_binding_without_a_creator_removes_the_pools() {
    let patch = desired::binding(&claim(json!({})), &bound(), None).unwrap();
    let labels = patch["metadata"]["labels"].as_object().unwrap();
    assert!(labels.contains_key(labels::CREATED_BY) && labels[labels::CREATED_BY].is_null());
}

#[test]
fn a_bound_sandbox_in_line_needs_no_update() {
    let object = claim(json!({"additionalPodMetadata": {"annotations": {"a": "1"}}}));
    let template = template(json!({}));
    let in_line = sandbox(
        json!({"labels": {labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash, labels::LAUNCH_TYPE: "cold"}}),
        json!({"podTemplate": {"metadata": {
            "labels": {labels::CLAIM_UID: uid(CLAIM), labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash},
            "annotations": {"a": "1"},
        }}}),
        None,
    );
    assert_eq!(
        desired::metadata_update(&object, &in_line, Some(&template)),
        Ok(None)
    );
    let edited = claim(json!({"additionalPodMetadata": {"annotations": {"b": "2"}}}));
    assert_eq!(
        desired::metadata_update(&edited, &in_line, Some(&template))
            .unwrap()
            .unwrap(),
        json!({
            "metadata": {"uid": uid(20)},
            "spec": {"podTemplate": {"metadata": {"annotations": {"a": null, "b": "2"}}}},
        })
    );
    // Without its template, what the sandbox has stays, and additions still arrive.
    assert_eq!(
        desired::metadata_update(&edited, &in_line, None)
            .unwrap()
            .unwrap()["spec"]["podTemplate"]["metadata"],
        json!({"annotations": {"b": "2"}})
    );
}

#[test]
fn a_missing_launch_type_is_filled_in_and_a_known_one_kept() {
    let launch = |name: &str, labels: serde_json::Value| {
        let row = sandbox(json!({"name": name, "labels": labels}), json!({}), None);
        let patch = desired::metadata_update(&claim(json!({})), &row, None)
            .unwrap()
            .unwrap();
        patch["metadata"]["labels"][labels::LAUNCH_TYPE].clone()
    };
    assert_eq!(launch("c", json!({})), "cold");
    assert_eq!(launch("p-1", json!({})), "warm");
    assert!(launch("c", json!({labels::LAUNCH_TYPE: "warm"})).is_null());
}

#[test]
fn a_cold_sandbox_carries_the_whole_blueprint() {
    let object = claim_with(
        json!({"labels": {labels::CREATED_BY: "python-client"}, "annotations": {annotations::TRACE_CONTEXT: "{}"}}),
        json!({"env": [{"name": "A", "value": "1"}]}),
        json!({}),
    );
    let template = template(json!({
        "podTemplate": {"spec": {"containers": [{"name": "main"}], "future": 1}, "metadata": {"labels": {"app": "x"}}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"future": 2}}],
        "service": false,
        "envVarsInjectionPolicy": "Allowed",
        "networkPolicyManagement": "Unmanaged",
    }));
    let made = desired::cold_sandbox(&object, &template, &[]).unwrap();
    assert_eq!(made["metadata"]["name"], "c");
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], uid(CLAIM));
    assert_eq!(
        made["metadata"]["annotations"],
        json!({annotations::SANDBOX_TEMPLATE_REF: "t", annotations::TRACE_CONTEXT: "{}"})
    );
    let own = &made["metadata"]["labels"];
    assert_eq!(own[labels::LAUNCH_TYPE], "cold");
    assert_eq!(own[labels::CREATED_BY], "python-client");
    assert_eq!(
        made["spec"],
        json!({
            "podTemplate": {
                "spec": {
                    "containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}],
                    "future": 1,
                    "automountServiceAccountToken": false,
                },
                "metadata": {"labels": {
                    "app": "x", labels::CLAIM_UID: uid(CLAIM), labels::CREATED_BY: "python-client",
                    labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
                }},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"future": 2}}],
            "service": false,
        })
    );
}
