//! What a sandbox's children should look like: Pod, Service and volume claims, and the patches that
//! bring existing ones there. Pure; objects are built from the raw pod template, so nothing a user
//! wrote is lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use agent_sandbox_crds::{VolumeClaimTemplate, annotations, hash, labels, names};
use serde_json::{Map, Value, json};

use crate::api::SANDBOXES;
use crate::error::Fault;
use crate::field_tracking;
use crate::fingerprint;
use crate::names as own;
use crate::objects::{Head, Labels, OwnerKind, PodRow, SandboxRow, ServiceRow};

/// The hash of the sandbox's name, its children's tracking label.
pub fn name_hash(row: &SandboxRow) -> String {
    hash::name_hash(&row.head.key.name)
}

/// The owner reference that makes the sandbox the controller of a child.
pub fn owner_reference(head: &Head) -> Value {
    json!({
        "apiVersion": SANDBOXES.api_version(),
        "kind": SANDBOXES.kind,
        "name": &*head.key.name,
        "uid": head.uid.to_string(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Whether an unowned object may be taken over: it carries the sandbox's own tracking label, or the
/// label that says so, with `true` or with the name or UID of the one sandbox it is meant for.
pub fn is_adoptable(row: &SandboxRow, found: &Labels) -> bool {
    found.has(labels::SANDBOX_NAME_HASH, &name_hash(row))
        || found.get(labels::ADOPTABLE).is_some_and(|value| {
            **value == *"true"
                || **value == *row.head.key.name
                || **value == *row.head.uid.to_string()
        })
}

/// The labels the operator itself puts on the pod.
fn system_labels(row: &SandboxRow) -> BTreeMap<String, String> {
    let mut system = BTreeMap::new();
    system.insert(labels::SANDBOX_NAME_HASH.to_owned(), name_hash(row));
    system.insert(own::SANDBOX_UID.to_owned(), row.head.uid.to_string());
    let owner = row.head.owner.as_ref().map(|owner| owner.kind);
    let mut copy = |key: &str| {
        if let Some(value) = row.labels.get(key) {
            system.insert(key.to_owned(), value.to_string());
        }
    };
    if owner == Some(OwnerKind::Pool) {
        copy(labels::WARM_POOL_SANDBOX);
    }
    if owner.is_some_and(OwnerKind::is_extension) {
        copy(labels::SANDBOX_TEMPLATE_REF_HASH);
    }
    if owner == Some(OwnerKind::Claim) {
        copy(labels::CLAIM_UID);
    }
    if let Some(creator) = row.labels.get(labels::CREATED_BY) {
        system.insert(
            labels::CREATED_BY.to_owned(),
            labels::normalised_creator(creator).to_owned(),
        );
    }
    system
}

/// The system labels that are taken off a pod when they are not expected.
const MANAGED_LABELS: [&str; 4] = [
    labels::WARM_POOL_SANDBOX,
    labels::SANDBOX_TEMPLATE_REF_HASH,
    labels::CLAIM_UID,
    labels::CREATED_BY,
];

/// The annotations that record which keys were copied from the template.
const BOOKKEEPING: [&str; 2] = [
    annotations::PROPAGATED_LABELS,
    annotations::PROPAGATED_ANNOTATIONS,
];

/// The template's labels or annotations that reach the pod.
fn propagated(set: &Labels, is_reserved: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    set.iter()
        .filter(|(key, _)| !is_reserved(key))
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .collect()
}

fn key_list(map: &BTreeMap<String, String>) -> String {
    map.keys().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// The sandbox's pod, to be started under a network policy if one is named.
///
/// # Errors
/// When the pod template or the volume claim templates cannot make a pod.
pub fn pod(row: &SandboxRow, policy: Option<&str>) -> Result<Value, Fault> {
    let template_labels = propagated(&row.pod.labels, labels::is_reserved);
    let template_annotations = propagated(&row.pod.annotations, annotations::is_reserved);
    let mut pod_annotations = template_annotations.clone();
    let lists = [key_list(&template_labels), key_list(&template_annotations)];
    for (key, list) in BOOKKEEPING.into_iter().zip(lists) {
        if !list.is_empty() {
            pod_annotations.insert(key.to_owned(), list);
        }
    }
    if let Some(fingerprint) = fingerprint::of(&row.pod.spec) {
        pod_annotations.insert(own::POD_SPEC.to_owned(), fingerprint);
    }
    if let Some(policy) = policy {
        pod_annotations.insert(own::REQUIRED_POLICY.to_owned(), policy.to_owned());
    }
    let mut pod_labels = template_labels;
    pod_labels.extend(system_labels(row));

    let mut spec: Map<String, Value> = serde_json::from_str(&row.pod.spec)
        .map_err(|error| Fault::Invalid(format!("spec.podTemplate.spec: {error}")))?;
    add_volumes(&mut spec, row)?;
    let mut metadata = json!({
        "name": &*row.head.key.name,
        "namespace": &*row.head.key.namespace,
        "labels": pod_labels,
        "ownerReferences": [owner_reference(&row.head)],
    });
    if !pod_annotations.is_empty()
        && let Some(members) = metadata.as_object_mut()
    {
        members.insert("annotations".to_owned(), json!(pod_annotations));
    }
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// Whether a pod was created from another pod spec than the sandbox has by now. One that does not record
/// what it was created from is not judged.
pub fn is_outdated(row: &SandboxRow, pod: &PodRow) -> bool {
    pod.annotations.get(own::POD_SPEC).is_some_and(|recorded| {
        fingerprint::of(&row.pod.spec).is_some_and(|now| **recorded != *now)
    })
}

/// Mounts the sandbox's volume claims: one volume per template, replacing a volume of the same name.
fn add_volumes(spec: &mut Map<String, Value>, row: &SandboxRow) -> Result<(), Fault> {
    let templates = volume_claim_templates(row)?;
    if templates.is_empty() {
        return Ok(());
    }
    let volumes = spec
        .entry("volumes")
        .or_insert_with(|| Value::Array(Vec::new()));
    if volumes.is_null() {
        *volumes = Value::Array(Vec::new());
    }
    let list = volumes.as_array_mut().ok_or_else(|| {
        Fault::Invalid("spec.podTemplate.spec.volumes: expected a list".to_owned())
    })?;
    for template in &templates {
        let volume = json!({
            "name": template.name(),
            "persistentVolumeClaim": {
                "claimName": names::volume_claim(template.name(), &row.head.key.name),
            },
        });
        let existing = list
            .iter_mut()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(template.name()));
        match existing {
            Some(entry) => *entry = volume,
            None => list.push(volume),
        }
    }
    Ok(())
}

/// The sandbox's volume claim templates, checked: every one named, by a name a volume can have, no
/// name twice.
///
/// # Errors
/// Names the entry and what is wrong with it.
pub fn volume_claim_templates(row: &SandboxRow) -> Result<Vec<VolumeClaimTemplate>, Fault> {
    let Some(text) = &row.volume_claim_templates else {
        return Ok(Vec::new());
    };
    let list: Vec<VolumeClaimTemplate> = serde_json::from_str(text)
        .map_err(|error| Fault::Invalid(format!("spec.volumeClaimTemplates: {error}")))?;
    let mut seen = BTreeSet::new();
    for (index, template) in list.iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{index}].metadata.name");
        let name = template.name();
        if !is_dns_label(name) {
            return Err(Fault::Invalid(format!(
                "{path}: {name:?} cannot name a volume: expected 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
            )));
        }
        if !seen.insert(name.to_owned()) {
            return Err(Fault::Invalid(format!("{path}: {name:?} is used twice")));
        }
    }
    Ok(list)
}

fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
}

/// The patch that brings an existing pod's metadata in line, and takes the pod over when `adopt`.
/// `None` when nothing differs. A pod that is taken over keeps its field tracking: somebody else made it. Keys that neither the template nor the operator put there stay.
pub fn pod_patch(row: &SandboxRow, pod: &PodRow, adopt: bool) -> Option<Value> {
    let template_labels = propagated(&row.pod.labels, labels::is_reserved);
    let template_annotations = propagated(&row.pod.annotations, annotations::is_reserved);
    let mut metadata = Map::new();
    let label_patch = label_patch(row, pod, &template_labels);
    if !label_patch.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(label_patch));
    }
    let annotation_patch = annotation_patch(pod, &template_labels, &template_annotations);
    if !annotation_patch.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotation_patch));
    }
    if adopt {
        metadata.insert(
            "ownerReferences".to_owned(),
            json!([owner_reference(&row.head)]),
        );
        metadata.insert(
            "resourceVersion".to_owned(),
            json!(pod.head.revision.to_string()),
        );
    }
    if metadata.is_empty() {
        return None;
    }
    if !adopt {
        metadata.insert(field_tracking::MEMBER.to_owned(), field_tracking::ended());
    }
    // The pod is addressed by name; the UID makes sure it is still the one that was looked at.
    metadata.insert("uid".to_owned(), json!(pod.head.uid.to_string()));
    Some(json!({ "metadata": metadata }))
}

