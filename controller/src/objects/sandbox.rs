//! `Sandbox` as kept. The pod template is kept as interned text: members of one pool share it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::condition::ConditionWire;
use super::{Conditions, DecodeError, Head, Labels, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;
use crate::json_text::JsonText;
use crate::names;
use agent_sandbox_crds::annotations;
use agent_sandbox_crds::sandbox::OperatingMode;

/// Whether the sandbox's pod should exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The pod should run.
    Running,
    /// The pod should be gone; volumes and Service stay.
    Suspended,
}

/// What happens to an expired sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShutdownPolicy {
    /// The object goes with its children.
    Delete,
    /// The object stays and says that it expired.
    Retain,
}

/// A pod template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodBlueprint {
    /// The pod spec as JSON text.
    pub spec: Text,
    /// Template labels.
    pub labels: Arc<Labels>,
    /// Template annotations.
    pub annotations: Arc<Labels>,
}

/// The status fields beside the conditions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SandboxStatus {
    /// Conditions.
    pub conditions: Conditions,
    /// `status.selector`.
    pub selector: Option<Text>,
    /// `status.service`.
    pub service: Option<Text>,
    /// `status.serviceFQDN`.
    pub service_fqdn: Option<Text>,
    /// `status.podIPs`.
    pub pod_ips: Box<[Text]>,
    /// `status.nodeName`.
    pub node_name: Option<Text>,
    /// `status.replicas`, written for `v1alpha1` readers by older controllers.
    pub replicas: Option<i32>,
}

impl SandboxStatus {
    /// Whether it tells of a pod.
    pub fn has_pod(&self) -> bool {
        self.replicas.is_some_and(|count| count > 0)
            || !self.pod_ips.is_empty()
            || self.node_name.is_some()
    }

    /// Whether it tells of no pod, as that of a sandbox that was taken down or has never had one.
    pub fn is_bare(&self) -> bool {
        *self
            == Self {
                conditions: self.conditions.clone(),
                replicas: Some(0),
                ..Self::default()
            }
    }
}

/// A sandbox.
#[derive(Clone, Debug)]
pub struct SandboxRow {
    /// Identity.
    pub head: Head,
    /// Labels of the object.
    pub labels: Arc<Labels>,
    /// Annotations the operator reads; see [`KEPT_ANNOTATIONS`].
    pub annotations: Arc<Labels>,
    /// The pod template.
    pub pod: PodBlueprint,
    /// `spec.volumeClaimTemplates` as JSON text.
    pub volume_claim_templates: Option<Text>,
    /// `spec.service`.
    pub service: Option<bool>,
    /// Whether the pod should exist.
    pub mode: Mode,
    /// `spec.shutdownTime`.
    pub shutdown_time: Option<Timestamp>,
    /// `spec.shutdownPolicy`.
    pub shutdown_policy: ShutdownPolicy,
    /// The last known status.
    pub status: SandboxStatus,
}

/// Annotations of a Sandbox that are read.
const KEPT_ANNOTATIONS: [&str; 6] = [
    annotations::POD_NAME,
    annotations::RETAIN_VOLUMES,
    annotations::SANDBOX_TEMPLATE_REF,
    annotations::TRACE_CONTEXT,
    names::BINDING_GENERATION,
    names::REQUIRED_POLICY,
];

impl SandboxRow {
    /// Whether Ready is True.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.is_true("Ready")
    }

    /// Whether the sandbox has run to its end.
    pub fn is_finished(&self) -> bool {
        self.status.conditions.is_true("Finished")
    }

    /// The name of the template the sandbox came from, as recorded at its creation.
    pub fn template_name(&self) -> Option<&Text> {
        self.annotations.get(annotations::SANDBOX_TEMPLATE_REF)
    }

    /// Whether no pod may start without the network policy of the sandbox's template, whatever has become
    /// of the template since.
    pub fn requires_policy(&self) -> bool {
        self.annotations.contains(names::REQUIRED_POLICY)
    }

    /// Whether the volume claims are to outlive the sandbox.
    pub fn retains_volumes(&self) -> bool {
        self.annotations.has(annotations::RETAIN_VOLUMES, "true")
    }

    /// Whether the last change of generation was the binding itself, which users need not see
    /// acknowledged in `observedGeneration`.
    pub fn generation_is_from_binding(&self) -> bool {
        self.annotations
            .get(names::BINDING_GENERATION)
            .and_then(|text| text.parse().ok())
            == Some(self.head.generation)
    }
}

