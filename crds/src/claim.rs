//! `SandboxClaim` (`extensions.agents.x-k8s.io`): a request for one sandbox, out of a warm pool or made to order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Volume claims on top of the template's, if it allows them. A claim with any does not come from a pool. They are deleted
    /// with the claim's sandbox, unless that has the annotation agents.x-k8s.io/retain-volumes=true by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
}

/// Where a claim's sandbox comes from. `N` is how a name is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimSource<N> {
    /// This pool, and the template it names.
    Pool(N),
    /// This template: from the pool if one is named, else from any pool of the template unless it must be cold.
    Template {
        /// The template.
        name: N,
        /// Which pools may serve the claim.
        warmth: Warmth<N>,
    },
}

/// How a claim that names a template may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmth<N> {
    /// `warmpool: default` or absent: any pool of the template, else cold.
    AnyPool,
    /// `warmpool: none`: never from a pool.
    Cold,
    /// `warmpool: <name>`: from that pool, else cold.
    Pool(N),
}

impl<'a> ClaimSource<&'a str> {
    /// Reads the three fields that name a source: the pool of `warmPoolRef`, the template of `sandboxTemplateRef`, and
    /// `warmpool`. `None` when neither reference is set, which the CRD refuses. When both are set, `warmPoolRef` wins.
    pub fn read(
        pool: Option<&'a str>,
        template: Option<&'a str>,
        warmpool: Option<&'a str>,
    ) -> Option<Self> {
        if let Some(pool) = pool {
            return Some(Self::Pool(pool));
        }
        let name = template?;
        let warmth = match warmpool {
            None | Some("" | "default") => Warmth::AnyPool,
            Some("none") => Warmth::Cold,
            Some(pool) => Warmth::Pool(pool),
        };
        Some(Self::Template { name, warmth })
    }

    /// The same with its names kept another way.
    pub fn map<N>(self, mut keep: impl FnMut(&'a str) -> N) -> ClaimSource<N> {
        match self {
            Self::Pool(pool) => ClaimSource::Pool(keep(pool)),
            Self::Template { name, warmth } => ClaimSource::Template {
                name: keep(name),
                warmth: match warmth {
                    Warmth::AnyPool => Warmth::AnyPool,
                    Warmth::Cold => Warmth::Cold,
                    Warmth::Pool(pool) => Warmth::Pool(keep(pool)),
                },
            },
        }
    }
}

impl SandboxClaimSpec {
    /// Where the sandbox comes from; see [`ClaimSource::read`].
    pub fn source(&self) -> Option<ClaimSource<&str>> {
        ClaimSource::read(
            self.warm_pool_ref.as_ref().map(|it| it.name.as_str()),
            self.sandbox_template_ref
                .as_ref()
                .map(|it| it.name.as_str()),
            self.warmpool.as_deref(),
        )
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
    // What pods accept: printable ASCII but `=`. An empty one has a published reason of its own.
    #[schemars(regex(pattern = r"^[ -<>-~]*$"))]
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> SandboxClaimSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_source_is_read_in_both_styles() {
        let template = |warmth| Some(ClaimSource::Template { name: "t", warmth });
        let pool = |pool| Some(ClaimSource::Pool(pool));
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