fn listed<'a>(pod: &'a PodRow, key: &str) -> impl Iterator<Item = &'a str> {
    pod.annotations
        .get(key)
        .map_or("", |text| &**text)
        .split(',')
        .filter(|key| !key.is_empty())
}

fn label_patch(
    row: &SandboxRow,
    pod: &PodRow,
    template: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    let system = system_labels(row);
    for (key, value) in template.iter().chain(&system) {
        if !pod.labels.has(key, value) {
            patch.insert(key.clone(), json!(value));
        }
    }
    let stale = listed(pod, annotations::PROPAGATED_LABELS).chain(MANAGED_LABELS);
    for key in stale {
        let wanted = template.contains_key(key) || system.contains_key(key);
        if !wanted && pod.labels.contains(key) {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
    patch
}

fn annotation_patch(
    pod: &PodRow,
    template_labels: &BTreeMap<String, String>,
    template: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in template {
        if !pod.annotations.has(key, value) {
            patch.insert(key.clone(), json!(value));
        }
    }
    for key in listed(pod, annotations::PROPAGATED_ANNOTATIONS) {
        if !template.contains_key(key)
            && !BOOKKEEPING.contains(&key)
            && pod.annotations.contains(key)
        {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
    let lists = [key_list(template_labels), key_list(template)];
    for (key, list) in BOOKKEEPING.into_iter().zip(lists) {
        let known = pod.annotations.get(key).map_or("", |text| &**text);
        if known != list {
            patch.insert(key.to_owned(), json!(list));
        }
    }
    patch
}

/// One volume claim.
pub fn volume_claim(row: &SandboxRow, template: &VolumeClaimTemplate) -> Value {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut claim_labels = metadata.labels;
    claim_labels.insert(labels::SANDBOX_NAME_HASH.to_owned(), name_hash(row));
    let mut meta = json!({
        "name": names::volume_claim(&metadata.name, &row.head.key.name),
        "namespace": &*row.head.key.namespace,
        "labels": claim_labels,
    });
    if let Some(members) = meta.as_object_mut() {
        if !metadata.annotations.is_empty() {
            members.insert("annotations".to_owned(), json!(metadata.annotations));
        }
        if !row.retains_volumes() {
            members.insert(
                "ownerReferences".to_owned(),
                json!([owner_reference(&row.head)]),
            );
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": template.spec.to_value(),
    })
}

/// The patch that frees a volume claim from its sandbox, so that it is not deleted with it.
pub fn volume_claim_release(found: &Head) -> Value {
    json!({"metadata": {
        "uid": found.uid.to_string(),
        "resourceVersion": found.revision.to_string(),
        "ownerReferences": null,
    }})
}

/// The patch that takes an unowned volume claim over.
pub fn volume_claim_adoption(row: &SandboxRow, found: &Head) -> Value {
    json!({"metadata": {
        "uid": found.uid.to_string(),
        "resourceVersion": found.revision.to_string(),
        "ownerReferences": [owner_reference(&row.head)],
    }})
}

/// The ports of the sandbox's Service: every container port once, sorted by port and protocol.
///
/// Containers come first, then restartable init containers. A pair keeps the first explicit name
/// nobody took before it; unnamed pairs get a name derived from port and protocol.
pub fn service_ports(row: &SandboxRow) -> Vec<Value> {
    let spec: Value = serde_json::from_str(&row.pod.spec).unwrap_or_default();
    let list = |member: &str| {
        spec.get(member)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut pairs: BTreeMap<(i64, String), Option<String>> = BTreeMap::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let sidecars = list("initContainers")
        .into_iter()
        .filter(|c| c.get("restartPolicy").and_then(Value::as_str) == Some("Always"));
    for container in list("containers").into_iter().chain(sidecars) {
        let ports = container.get("ports").and_then(Value::as_array);
        for port in ports.into_iter().flatten() {
            let text = |member: &str| port.get(member).and_then(Value::as_str);
            let number = port
                .get("containerPort")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            if number == 0 {
                continue;
            }
            let protocol = text("protocol").unwrap_or("TCP");
            let slot = pairs.entry((number, protocol.to_owned())).or_default();
            if slot.is_none()
                && let Some(name) = text("name").filter(|name| !name.is_empty())
                && taken.insert(name.to_owned())
            {
                *slot = Some(name.to_owned());
            }
        }
    }
    pairs
        .into_iter()
        .map(|((number, protocol), name)| {
            let name = name.unwrap_or_else(|| free_name(number, &protocol, &mut taken));
            json!({"name": name, "protocol": protocol, "port": number, "targetPort": number})
        })
        .collect()
}

fn free_name(number: i64, protocol: &str, taken: &mut BTreeSet<String>) -> String {
    let base = format!("p-{number}-{}", protocol.to_lowercase());
    let mut name = base.clone();
    let mut suffix = 2;
    while !taken.insert(name.clone()) {
        name = format!("{base}-{suffix}");
        suffix += 1;
    }
    name
}

/// What the Service selects: pods of this sandbox and of no other, also where two names hash alike.
fn selector(row: &SandboxRow) -> BTreeMap<String, String> {
    [
        (labels::SANDBOX_NAME_HASH.to_owned(), name_hash(row)),
        (own::SANDBOX_UID.to_owned(), row.head.uid.to_string()),
    ]
    .into()
}

/// Whether the Service would select a pod with these labels.
pub fn is_selected(row: &SandboxRow, found: &Labels) -> bool {
    selector(row)
        .iter()
        .all(|(key, value)| found.has(key, value))
}

/// The sandbox's headless Service.
pub fn service(row: &SandboxRow) -> Value {
    let hash = name_hash(row);
    let mut spec = json!({
        "clusterIP": "None",
        "selector": selector(row),
    });
    let ports = service_ports(row);
    if !ports.is_empty()
        && let Some(members) = spec.as_object_mut()
    {
        members.insert("ports".to_owned(), Value::Array(ports));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*row.head.key.name,
            "namespace": &*row.head.key.namespace,
            "labels": {labels::SANDBOX_NAME_HASH: hash},
            "ownerReferences": [owner_reference(&row.head)],
        },
        "spec": spec,
    })
}

/// The patch that repairs an owned Service, or takes over an unowned one when `adopt`. Ports are
/// managed only when the sandbox asks for the Service. `None` when nothing differs.
pub fn service_patch(row: &SandboxRow, found: &ServiceRow, adopt: bool) -> Option<Value> {
    let hash = name_hash(row);
    let mut metadata = Map::new();
    let mut spec = Map::new();
    if !found.labels.has(labels::SANDBOX_NAME_HASH, &hash) {
        metadata.insert(
            "labels".to_owned(),
            json!({labels::SANDBOX_NAME_HASH: hash}),
        );
    }
    let wanted = selector(row);
    let mut changes = Map::new();
    for (key, _) in found.selector.iter() {
        if !wanted.contains_key(key) {
            changes.insert(key.to_owned(), Value::Null);
        }
    }
    for (key, value) in wanted {
        if !found.selector.has(&key, &value) {
            changes.insert(key, json!(value));
        }
    }
    if !changes.is_empty() {
        spec.insert("selector".to_owned(), Value::Object(changes));
    }
    if row.service == Some(true) || adopt {
        let wanted = Value::Array(service_ports(row));
        if managed_ports(&found.ports) != managed_ports(&wanted.to_string()) {
            spec.insert("ports".to_owned(), wanted);
        }
    }
    if adopt {
        metadata.insert(
            "ownerReferences".to_owned(),
            json!([owner_reference(&row.head)]),
        );
        metadata.insert(
            "resourceVersion".to_owned(),
            json!(found.head.revision.to_string()),
        );
    }
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    metadata.insert("uid".to_owned(), json!(found.head.uid.to_string()));
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    Some(Value::Object(patch))
}

/// The parts of a port list that the operator manages, in order.
fn managed_ports(text: &str) -> Vec<(String, String, i64, Value)> {
    let list: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    list.iter()
        .map(|port| {
            let text = |member: &str| {
                port.get(member)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            (
                text("name"),
                text("protocol"),
                port.get("port").and_then(Value::as_i64).unwrap_or_default(),
                port.get("targetPort").cloned().unwrap_or_default(),
            )
        })
        .collect()
}