/// The members of a Sandbox that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct SandboxWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecWire {
    pod_template: PodTemplateWire,
    volume_claim_templates: Option<JsonText>,
    service: Option<bool>,
    operating_mode: Option<OperatingMode>,
    replicas: Option<i32>,
    shutdown_time: Option<Timestamp>,
    shutdown_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodTemplateWire {
    spec: Option<JsonText>,
    metadata: PodMetadataWire,
}

/// Labels and annotations of a pod template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodMetadataWire {
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    conditions: Vec<ConditionWire>,
    selector: Option<String>,
    service: Option<String>,
    #[serde(rename = "serviceFQDN")]
    service_fqdn: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<String>,
    node_name: Option<String>,
    replicas: Option<i32>,
}

impl Row for SandboxRow {
    type Wire = SandboxWire;
    const KIND: &'static str = "Sandbox";

    fn from_wire(wire: SandboxWire, interner: &Interner) -> Result<Self, DecodeError> {
        let SandboxWire {
            metadata,
            spec,
            status,
        } = wire;
        let text = |value: Option<String>| interner.optional(value.as_deref());
        let runs = spec
            .operating_mode
            .unwrap_or_default()
            .wants_running(spec.replicas);
        Ok(Self {
            head: Head::read(Self::KIND, &metadata, interner)?,
            labels: Labels::read(metadata.labels.as_ref(), interner),
            annotations: Labels::read_where(metadata.annotations.as_ref(), interner, |key| {
                KEPT_ANNOTATIONS.contains(&key)
            }),
            pod: PodBlueprint {
                spec: interner.text(
                    spec.pod_template
                        .spec
                        .as_ref()
                        .map_or("{}", JsonText::as_str),
                ),
                labels: Labels::read(spec.pod_template.metadata.labels.as_ref(), interner),
                annotations: Labels::read(
                    spec.pod_template.metadata.annotations.as_ref(),
                    interner,
                ),
            },
            volume_claim_templates: spec
                .volume_claim_templates
                .filter(|list| list.as_str() != "[]")
                .map(|list| interner.text(list.as_str())),
            service: spec.service,
            mode: if runs { Mode::Running } else { Mode::Suspended },
            shutdown_time: spec.shutdown_time,
            shutdown_policy: if spec.shutdown_policy.as_deref() == Some("Delete") {
                ShutdownPolicy::Delete
            } else {
                ShutdownPolicy::Retain
            },
            status: SandboxStatus {
                conditions: ConditionWire::read(status.conditions, interner),
                selector: text(status.selector),
                service: text(status.service),
                service_fqdn: text(status.service_fqdn),
                pod_ips: status.pod_ips.iter().map(|ip| interner.text(ip)).collect(),
                node_name: text(status.node_name),
                replicas: status.replicas,
            },
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn differs_in_own_status_only(&self, before: &Self) -> bool {
        let Self {
            head,
            labels,
            annotations,
            pod,
            volume_claim_templates,
            service,
            mode,
            shutdown_time,
            shutdown_policy,
            status: _,
        } = self;
        head.is_unchanged_since(&before.head)
            && *labels == before.labels
            && *annotations == before.annotations
            && *pod == before.pod
            && *volume_claim_templates == before.volume_claim_templates
            && *service == before.service
            && *mode == before.mode
            && *shutdown_time == before.shutdown_time
            && *shutdown_policy == before.shutdown_policy
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(spec: &serde_json::Value) -> SandboxRow {
        let wire = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "resourceVersion": "1"},
            "spec": spec,
        }))
        .unwrap();
        SandboxRow::from_wire(wire, &Interner::default()).unwrap()
    }

    #[test]
    fn a_sandbox_runs_only_if_neither_version_forbids_it() {
        for (spec, mode) in [
            (json!({}), Mode::Running),
            (json!({"replicas": 1}), Mode::Running),
            (
                json!({"replicas": 0, "operatingMode": "Running"}),
                Mode::Suspended,
            ),
            (json!({"operatingMode": "Suspended"}), Mode::Suspended),
        ] {
            assert_eq!(row(&spec).mode, mode, "{spec}");
        }
    }

    #[test]
    fn unknown_pod_fields_survive() {
        let row =
            row(&json!({"podTemplate": {"spec": {"containers": [], "fromTheFuture": {"a": 1}}}}));
        assert_eq!(
            &*row.pod.spec,
            r#"{"containers":[],"fromTheFuture":{"a":1}}"#
        );
    }

    #[test]
    fn an_empty_list_of_volume_claims_is_none() {
        assert_eq!(
            row(&json!({"volumeClaimTemplates": []})).volume_claim_templates,
            None
        );
        assert!(
            row(&json!({"volumeClaimTemplates": [{}]}))
                .volume_claim_templates
                .is_some()
        );
    }
}
