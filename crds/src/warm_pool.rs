//! `SandboxWarmPool` (`extensions.agents.x-k8s.io`): sandboxes started ahead of the claims that will take them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::ObjectReference;
use crate::schema;
use crate::string_enum::string_enum;

/// How many sandboxes of which template wait for claims.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxWarmPool",
    plural = "sandboxwarmpools",
    shortname = "swp",
    namespaced,
    status = "SandboxWarmPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxWarmPoolSpec {
    /// Sandboxes to keep waiting for claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// SandboxTemplate in the same namespace to make them from.
    pub sandbox_template_ref: ObjectReference,
    /// What happens to waiting sandboxes when the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

impl SandboxWarmPoolSpec {
    /// Sandboxes to keep waiting.
    pub fn desired(&self) -> i32 {
        self.replicas.unwrap_or(1).max(0)
    }

    /// What happens to members of an older template.
    pub fn strategy(&self) -> UpdateStrategyType {
        self.update_strategy
            .as_ref()
            .map(|strategy| strategy.type_.clone())
            .unwrap_or_default()
    }
}

/// What happens to waiting sandboxes when the template changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpdateStrategy {
    /// Recreate replaces them; `OnReplenish` leaves them to be claimed and uses the new template for the next ones.
    #[serde(rename = "type")]
    pub type_: UpdateStrategyType,
}

string_enum! {
    /// What happens to waiting sandboxes when the template changes.
    pub enum UpdateStrategyType {
        /// Those of the old template are replaced.
        Recreate,
        /// They stay until they are claimed or deleted; only new ones use the new template.
        OnReplenish,
    }
    default OnReplenish
}

/// What the controller has observed. Zero counts are omitted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxWarmPoolStatus {
    /// Sandboxes that wait or are being started.
    #[serde(skip_serializing_if = "is_zero")]
    pub replicas: i32,
    /// Sandboxes that are Ready.
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_replicas: i32,
    /// Label selector of the pods of waiting sandboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Progressing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that the counts are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Sandboxes given to claims that do not name their claim as owner yet, each as `CLAIM/UID=SANDBOX/UID`; see
    /// [`crate::allocation`]. Written by the controller only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        description = "Sandboxes given to claims that do not name their claim as owner yet, each as CLAIM/UID=SANDBOX/UID. Written by the controller only."
    )]
    pub allocations: Vec<String>,
    /// Sandboxes that are about to be deleted and are given to nobody, each as `SANDBOX/UID`. Written by the
    /// controller only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        description = "Sandboxes that are about to be deleted and are given to nobody, each as SANDBOX/UID. Written by the controller only."
    )]
    pub retiring: Vec<String>,
    /// The newest resourceVersion of the Sandboxes that have left `allocations`: whoever has not seen
    /// them as they were then does not know which are still free. Written by the controller only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_resource_version: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_has_a_meaning() {
        let spec: SandboxWarmPoolSpec =
            serde_json::from_value(json!({ "sandboxTemplateRef": { "name": "t" } })).unwrap();
        assert_eq!(spec.desired(), 1);
        assert_eq!(spec.strategy(), UpdateStrategyType::OnReplenish);
        let spec: SandboxWarmPoolSpec = serde_json::from_value(json!({
            "sandboxTemplateRef": { "name": "t" },
            "replicas": 0,
            "updateStrategy": { "type": "Recreate" },
        }))
        .unwrap();
        assert_eq!(spec.desired(), 0);
        assert_eq!(spec.strategy(), UpdateStrategyType::Recreate);
    }

    #[test]
    fn zero_counts_are_omitted() {
        let status = SandboxWarmPoolStatus {
            replicas: 2,
            observed_generation: Some(1),
            ..SandboxWarmPoolStatus::default()
        };
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            json!({ "replicas": 2, "observedGeneration": 1 })
        );
    }
}
