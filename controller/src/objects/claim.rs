//! `SandboxClaim` as kept.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::condition::ConditionWire;
use super::sandbox::PodMetadataWire;
use super::{Conditions, DecodeError, Head, Labels, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;
use crate::json_text::JsonText;
use agent_sandbox_crds::claim::ClaimSource;
use agent_sandbox_crds::{annotations, labels};

/// Where a claim's sandbox comes from.
pub type Source = ClaimSource<Text>;

/// What happens to an expired claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// The claim goes, and with it what it owns.
    Delete,
    /// The claim goes after everything it owns is gone.
    DeleteForeground,
    /// The claim stays and says that it expired; its sandbox goes.
    Retain,
}

/// One entry of `spec.env`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnvEntry {
    /// Variable name.
    #[serde(default)]
    pub name: String,
    /// Literal value.
    #[serde(default)]
    pub value: String,
    /// The container, else the first one.
    pub container_name: Option<String>,
}

/// `status.sandbox`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bound {
    /// The sandbox's name.
    pub name: Option<Text>,
    /// The pod's addresses.
    pub pod_ips: Box<[Text]>,
}

/// The annotations of a claim that are read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClaimAnnotations {
    /// W3C trace context of the client, as JSON.
    pub trace_context: Option<Text>,
    /// When the client asked.
    pub client_requested: Option<Text>,
    /// When an optional webhook saw the claim.
    pub webhook_observed: Option<Text>,
    /// When a controller first saw the claim.
    pub controller_observed: Option<Text>,
    /// When the claim first became Ready.
    pub first_ready: Option<Text>,
    /// The sandbox assigned, written for readers that expect it and never trusted.
    pub sandbox_name: Option<Text>,
}

/// A claim.
#[derive(Clone, Debug)]
pub struct ClaimRow {
    /// Identity.
    pub head: Head,
    /// The `created-by` label.
    pub created_by: Option<Text>,
    /// Annotations.
    pub annotations: Box<ClaimAnnotations>,
    /// Where the sandbox comes from.
    pub source: Source,
    /// `spec.lifecycle.shutdownTime`.
    pub shutdown_time: Option<Timestamp>,
    /// `spec.lifecycle.ttlSecondsAfterFinished`.
    pub ttl_after_finished: Option<SignedDuration>,
    /// `spec.lifecycle.shutdownPolicy`.
    pub expiry: Expiry,
    /// `spec.additionalPodMetadata.labels`.
    pub pod_labels: Arc<Labels>,
    /// `spec.additionalPodMetadata.annotations`.
    pub pod_annotations: Arc<Labels>,
    /// `spec.env`.
    pub env: Box<[EnvEntry]>,
    /// `spec.volumeClaimTemplates` as JSON text.
    pub volume_claim_templates: Option<Text>,
    /// `status.conditions`.
    pub conditions: Conditions,
    /// `status.sandbox`.
    pub bound: Bound,
}

impl ClaimRow {
    /// Whether Ready is True.
    pub fn is_ready(&self) -> bool {
        self.conditions.is_true("Ready")
    }

    /// When the claim expires: at `shutdownTime`, or when its time to live after `Finished` is
    /// over, whichever is first.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let finished = self
            .conditions
            .get("Finished")
            .filter(|condition| condition.status == super::Truth::True);
        let after_finish = finished
            .zip(self.ttl_after_finished)
            .and_then(|(condition, ttl)| condition.since.checked_add(ttl).ok());
        match (self.shutdown_time, after_finish) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Whether the claim asks for something a running sandbox cannot be given.
    pub fn needs_fresh_sandbox(&self) -> bool {
        !self.env.is_empty() || self.volume_claim_templates.is_some()
    }
}

