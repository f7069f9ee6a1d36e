//! `SandboxTemplate` (`extensions.agents.x-k8s.io`): the blueprint pools and claims make sandboxes from, and the
//! network policy that covers them.

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json_object::JsonObject;
use crate::pod_template::{Blueprint, PodTemplate, VolumeClaimTemplate};
use crate::schema;
use crate::string_enum::string_enum;

/// A blueprint with the rules for those who use it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxTemplate",
    plural = "sandboxtemplates",
    shortname = "sandboxtemplate",
    namespaced,
    status = "SandboxTemplateStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxTemplateSpec {
    /// What the pods of sandboxes made from this template look like.
    pub pod_template: PodTemplate,
    /// Volume claims each sandbox gets for itself, mounted under their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
    /// Whether each sandbox has a headless Service. True makes one, false removes it, unset keeps one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
    /// Rules that replace the default network policy. An empty object denies everything both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicyRules>,
    /// Whether the controller keeps a network policy for the template's pods. After a change to Unmanaged it keeps the one
    /// there is until the pods that started under it are gone; delete the policy to end that sooner.
    #[serde(default)]
    pub network_policy_management: NetworkPolicyManagement,
    /// What a claim's env may do: nothing (Disallowed), add (Allowed), or add and replace (Overrides).
    #[serde(default)]
    pub env_vars_injection_policy: EnvVarsInjectionPolicy,
    /// What a claim's volumeClaimTemplates may do: nothing (Disallowed), add (Allowed), or add and replace (Overrides).
    #[serde(default)]
    pub volume_claim_templates_policy: VolumeClaimTemplatesPolicy,
}

impl SandboxTemplateSpec {
    /// The blueprint part of the spec. Cheap: specs are shared, not copied.
    pub fn blueprint(&self) -> Blueprint {
        Blueprint {
            pod_template: self.pod_template.clone(),
            volume_claim_templates: self.volume_claim_templates.clone(),
            service: self.service,
        }
    }
}

/// The rule lists of a networking/v1 `NetworkPolicy`, kept as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkPolicyRules {
    /// Ingress rules of a networking.k8s.io/v1 NetworkPolicy. Unset lets nothing in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<NetworkPolicyIngressRule>>")]
    pub ingress: Option<Vec<JsonObject>>,
    /// Egress rules of a networking.k8s.io/v1 NetworkPolicy. Unset lets nothing out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<NetworkPolicyEgressRule>>")]
    pub egress: Option<Vec<JsonObject>>,
}

/// What the controller has observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxTemplateStatus {
    /// `NetworkPolicyReady`: True while the controller's network policy covers the template's pods, with the reason Managed or
    /// Retained. False otherwise; unless the reason is Unmanaged, no pod of the template starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

string_enum! {
    /// Who takes care of the network policy for the template's pods.
    pub enum NetworkPolicyManagement {
        /// The controller keeps one policy per template.
        Managed,
        /// The user does; the controller removes its own once no pod from before needs it.
        Unmanaged,
    }
    default Managed
}

string_enum! {
    /// What a claim's `env` may do.
    pub enum EnvVarsInjectionPolicy {
        /// Add variables the template does not define.
        Allowed,
        /// Add and replace.
        Overrides,
        /// Nothing: a claim with `env` is refused.
        Disallowed,
    }
    default Disallowed
}

string_enum! {
    /// What a claim's `volumeClaimTemplates` may do.
    pub enum VolumeClaimTemplatesPolicy {
        /// Nothing: a claim that brings some is refused.
        Disallowed,
        /// Add templates under new names.
        Allowed,
        /// Add, and replace those of the same name.
        Overrides,
    }
    default Disallowed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_kept_as_written() {
        let value = json!({
            "podTemplate": { "spec": { "containers": [] } },
            "networkPolicy": {
                "ingress": [{ "from": [{ "podSelector": {} }], "newer": 1 }],
                "egress": [],
            },
            "networkPolicyManagement": "Managed",
            "envVarsInjectionPolicy": "Overrides",
            "volumeClaimTemplatesPolicy": "Disallowed",
        });
        let spec: SandboxTemplateSpec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(spec).unwrap(), value);
    }

    /// A port beyond 32 bits passes the schema. It must not keep the template from being read.
    #[test]
    fn a_rule_that_cannot_be_typed_is_kept_too() {
        let value = json!([{ "ports": [{ "port": 5_000_000_000_i64 }] }]);
        let spec: SandboxTemplateSpec = serde_json::from_value(json!({
            "podTemplate": { "spec": { "containers": [] } },
            "networkPolicy": { "egress": value },
        }))
        .unwrap();
        let rules = spec.network_policy.unwrap();
        assert_eq!(rules.ingress, None);
        assert_eq!(serde_json::to_value(rules.egress).unwrap(), value);
    }
}
