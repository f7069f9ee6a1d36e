//! Members as they are created.

use agent_sandbox_crds::{annotations, labels};
use serde_json::json;

use super::{pool, template};
use crate::fixtures::uid;
use crate::names;
use crate::warm_pool::desired::{member, member_name};

#[test]
fn a_member_carries_the_documented_marks() {
    let template = template(json!({
        "podTemplate": {"spec": {"containers": [], "future": 1}, "metadata": {"labels": {"app": "x"}}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}],
        "service": true,
        "networkPolicyManagement": "Unmanaged",
    }));
    let made = member(&pool(json!({})), &template, "p-abcde", true, &[]);
    let marks = json!({
        labels::WARM_POOL_SANDBOX: agent_sandbox_crds::hash::name_hash("p"),
        labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
        labels::SANDBOX_TEMPLATE_HASH: &*template.blueprint_hash,
        labels::SANDBOX_POD_TEMPLATE_HASH: &*template.pod_template_hash,
    });
    let with = |more: &[(&str, &str)]| {
        let mut set = marks.clone();
        for (key, value) in more {
            set[key] = json!(value);
        }
        set
    };
    let own = [
        (labels::LAUNCH_TYPE, "warm"),
        (labels::CREATED_BY, "controller"),
    ];
    assert_eq!(made["metadata"]["labels"], with(&own));
    assert_eq!(
        made["metadata"]["annotations"],
        json!({annotations::SANDBOX_TEMPLATE_REF: "t"})
    );
    assert_eq!(made["metadata"]["generateName"], "p-");
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], uid(40));
    assert_eq!(
        made["spec"],
        json!({
            "podTemplate": {
                "spec": {"containers": [], "future": 1, "automountServiceAccountToken": false},
                "metadata": {
                    "labels": with(&[("app", "x")]),
                    "annotations": {annotations::SAFE_TO_EVICT: "true"},
                },
            },
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}],
            "service": true,
        })
    );
}

#[test]
fn a_member_of_a_managed_template_records_the_policy_it_needs() {
    let template = template(json!({"podTemplate": {"spec": {}}}));
    let made = member(&pool(json!({})), &template, "p-abcde", true, &[]);
    assert_eq!(
        made["metadata"]["annotations"],
        json!({annotations::SANDBOX_TEMPLATE_REF: "t", names::REQUIRED_POLICY: "t-network-policy"})
    );
}

#[test]
fn eviction_is_allowed_by_default_and_the_template_has_the_last_word() {
    let evict = |eviction: bool, notes: serde_json::Value| {
        let template =
            template(json!({"podTemplate": {"spec": {}, "metadata": {"annotations": notes}}}));
        let made = member(&pool(json!({})), &template, "p-a", eviction, &[]);
        made["spec"]["podTemplate"]["metadata"]["annotations"][annotations::SAFE_TO_EVICT].clone()
    };
    assert_eq!(evict(true, json!({})), "true");
    assert!(evict(false, json!({})).is_null());
    assert_eq!(
        evict(true, json!({annotations::SAFE_TO_EVICT: "false"})),
        "false"
    );
}

#[test]
fn names_are_fresh_valid_and_short_enough() {
    let (one, two) = (member_name("pool"), member_name("pool"));
    assert_ne!(one, two);
    assert!(one.starts_with("pool-") && one.len() == 10);
    assert_eq!(member_name(&"x".repeat(200)).len(), 63);
}
