//! `SandboxClaim` (`extensions.agents.x-k8s.io`): a request for one sandbox, out of a warm pool or made to order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition;
use crate::pod_template::{PodMetadata, VolumeClaimTemplate};
use crate::reference::ObjectReference;
use crate::schema;
use crate::string_enum::string_enum;

/// What is asked for.
///
/// Exactly one of `warmPoolRef` (the `v1beta1` way) and `sandboxTemplateRef` with `warmpool` (the `v1alpha1` way) is
/// set; [`SandboxClaimSpec::source`] reads both.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxClaim",
    plural = "sandboxclaims",
    shortname = "sandboxclaim",
    namespaced,
    status = "SandboxClaimStatus",
    derive = "PartialEq",
    derive = "Default",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxClaimSpec {
    /// SandboxWarmPool in the same namespace to take a sandbox from. Either this or sandboxTemplateRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_pool_ref: Option<ObjectReference>,
    /// SandboxTemplate in the same namespace to get a sandbox of. Either this or warmPoolRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_template_ref: Option<ObjectReference>,
    /// With sandboxTemplateRef only: 'default' for any pool of the template, 'none' for no pool, or the name of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmpool: Option<String>,
    /// When the claim ends and what happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Labels and annotations for the pod, on top of the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_pod_metadata: Option<PodMetadata>,
    /// Environment variables, if the template allows them. A claim with any does not come from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::atomic_list::<EnvVar>")]
    pub env: Option<Vec<EnvVar>>,
    /// Volume claims on top of the template's, if it allows them. A claim with any does not come from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
}

/// Where a claim's sandbox comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimSource<'a> {
    /// This pool, and the template it names.
    Pool { pool: &'a str },
    /// This template: from the pool if one is named, else from any pool of the template unless it must be cold.
    Template {
        template: &'a str,
        warmth: Warmth<'a>,
    },
}

/// How a claim that names a template may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmth<'a> {
    /// `warmpool: default` or absent: any pool of the template, else cold.
    AnyPool,
    /// `warmpool: none`: never from a pool.
    Cold,
    /// `warmpool: <name>`: from that pool, else cold.
    Pool(&'a str),
}

impl SandboxClaimSpec {
    /// Where the sandbox comes from; `None` when neither reference is set, which the CRD refuses.
    /// When both are set, `warmPoolRef` wins.
    pub fn source(&self) -> Option<ClaimSource<'_>> {
        if let Some(pool) = &self.warm_pool_ref {
            return Some(ClaimSource::Pool { pool: &pool.name });
        }
        let template = self.sandbox_template_ref.as_ref()?;
        let warmth = match self.warmpool.as_deref() {
            None | Some("" | "default") => Warmth::AnyPool,
            Some("none") => Warmth::Cold,
            Some(pool) => Warmth::Pool(pool),
        };
        Some(ClaimSource::Template {
            template: &template.name,
            warmth,
        })
    }

    /// The requested environment variables; an absent list is an empty one.
    pub fn env(&self) -> &[EnvVar] {
        self.env.as_deref().unwrap_or_default()
    }

    /// The requested volume claim templates; an absent list is an empty one.
    pub fn claim_templates(&self) -> &[VolumeClaimTemplate] {
        self.volume_claim_templates.as_deref().unwrap_or_default()
    }
}

/// When a claim ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// When the claim expires (RFC 3339). Unset means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::instant")]
    pub shutdown_time: Option<Time>,
    /// What happens to the claim when it expires: Delete it, `DeleteForeground` (after its sandbox), or Retain it
    /// without its sandbox.
    pub shutdown_policy: ClaimShutdownPolicy,
    /// Seconds from the end of the pod to the expiry of the claim. Unset means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
}

string_enum! {
    /// What happens to an expired claim.
    pub enum ClaimShutdownPolicy {
        /// The claim is deleted, and with it the sandbox.
        Delete,
        /// The same, and the claim disappears only after the sandbox has.
        DeleteForeground,
        /// The sandbox is deleted; the claim stays.
        Retain,
    }
    default Retain
}

/// One environment variable with a literal value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    pub name: String,
    /// Its literal value.
    pub value: String,
    /// Container that gets it. Unset means the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// What the controller has observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxClaimStatus {
    /// Ready and Finished.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The claimed sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<ClaimedSandbox>,
}

/// The sandbox a claim got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimedSandbox {
    /// Name of the Sandbox.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Addresses of its pod.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
}

impl SandboxClaim {
    /// The condition of this type, if the status has it.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, type_)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> SandboxClaimSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_source_is_read_in_both_styles() {
        let template = |warmth| {
            Some(ClaimSource::Template {
                template: "t",
                warmth,
            })
        };
        let pool = |pool| Some(ClaimSource::Pool { pool });
        for (value, expected) in [
            (json!({}), None),
            (json!({ "warmPoolRef": { "name": "p" } }), pool("p")),
            (
                json!({ "warmPoolRef": { "name": "p" }, "warmpool": "default" }),
                pool("p"),
            ),
            (
                json!({ "sandboxTemplateRef": { "name": "t" } }),
                template(Warmth::AnyPool),
            ),
            (
                json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "" }),
                template(Warmth::AnyPool),
            ),
            (
                json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "default" }),
                template(Warmth::AnyPool),
            ),
            (
                json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "none" }),
                template(Warmth::Cold),
            ),
            (
                json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "fast" }),
                template(Warmth::Pool("fast")),
            ),
        ] {
            assert_eq!(spec(value.clone()).source(), expected, "{value}");
        }
    }

    #[test]
    fn a_policy_from_another_definition_is_kept_as_it_is() {
        let value = json!({ "lifecycle": { "shutdownPolicy": "Archive" } });
        let read = spec(value.clone());
        let policy = read.lifecycle.clone().unwrap().shutdown_policy;
        assert_eq!(policy, ClaimShutdownPolicy::Other("Archive".to_owned()));
        assert_eq!(serde_json::to_value(read).unwrap(), value);
    }

    #[test]
    fn a_lifecycle_without_a_policy_retains() {
        let read = spec(json!({ "lifecycle": { "ttlSecondsAfterFinished": 0 } }));
        let lifecycle = read.lifecycle.unwrap();
        assert_eq!(lifecycle.shutdown_policy, ClaimShutdownPolicy::Retain);
        assert_eq!(lifecycle.ttl_seconds_after_finished, Some(0));
    }
}
