//! `Sandbox` (`agents.x-k8s.io`): one pod with a stable identity, its volumes and its headless Service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition;
use crate::pod_template::{PodTemplate, VolumeClaimTemplate};
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
    /// What the pod looks like. Changes reach only pods that are created later; labels and annotations also reach a
    /// running one.
    pub pod_template: PodTemplate,
    /// Volume claims the sandbox gets for itself, mounted under their names. Immutable. They are deleted with the sandbox, and
    /// the data with them, unless the sandbox has the annotation agents.x-k8s.io/retain-volumes=true by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
    /// Whether there is a headless Service. True makes one, false removes it, unset keeps one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
    /// Whether the sandbox has a pod. Suspended removes the pod and keeps everything else.
    #[serde(default)]
    pub operating_mode: OperatingMode,
    /// The v1alpha1 form of operatingMode: 0 suspends, 1 leaves it to operatingMode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// When the sandbox expires (RFC 3339). Unset means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::instant")]
    pub shutdown_time: Option<Time>,
    /// What happens to the Sandbox when it expires: Delete it, or Retain it and its volumes without a pod.
    #[serde(default)]
    pub shutdown_policy: ShutdownPolicy,
}

impl SandboxSpec {
    /// Whether the sandbox should have a pod; see [`OperatingMode::wants_running`].
    pub fn wants_running(&self) -> bool {
        self.operating_mode.wants_running(self.replicas)
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

impl OperatingMode {
    /// Whether a sandbox of this mode and of these `replicas` should have a pod. `v1beta1` says so with the mode,
    /// `v1alpha1` with the replicas; one schema carries both, so a sandbox runs only if neither forbids it.
    pub fn wants_running(&self, replicas: Option<i32>) -> bool {
        *self != Self::Suspended && replicas != Some(0)
    }
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
    /// DNS name of the Service.
    #[serde(rename = "serviceFQDN", skip_serializing_if = "Option::is_none")]
    pub service_fqdn: Option<String>,
    /// Name of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Ready, Suspended, PodScheduled and Finished.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Pods the sandbox has, for the scale subresource of v1alpha1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Label selector of the sandbox's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Addresses of the pod.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
    /// Node the pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

impl Sandbox {
    /// The condition of this type, if the status has it.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, type_)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_sandbox_runs_only_if_neither_switch_says_otherwise() {
        for (mode, replicas, expected) in [
            (Value::Null, Value::Null, true),
            (json!("Running"), json!(1), true),
            (json!("Running"), json!(0), false),
            (json!("Suspended"), Value::Null, false),
            (json!("Suspended"), json!(1), false),
            (json!("Suspended"), json!(0), false),
        ] {
            let mut value = json!({ "podTemplate": { "spec": { "containers": [] } } });
            if !mode.is_null() {
                value["operatingMode"] = mode;
            }
            if !replicas.is_null() {
                value["replicas"] = replicas;
            }
            let spec: SandboxSpec = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(spec.wants_running(), expected, "{value}");
        }
    }

    #[test]
    fn an_object_survives_being_read_and_written() {
        let value = json!({
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": { "name": "a", "namespace": "n" },
            "spec": {
                "podTemplate": {
                    "spec": { "containers": [{ "name": "c", "newer": { "x": [1] } }], "newer": true },
                    "metadata": { "labels": { "l": "1" }, "annotations": { "a": "2" } },
                },
                "volumeClaimTemplates": [{ "metadata": { "name": "v" }, "spec": { "newer": 1 } }],
                "service": false,
                "operatingMode": "Suspended",
                "replicas": 0,
                "shutdownTime": "2030-01-02T03:04:05Z",
                "shutdownPolicy": "Delete",
            },
            "status": {
                "serviceFQDN": "a.n.svc.cluster.local",
                "service": "a",
                "conditions": [{
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "message": "",
                    "reason": "PodTerminated",
                    "status": "True",
                    "type": "Suspended",
                }],
                "replicas": 0,
                "selector": "s",
                "podIPs": ["10.0.0.1", "fd00::1"],
                "nodeName": "node",
            },
        });
        let sandbox: Sandbox = serde_json::from_value(value.clone()).unwrap();
        assert!(sandbox.condition(condition::SUSPENDED).is_some());
        assert!(sandbox.condition(condition::READY).is_none());
        assert_eq!(serde_json::to_value(&sandbox).unwrap(), value);
    }
}