/// The members of a `SandboxClaim` that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct ClaimWire {
    metadata: Metadata,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecWire {
    warm_pool_ref: Option<NameWire>,
    sandbox_template_ref: Option<NameWire>,
    warmpool: Option<String>,
    lifecycle: LifecycleWire,
    additional_pod_metadata: PodMetadataWire,
    env: Vec<EnvEntry>,
    volume_claim_templates: Option<JsonText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NameWire {
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LifecycleWire {
    shutdown_time: Option<Timestamp>,
    shutdown_policy: Option<String>,
    ttl_seconds_after_finished: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StatusWire {
    conditions: Vec<ConditionWire>,
    sandbox: BoundWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BoundWire {
    name: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<String>,
}

impl Row for ClaimRow {
    type Wire = ClaimWire;
    const KIND: &'static str = "SandboxClaim";

    fn from_wire(wire: ClaimWire, interner: &Interner) -> Result<Self, DecodeError> {
        let ClaimWire {
            metadata,
            spec,
            status,
        } = wire;
        let annotation = |key: &str| {
            interner.optional(
                metadata
                    .annotations
                    .as_ref()
                    .and_then(|map| map.get(key))
                    .map(String::as_str),
            )
        };
        let source = ClaimSource::read(
            spec.warm_pool_ref.as_ref().map(|it| it.name.as_str()),
            spec.sandbox_template_ref
                .as_ref()
                .map(|it| it.name.as_str()),
            spec.warmpool.as_deref(),
        )
        .unwrap_or(ClaimSource::Pool(""))
        .map(|name| interner.text(name));
        Ok(Self {
            head: Head::read(Self::KIND, &metadata, interner)?,
            created_by: interner.optional(
                metadata
                    .labels
                    .as_ref()
                    .and_then(|map| map.get(labels::CREATED_BY))
                    .map(String::as_str),
            ),
            annotations: Box::new(ClaimAnnotations {
                trace_context: annotation(annotations::TRACE_CONTEXT),
                client_requested: annotation(annotations::CLIENT_FIRST_REQUESTED_AT),
                webhook_observed: annotation(annotations::WEBHOOK_FIRST_OBSERVED_AT),
                controller_observed: annotation(annotations::CONTROLLER_FIRST_OBSERVED_AT),
                first_ready: annotation(annotations::CLAIM_FIRST_READY_AT),
                sandbox_name: annotation(annotations::SANDBOX_NAME),
            }),
            source,
            shutdown_time: spec.lifecycle.shutdown_time,
            ttl_after_finished: spec
                .lifecycle
                .ttl_seconds_after_finished
                .map(|seconds| SignedDuration::from_secs(i64::from(seconds.max(0)))),
            expiry: match spec.lifecycle.shutdown_policy.as_deref() {
                Some("Delete") => Expiry::Delete,
                Some("DeleteForeground") => Expiry::DeleteForeground,
                _ => Expiry::Retain,
            },
            pod_labels: Labels::read(spec.additional_pod_metadata.labels.as_ref(), interner),
            pod_annotations: Labels::read(
                spec.additional_pod_metadata.annotations.as_ref(),
                interner,
            ),
            env: spec.env.into(),
            volume_claim_templates: spec
                .volume_claim_templates
                .filter(|list| list.as_str() != "[]")
                .map(|list| interner.text(list.as_str())),
            conditions: ConditionWire::read(status.conditions, interner),
            bound: Bound {
                name: interner.optional(status.sandbox.name.as_deref()),
                pod_ips: status
                    .sandbox
                    .pod_ips
                    .iter()
                    .map(|ip| interner.text(ip))
                    .collect(),
            },
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn differs_in_own_status_only(&self, before: &Self) -> bool {
        let Self {
            head,
            created_by,
            annotations,
            source,
            shutdown_time,
            ttl_after_finished,
            expiry,
            pod_labels,
            pod_annotations,
            env,
            volume_claim_templates,
            conditions: _,
            bound: _,
        } = self;
        head.is_unchanged_since(&before.head)
            && *created_by == before.created_by
            && *annotations == before.annotations
            && *source == before.source
            && *shutdown_time == before.shutdown_time
            && *ttl_after_finished == before.ttl_after_finished
            && *expiry == before.expiry
            && *pod_labels == before.pod_labels
            && *pod_annotations == before.pod_annotations
            && *env == before.env
            && *volume_claim_templates == before.volume_claim_templates
    }
}

#[cfg(test)]
mod tests {
    use agent_sandbox_crds::claim::Warmth;
    use serde_json::{Value, json};

    use super::*;

    fn row(spec: &Value, status: &Value) -> ClaimRow {
        let wire = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "resourceVersion": "1"},
            "spec": spec,
            "status": status,
        }))
        .unwrap();
        ClaimRow::from_wire(wire, &Interner::default()).unwrap()
    }

    #[test]
    fn both_styles_of_naming_a_source_are_read() {
        let template = |warmth| Source::Template {
            name: "t".into(),
            warmth,
        };
        for (spec, source) in [
            (
                json!({"warmPoolRef": {"name": "p"}}),
                Source::Pool("p".into()),
            ),
            (
                json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "none"}),
                template(Warmth::Cold),
            ),
            (
                json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "p"}),
                template(Warmth::Pool("p".into())),
            ),
            (json!({}), Source::Pool("".into())),
        ] {
            assert_eq!(row(&spec, &json!({})).source, source, "{spec}");
        }
    }

    #[test]
    fn the_earlier_of_both_expiries_counts() {
        let finished = json!({"conditions": [{
            "type": "Finished", "status": "True", "reason": "PodSucceeded", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        let lifecycle = |shutdown: Option<&str>, ttl: Option<i32>| json!({"lifecycle": {"shutdownTime": shutdown, "ttlSecondsAfterFinished": ttl}});
        for (shutdown, ttl, status, expected) in [
            (None, None, finished.clone(), None),
            (None, Some(30), json!({}), None),
            (
                None,
                Some(30),
                finished.clone(),
                Some("2026-01-01T00:00:30Z"),
            ),
            (
                None,
                Some(0),
                finished.clone(),
                Some("2026-01-01T00:00:00Z"),
            ),
            (
                Some("2026-01-01T00:00:10Z"),
                Some(30),
                finished.clone(),
                Some("2026-01-01T00:00:10Z"),
            ),
            (
                Some("2026-01-02T00:00:00Z"),
                Some(30),
                finished,
                Some("2026-01-01T00:00:30Z"),
            ),
        ] {
            assert_eq!(
                row(&lifecycle(shutdown, ttl), &status).expires_at(),
                expected.map(|text| text.parse().unwrap())
            );
        }
    }

    #[test]
    fn without_a_policy_the_claim_is_retained() {
        assert_eq!(row(&json!({}), &json!({})).expiry, Expiry::Retain);
        let spec = json!({"lifecycle": {"shutdownPolicy": "DeleteForeground"}});
        assert_eq!(row(&spec, &json!({})).expiry, Expiry::DeleteForeground);
    }
}
