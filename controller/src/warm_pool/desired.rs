//! A member of a pool, as it is created. Pure.

use std::net::IpAddr;

use agent_sandbox_crds::{annotations, hash, labels, names};
use serde_json::{Value, json};

use crate::api::{POOLS, SANDBOXES};
use crate::blueprint::secure_pod_spec;
use crate::names as own;
use crate::objects::{PoolRow, TemplateRow};
use crate::template::plan::required_policy;

/// Characters of generated names: no vowels, nothing that reads as something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the random part.
const SUFFIX: usize = 5;
/// The longest part taken from the pool's name, separator included.
const LONGEST_PREFIX: usize = 58;

/// A fresh name for a member. It is chosen here rather than by the API server, so that after a lost
/// answer the member can be looked up instead of made a second time.
pub fn member_name(pool: &str) -> String {
    let mut name = names::pool_member_prefix(pool);
    if name.len() > LONGEST_PREFIX {
        // Object names are ASCII.
        name.truncate(LONGEST_PREFIX);
    }
    for _ in 0..SUFFIX {
        let byte = fastrand::choice(ALPHABET).copied().unwrap_or(b'x');
        name.push(char::from(byte));
    }
    name
}

/// The member called `name`.
pub fn member(
    pool: &PoolRow,
    template: &TemplateRow,
    name: &str,
    eviction: bool,
    resolvers: &[IpAddr],
) -> Value {
    let blueprint = &template.spec;
    let marks = json!({
        labels::WARM_POOL_SANDBOX: hash::name_hash(&pool.head.key.name),
        labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
        labels::SANDBOX_TEMPLATE_HASH: &*template.blueprint_hash,
        labels::SANDBOX_POD_TEMPLATE_HASH: &*template.pod_template_hash,
    });
    let with = |base: Value, more: &[(&str, &str)]| {
        let mut set = base;
        if let Some(members) = set.as_object_mut() {
            for (key, value) in more {
                members.insert((*key).to_owned(), json!(value));
            }
        }
        set
    };
    let mut pod_labels = json!(blueprint.pod_template.labels());
    if let (Some(all), Some(ours)) = (pod_labels.as_object_mut(), marks.as_object()) {
        all.extend(ours.clone());
    }
    let mut pod_annotations = blueprint.pod_template.annotations().clone();
    if eviction {
        pod_annotations
            .entry(annotations::SAFE_TO_EVICT.to_owned())
            .or_insert_with(|| "true".to_owned());
    }
    let mut pod_metadata = json!({"labels": pod_labels});
    if let (false, Some(members)) = (pod_annotations.is_empty(), pod_metadata.as_object_mut()) {
        members.insert("annotations".to_owned(), json!(pod_annotations));
    }
    let mut spec = json!({"podTemplate": {
        "spec": secure_pod_spec(blueprint, resolvers),
        "metadata": pod_metadata,
    }});
    if let Some(members) = spec.as_object_mut() {
        if let Some(volumes) = &blueprint.volume_claim_templates {
            members.insert("volumeClaimTemplates".to_owned(), json!(volumes));
        }
        if let Some(service) = blueprint.service {
            members.insert("service".to_owned(), json!(service));
        }
    }
    let mut record = json!({annotations::SANDBOX_TEMPLATE_REF: &*template.head.key.name});
    if let (Some(policy), Some(members)) = (required_policy(template), record.as_object_mut()) {
        members.insert(own::REQUIRED_POLICY.to_owned(), json!(policy));
    }
    json!({
        "apiVersion": SANDBOXES.api_version(),
        "kind": SANDBOXES.kind,
        "metadata": {
            "name": name,
            "generateName": names::pool_member_prefix(&pool.head.key.name),
            "namespace": &*pool.head.key.namespace,
            "labels": with(marks, &[
                (labels::LAUNCH_TYPE, labels::LAUNCH_TYPE_WARM),
                (labels::CREATED_BY, labels::CREATED_BY_CONTROLLER),
            ]),
            "annotations": record,
            "ownerReferences": [{
                "apiVersion": POOLS.api_version(),
                "kind": POOLS.kind,
                "name": &*pool.head.key.name,
                "uid": pool.head.uid.to_string(),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    })
}
