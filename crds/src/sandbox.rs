//! `Sandbox` (`agents.x-k8s.io`): one pod with a stable identity, its volumes and its headless Service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition;
use crate::pod_template::{Blueprint, PodTemplate, VolumeClaimTemplate};
use crate::schema;
use crate::string_enum::string_enum;

/// What a sandbox is made of and how it should live.
///
/// The schema is one superset for both served versions: `operatingMode` is the `v1beta1` switch and `replicas` the
/// `v1alpha1` one. A sandbox runs only if neither says otherwise ([`SandboxSpec::wants_running`]).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agents.x-k8s.io",
    version = "v1beta1",
    kind = "Sandbox",
    plural = "sandboxes",
    shortname = "sandbox",
    namespaced,
    status = "SandboxStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    pub pod_template: PodTemplate,
    /// Immutable after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
    /// Tri-state: unset keeps an owned Service but never creates one, `true` ensures it, `false` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
    #[serde(default)]
    pub operating_mode: OperatingMode,
    /// 0 or 1; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// When the sandbox expires. Absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::instant")]
    pub shutdown_time: Option<Time>,
    #[serde(default)]
    pub shutdown_policy: ShutdownPolicy,
}

impl SandboxSpec {
    /// Whether the sandbox should have a pod: its mode is Running and its replicas are not 0.
    pub fn wants_running(&self) -> bool {
        self.operating_mode != OperatingMode::Suspended && self.replicas != Some(0)
    }

    /// The blueprint part of the spec. Cheap: specs are shared, not copied.
    pub fn blueprint(&self) -> Blueprint {
        Blueprint {
            pod_template: self.pod_template.clone(),
            volume_claim_templates: self.volume_claim_templates.clone(),
            service: self.service,
        }
    }

    /// A spec made of a blueprint, everything else at its default.
    pub fn from_blueprint(blueprint: Blueprint) -> Self {
        Self {
            pod_template: blueprint.pod_template,
            volume_claim_templates: blueprint.volume_claim_templates,
            service: blueprint.service,
            ..Self::default()
        }
    }
}

string_enum! {
    /// Whether a sandbox has a pod.
    pub enum OperatingMode {
        /// The pod exists.
        Running,
        /// The pod is removed; volumes and Service stay.
        Suspended,
    }
    default Running
}

string_enum! {
    /// What happens to an expired Sandbox.
    pub enum ShutdownPolicy {
        /// The Sandbox is deleted, and with it everything it owns.
        Delete,
        /// Pod and Service are removed; the Sandbox and its volumes stay.
        Retain,
    }
    default Retain
}

/// What the controller has observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxStatus {
    /// `<service>.<namespace>.svc.<cluster domain>`
    #[serde(rename = "serviceFQDN", skip_serializing_if = "Option::is_none")]
    pub service_fqdn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Pods the sandbox has: 0 or 1. Read by the `scale` subresource of `v1alpha1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// `agents.x-k8s.io/sandbox-name-hash=<hash>`: selects the sandbox's pod. Clients parse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Every address of the pod, in the pod's order.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

impl Sandbox {
    /// The condition of this type, if the status has it.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, type_)
    }
}
