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
    /// A SandboxWarmPool in the claim's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_pool_ref: Option<ObjectReference>,
    /// A SandboxTemplate in the claim's namespace, for a claim that names no pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_template_ref: Option<ObjectReference>,
    /// With `sandboxTemplateRef` only: `none`, `default`, or the name of a pool. Absent means `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmpool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Labels and annotations for the claimed pod, on top of the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_pod_metadata: Option<PodMetadata>,
    /// Environment variables for the claimed sandbox; a claim with any is always started cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::atomic_list::<EnvVar>")]
    pub env: Option<Vec<EnvVar>>,
    /// Volume claim templates on top of the template's; a claim with any is always started cold.
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
    /// When the claim expires. Absent means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::instant")]
    pub shutdown_time: Option<Time>,
    pub shutdown_policy: ClaimShutdownPolicy,
    /// Seconds from the sandbox's pod having finished until the claim expires. Absent means never.
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
    pub name: String,
    pub value: String,
    /// The container that gets it; the first regular one when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// What the controller has observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxClaimStatus {
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A copy of the Sandbox's `status.podIPs`.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
}

impl SandboxClaim {
    /// The condition of this type, if the status has it.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, type_)
    }
}
