//! What binding, creating and updating a claim's sandbox look like on the wire. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_sandbox_crds::{VolumeClaimTemplate, annotations, hash, labels};
use serde_json::{Map, Value, json};

use super::rules::metadata::{self, PodMetadata};
use super::rules::{Rejection, env, volumes};
use crate::api::{CLAIMS, SANDBOXES};
use crate::blueprint::secure_pod_spec;
use crate::objects::{ClaimRow, Labels, PodBlueprint, SandboxRow, TemplateRow};
use crate::template::plan::required_policy;
use crate::{field_tracking, names};

/// The owner reference that makes a claim the controller of its sandbox.
pub fn owner_reference(claim: &ClaimRow) -> Value {
    json!({
        "apiVersion": CLAIMS.api_version(),
        "kind": CLAIMS.kind,
        "name": &*claim.head.key.name,
        "uid": claim.head.uid.to_string(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The patch that hands a member over to the claim that its pool's record gives it to. It applies only to
/// the very state that was seen (UID and revision): a binding by anybody who does not know the record is
/// found out, not overwritten.
///
/// # Errors
/// When the claim's metadata contradicts the template's.
pub fn binding(
    claim: &ClaimRow,
    member: &SandboxRow,
    template: Option<&TemplateRow>,
) -> Result<Value, Rejection> {
    let pod = metadata::merged(claim, template, &member.pod)?;
    let spec = pod_metadata_patch(&member.pod, &pod);
    let ref_hash = member
        .labels
        .get(labels::SANDBOX_TEMPLATE_REF_HASH)
        .map(ToString::to_string)
        .or_else(|| template.map(|template| template.ref_hash.to_string()));
    let generation = member.head.generation + i64::from(spec.is_some());
    let mut marks = json!({names::BINDING_GENERATION: generation.to_string()});
    if let (Some(trace), Some(marks)) = (&claim.annotations.trace_context, marks.as_object_mut()) {
        marks.insert(annotations::TRACE_CONTEXT.to_owned(), json!(&**trace));
    }
    let mut patch = json!({"metadata": {
        "uid": member.head.uid.to_string(),
        "resourceVersion": member.head.revision.to_string(),
        "ownerReferences": [owner_reference(claim)],
        field_tracking::MEMBER: field_tracking::ended(),
        "annotations": marks,
        "labels": {
            labels::WARM_POOL_SANDBOX: null,
            labels::SANDBOX_TEMPLATE_HASH: null,
            labels::SANDBOX_POD_TEMPLATE_HASH: null,
            labels::LAUNCH_TYPE: labels::LAUNCH_TYPE_WARM,
            labels::CLAIM_UID: claim.head.uid.to_string(),
            labels::CREATED_BY: claim.created_by.as_deref(),
            labels::SANDBOX_TEMPLATE_REF_HASH: ref_hash,
        },
    }});
    if let (Some(spec), Some(members)) = (spec, patch.as_object_mut()) {
        members.insert("spec".to_owned(), spec);
    }
    Ok(patch)
}

/// The patch that brings the pod template metadata of a bound sandbox in line with template and
/// claim; `None` when nothing differs.
///
/// # Errors
/// When the claim's metadata contradicts the template's.
pub fn metadata_update(
    claim: &ClaimRow,
    sandbox: &SandboxRow,
    template: Option<&TemplateRow>,
) -> Result<Option<Value>, Rejection> {
    let pod = metadata::merged(claim, template, &sandbox.pod)?;
    let spec = pod_metadata_patch(&sandbox.pod, &pod);
    let mut own = Map::new();
    let mut want = |key: &str, value: Option<&str>| {
        if sandbox.labels.get(key).map(|text| &**text) != value {
            own.insert(key.to_owned(), json!(value));
        }
    };
    want(labels::CREATED_BY, claim.created_by.as_deref());
    if !sandbox.labels.contains(labels::LAUNCH_TYPE) {
        // Older controllers left it out; a cold sandbox has its claim's name.
        let cold = sandbox.head.key.name == claim.head.key.name;
        let launch = if cold {
            labels::LAUNCH_TYPE_COLD
        } else {
            labels::LAUNCH_TYPE_WARM
        };
        want(labels::LAUNCH_TYPE, Some(launch));
    }
    if let Some(template) = template {
        want(labels::SANDBOX_TEMPLATE_REF_HASH, Some(&template.ref_hash));
    }
    if spec.is_none() && own.is_empty() {
        return Ok(None);
    }
    let mut metadata = json!({"uid": sandbox.head.uid.to_string()});
    if let (false, Some(members)) = (own.is_empty(), metadata.as_object_mut()) {
        members.insert("labels".to_owned(), Value::Object(own));
    }
    let mut patch = json!({ "metadata": metadata });
    if let (Some(spec), Some(members)) = (spec, patch.as_object_mut()) {
        members.insert("spec".to_owned(), spec);
    }
    Ok(Some(patch))
}

/// The part of a patch under `spec`, or `None` when the pod template metadata is as wanted.
fn pod_metadata_patch(current: &PodBlueprint, wanted: &PodMetadata) -> Option<Value> {
    let mut metadata = Map::new();
    for (member, current, wanted) in [
        ("labels", &current.labels, &wanted.labels),
        ("annotations", &current.annotations, &wanted.annotations),
    ] {
        let changes = changes(current, wanted);
        if !changes.is_empty() {
            metadata.insert(member.to_owned(), Value::Object(changes));
        }
    }
    (!metadata.is_empty()).then(|| json!({"podTemplate": {"metadata": metadata}}))
}

fn changes(current: &Labels, wanted: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut changes = Map::new();
    for (key, _) in current.iter() {
        if !wanted.contains_key(key) {
            changes.insert(key.to_owned(), Value::Null);
        }
    }
    for (key, value) in wanted {
        if !current.has(key, value) {
            changes.insert(key.clone(), json!(value));
        }
    }
    changes
}

/// A fresh sandbox for a claim, named after it.
///
/// # Errors
/// When the claim asks for something the template does not allow.
pub fn cold_sandbox(
    claim: &ClaimRow,
    template: &TemplateRow,
    resolvers: &[IpAddr],
) -> Result<Value, Rejection> {
    let blueprint = &template.spec;
    let mut pod = secure_pod_spec(blueprint, resolvers);
    env::inject(&mut pod, &claim.env, &blueprint.env_vars_injection_policy)?;
    let claim_volumes: Vec<VolumeClaimTemplate> = match &claim.volume_claim_templates {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Rejection::new(
                agent_sandbox_crds::condition::reason::VOLUME_CLAIM_TEMPLATES_ERROR,
                format!("spec.volumeClaimTemplates: {error}"),
            )
        })?,
    };
    let volumes = volumes::merged(
        blueprint
            .volume_claim_templates
            .as_deref()
            .unwrap_or_default(),
        &claim_volumes,
        &blueprint.volume_claim_templates_policy,
    )?;
    let none = PodBlueprint {
        spec: "".into(),
        labels: std::sync::Arc::default(),
        annotations: std::sync::Arc::default(),
    };
    let metadata = metadata::merged(claim, Some(template), &none)?;

    let mut pod_metadata = json!({"labels": metadata.labels});
    if let (false, Some(members)) = (
        metadata.annotations.is_empty(),
        pod_metadata.as_object_mut(),
    ) {
        members.insert("annotations".to_owned(), json!(metadata.annotations));
    }
    let mut spec = json!({"podTemplate": {"spec": pod, "metadata": pod_metadata}});
    if let Some(members) = spec.as_object_mut() {
        if !volumes.is_empty() {
            members.insert("volumeClaimTemplates".to_owned(), json!(volumes));
        }
        if let Some(service) = blueprint.service {
            members.insert("service".to_owned(), json!(service));
        }
    }
    let mut own = json!({
        labels::CLAIM_UID: claim.head.uid.to_string(),
        labels::LAUNCH_TYPE: labels::LAUNCH_TYPE_COLD,
        labels::SANDBOX_TEMPLATE_REF_HASH: hash::name_hash(&template.head.key.name),
    });
    if let (Some(creator), Some(members)) = (&claim.created_by, own.as_object_mut()) {
        members.insert(labels::CREATED_BY.to_owned(), json!(&**creator));
    }
    let mut marks = json!({annotations::SANDBOX_TEMPLATE_REF: &*template.head.key.name});
    if let (Some(trace), Some(members)) = (&claim.annotations.trace_context, marks.as_object_mut())
    {
        members.insert(annotations::TRACE_CONTEXT.to_owned(), json!(&**trace));
    }
    if let (Some(policy), Some(members)) = (required_policy(template), marks.as_object_mut()) {
        members.insert(names::REQUIRED_POLICY.to_owned(), json!(policy));
    }
    Ok(json!({
        "apiVersion": SANDBOXES.api_version(),
        "kind": SANDBOXES.kind,
        "metadata": {
            "name": &*claim.head.key.name,
            "namespace": &*claim.head.key.namespace,
            "labels": own,
            "annotations": marks,
            "ownerReferences": [owner_reference(claim)],
        },
        "spec": spec,
    }))
}
