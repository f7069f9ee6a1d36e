//! The blueprint that a Sandbox and a SandboxTemplate share: pod template, volume claim templates, service switch.
//!
//! Specs inside it are raw JSON ([`JsonObject`]); only labels, annotations and names are typed. Nothing in this
//! file decides anything.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json_object::JsonObject;

/// Labels and annotations for a pod. Other metadata has no meaning here and is pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PodMetadata {
    /// Labels of the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the pod of a sandbox looks like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodTemplate {
    /// Spec of the pod, as in core/v1.
    #[schemars(with = "PodSpec")]
    pub spec: JsonObject,
    /// Labels and annotations of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
}

impl PodTemplate {
    /// The labels for the pod; none when the template has no metadata.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.metadata.as_ref().map_or(&EMPTY, |m| &m.labels)
    }

    /// The annotations for the pod; none when the template has no metadata.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        self.metadata.as_ref().map_or(&EMPTY, |m| &m.annotations)
    }
}

/// Name, labels and annotations for a volume claim made from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClaimTemplateMetadata {
    /// Name of the volume in the pod and first part of the claim's name.
    // That there is one is checked by the controllers, which have published reasons for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(max = 63),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")
    )]
    pub name: String,
    /// Labels of the claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A persistent volume claim that every sandbox made from the blueprint gets for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeClaimTemplate {
    /// Name, labels and annotations of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ClaimTemplateMetadata>,
    /// Spec of the claim, as in core/v1.
    #[schemars(with = "PersistentVolumeClaimSpec")]
    pub spec: JsonObject,
}

impl VolumeClaimTemplate {
    /// The template's name; empty when unset.
    pub fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |m| &m.name)
    }
}

/// The part of a spec that decides what a sandbox is made of; the input of the template hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blueprint {
    pub pod_template: PodTemplate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
    /// Tri-state: unset keeps an owned Service but never creates one, `true` ensures it, `false` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
}

impl Blueprint {
    /// The volume claim templates; an absent list is an empty one.
    pub fn claim_templates(&self) -> &[VolumeClaimTemplate] {
        self.volume_claim_templates.as_deref().unwrap_or_default()
    }
}

static EMPTY: BTreeMap<String, String> = BTreeMap::new();
