//! What to do for a template, as a plain function of what was observed.
//!
//! A policy must be there before the first pod of its template starts and stay until the last one is
//! gone, also when the template itself goes first. It therefore has no owner reference: the operator
//! deletes it when neither template nor sandboxes nor pods need it any more.

use std::sync::Arc;

use agent_sandbox_crds::labels;
use agent_sandbox_crds::template::NetworkPolicyManagement;
use serde_json::{Map, Value, json};

use super::desired;
use crate::config::PolicySettings;
use crate::ident::{Key, Revision, Uid};
use crate::merge;
use crate::objects::{PolicyRow, TemplateRow, normal_form};

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The name in question.
    pub key: Key,
    /// The template of that name.
    pub template: Option<Arc<TemplateRow>>,
    /// The policy of the template's name.
    pub policy: Option<Arc<PolicyRow>>,
    /// Whether a sandbox or a pod carries the template's hash.
    pub used: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Give the template its own hash as a label.
    pub label: Option<Box<Value>>,
    /// What to do about the policy.
    pub policy: PolicyStep,
}

/// What to do about the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PolicyStep {
    /// Nothing.
    #[default]
    None,
    /// Create it.
    Create(Box<Value>),
    /// Bring it in line.
    Patch(Key, Box<Value>),
    /// Delete it.
    Delete(Key, Uid, Revision),
    /// Somebody else's policy has the name; no pod of the template may start.
    Clash(Key),
}

/// Whether the operator keeps a policy for the template.
pub fn is_managed(template: &TemplateRow) -> bool {
    template.spec.network_policy_management != NetworkPolicyManagement::Unmanaged
}

/// Whether `policy` is the operator's for a template of this name and UID. A policy left by an
/// earlier template of the same name counts: its pods may still run.
pub fn is_ours(policy: &PolicyRow, template: &TemplateRow) -> bool {
    policy.belongs_to(template.head.uid)
        || policy
            .template
            .as_ref()
            .is_some_and(|(name, _)| *name == template.head.key.name)
}

/// Decides what to do.
pub fn plan(observed: &Observed, settings: &PolicySettings) -> Plan {
    let Some(template) = &observed.template else {
        return Plan {
            label: None,
            policy: abandoned(observed),
        };
    };
    if template.head.is_deleting() {
        return Plan::default();
    }
    Plan {
        label: label(template),
        policy: if is_managed(template) {
            managed(template, observed.policy.as_deref(), settings)
        } else {
            unmanaged(template, observed.policy.as_deref())
        },
    }
}

fn label(template: &TemplateRow) -> Option<Box<Value>> {
    (!template.labelled).then(|| {
        Box::new(json!({"metadata": {
            "uid": template.head.uid.to_string(),
            "labels": {labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash},
        }}))
    })
}

/// The policy of a template that is gone: kept while anything of the template is left.
fn abandoned(observed: &Observed) -> PolicyStep {
    match &observed.policy {
        Some(policy)
            if !observed.used
                && policy
                    .template
                    .as_ref()
                    .is_some_and(|(name, _)| *name == observed.key.name) =>
        {
            PolicyStep::Delete(
                policy.head.key.clone(),
                policy.head.uid,
                policy.head.revision,
            )
        }
        _ => PolicyStep::None,
    }
}

/// A template whose policy is its author's business. The author could as well have written rules that
/// allow everything, so this takes effect at once.
fn unmanaged(template: &TemplateRow, policy: Option<&PolicyRow>) -> PolicyStep {
    match policy {
        Some(policy) if is_ours(policy, template) && !policy.head.is_deleting() => {
            PolicyStep::Delete(
                policy.head.key.clone(),
                policy.head.uid,
                policy.head.revision,
            )
        }
        _ => PolicyStep::None,
    }
}

fn managed(
    template: &TemplateRow,
    policy: Option<&PolicyRow>,
    settings: &PolicySettings,
) -> PolicyStep {
    let Some(policy) = policy else {
        return PolicyStep::Create(Box::new(desired::policy(template, settings)));
    };
    if policy.head.is_deleting() {
        return PolicyStep::None;
    }
    if !is_ours(policy, template) {
        return PolicyStep::Clash(policy.head.key.clone());
    }
    let mut metadata = Map::new();
    let recorded = policy
        .template
        .as_ref()
        .is_some_and(|(_, uid)| uid.is(template.head.uid));
    if !recorded {
        metadata.insert(
            "annotations".to_owned(),
            desired::policy_annotations(template),
        );
    }
    if policy.head.owner.is_some() {
        // Garbage collection must not take it away with the template.
        metadata.insert("ownerReferences".to_owned(), Value::Null);
    }
    if policy.ref_hash() != Some(&template.ref_hash) {
        metadata.insert(
            "labels".to_owned(),
            json!({labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash}),
        );
    }
    let wanted = normal_form(desired::policy_spec(template, settings));
    let mut patch = Map::new();
    if wanted != *policy.spec {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        if let Some(spec) = merge::diff(&parse(&policy.spec), &parse(&wanted)) {
            patch.insert("spec".to_owned(), spec);
        }
    }
    if metadata.is_empty() && patch.is_empty() {
        return PolicyStep::None;
    }
    metadata.insert("uid".to_owned(), json!(policy.head.uid.to_string()));
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(policy.head.revision.to_string()),
    );
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    PolicyStep::Patch(policy.head.key.clone(), Box::new(Value::Object(patch)))
}
