//! What to do for a template, as a plain function of what was observed.
//!
//! A policy must be there before the first pod of its template starts and stay until the last one is
//! gone, also when the template itself goes first, or becomes Unmanaged. It therefore has no owner
//! reference: the operator deletes it when neither template nor sandboxes nor pods need it any more.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::template::NetworkPolicyManagement;
use agent_sandbox_crds::{hash, labels};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::desired;
use crate::config::PolicySettings;
use crate::ident::{Key, Revision, Text, Uid};
use crate::merge;
use crate::names;
use crate::objects::{PolicyRow, TemplateRow, normal_form};
use crate::store::Rival;

/// How long a policy stays after the last sandbox and pod of its template are gone, when the template is: a
/// pod whose creation was on its way when its sandbox went comes up under the policy still, and lasts
/// until the garbage collector finds it.
pub const LINGER: SignedDuration = SignedDuration::from_secs(30);

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The name in question.
    pub key: Key,
    /// The template of that name.
    pub template: Option<Arc<TemplateRow>>,
    /// The name of the template's policy.
    pub policy_name: String,
    /// The policy of that name, as far as it is watched or the API server told of it.
    pub policy: Option<Arc<PolicyRow>>,
    /// What the API server was asked in this pass.
    pub asked: Asked,
    /// The policy of that name which somebody deleted although pods need it, while the template was gone.
    pub fallen: Option<Arc<PolicyRow>>,
    /// Whether a sandbox or a pod of the template is left.
    pub used: bool,
    /// How long the policy of a template that is gone has been of no use, as far as is known.
    pub idle: SignedDuration,
    /// When the oldest and the newest pod with the template's hash were created.
    pub pods: Option<(Timestamp, Timestamp)>,
    /// Whether a pod runs that was started under the policy.
    pub promised: bool,
    /// Who had the hash of the template's name first.
    pub rival: Option<Rival>,
}

/// What the API server was asked in a pass, because the watches do not tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// Who has the policy's name: only policies that carry a template's hash are watched, so another one may
    /// have it unseen.
    pub name: bool,
    /// Which pods with the template's hash are not watched.
    pub pods: bool,
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
    /// Record in it that it covers no pod that starts from now on, and plan again.
    Mark(Key, Box<Value>),
    /// Ask the API server for pods that the policy covers although they are not watched.
    Search,
    /// Delete it.
    Delete(Key, Uid, Revision),
    /// Look again after this long, to delete it then.
    DeleteLater(Duration),
    /// Ask the API server who has the policy's name.
    LookUp,
    /// Somebody else's policy has the name; no pod of the template may start.
    Clash,
}

/// Whether the operator keeps a policy for the template.
pub fn is_managed(template: &TemplateRow) -> bool {
    template.spec.network_policy_management != NetworkPolicyManagement::Unmanaged
}

/// The policy that pods of the template need, if the operator keeps one for it.
pub fn required_policy(template: &TemplateRow) -> Option<String> {
    is_managed(template).then(|| agent_sandbox_crds::names::network_policy(&template.head.key.name))
}

/// Whether `policy` is the operator's for a template of this name and UID. A policy left by an
/// earlier template of the same name counts: its pods may still run.
pub fn is_ours(policy: &PolicyRow, template: &TemplateRow) -> bool {
    policy.belongs_to(template.head.uid) || is_named_after(policy, &template.head.key.name)
}

/// Whether `policy` is the operator's for a template of this name.
pub fn is_named_after(policy: &PolicyRow, template: &Text) -> bool {
    policy
        .template
        .as_ref()
        .is_some_and(|(name, _)| name == template)
}

/// Whether a pod of the template may start under `policy`. Not before its template's own record is in it and
/// nothing says that it is kept for earlier pods: a deletion may be on its way that was sent while no template
/// wanted it, and only a change of the policy makes that miss.
pub fn protects(policy: &PolicyRow, template: &TemplateRow) -> bool {
    is_recorded(policy, template)
        && policy.kept_for.is_none()
        && !policy.stands_in
        && !policy.head.is_deleting()
}

/// Whether `policy` says that it was made for this very template, or taken over.
fn is_recorded(policy: &PolicyRow, template: &TemplateRow) -> bool {
    let recorded = policy.template.as_ref();
    recorded.is_some_and(|(_, uid)| uid.is(template.head.uid))
}

/// Decides what to do.
pub fn plan(observed: &Observed, settings: &PolicySettings, now: Timestamp) -> Plan {
    let Some(template) = &observed.template else {
        return Plan {
            label: None,
            policy: abandoned(observed, settings),
        };
    };
    if template.head.is_deleting() {
        return Plan::default();
    }
    Plan {
        label: label(template),
        policy: if !is_managed(template) {
            unmanaged(template, observed, now)
        } else if observed.rival.is_some() {
            // Rules of two templates for the same pods add up to what neither allows. What there is
            // already stays, for the pods that started under it.
            PolicyStep::None
        } else {
            managed(template, observed, settings)
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

/// The policy of a template that is gone: kept, and made again when somebody deletes it, while anything of
/// the template is left. Where nothing tells its rules any more, pods that were started under it are shut
/// in until a template of the name says otherwise.
fn abandoned(observed: &Observed, settings: &PolicySettings) -> PolicyStep {
    let Some(policy) = &observed.policy else {
        return match &observed.fallen {
            Some(fallen) if is_wanted(fallen, observed) => {
                PolicyStep::Create(Box::new(desired::policy_again(fallen)))
            }
            _ if observed.promised => {
                PolicyStep::Create(Box::new(desired::stand_in(&observed.key, settings)))
            }
            _ => PolicyStep::None,
        };
    };
    if !is_named_after(policy, &observed.key.name) {
        let fell = observed.fallen.as_deref();
        return if observed.promised || fell.is_some_and(|fallen| is_wanted(fallen, observed)) {
            PolicyStep::Clash
        } else {
            PolicyStep::None
        };
    }
    if policy.head.is_deleting() {
        return PolicyStep::None;
    }
    if !is_wanted(policy, observed) {
        return match Duration::try_from(LINGER - observed.idle) {
            Ok(rest) if policy.kept_for.is_none() && !rest.is_zero() => {
                PolicyStep::DeleteLater(rest)
            }
            _ => delete(policy, observed),
        };
    }
    let ref_hash = hash::name_hash(&observed.key.name);
    let spec = policy
        .stands_in
        .then(|| spec_change(policy, desired::shut_in(&ref_hash, settings)))
        .flatten();
    amend(policy, relabel(policy, &ref_hash), spec)
}

/// Whether anything is left that the policy of a template that is gone was promised to. What keeps a policy
/// and what makes it again must be one question, or the operator undoes its own work.
fn is_wanted(policy: &PolicyRow, observed: &Observed) -> bool {
    match policy.kept_for {
        Some(until) => is_needed(observed, until),
        None => observed.used || observed.promised,
    }
}

/// A template whose policy has become its author's business. Pods that started under the operator's policy
/// were promised it, so it stays until they are gone; a pod that starts later was not. The policy itself
/// records the moment, for want of any other witness that a restart and a deleted template leave alive. It does
/// so before it goes, too: whoever wants it again, before its deletion has arrived, is told to change it first.
fn unmanaged(template: &TemplateRow, observed: &Observed, now: Timestamp) -> PolicyStep {
    let Some(policy) = observed.policy.as_deref() else {
        // One that an older controller made carries no label. There is none is said when it is certain.
        let said = says(template, reason::UNMANAGED);
        return if observed.asked.name || said {
            PolicyStep::None
        } else {
            PolicyStep::LookUp
        };
    };
    if !is_ours(policy, template) || policy.head.is_deleting() {
        return PolicyStep::None;
    }
    match policy.kept_for {
        Some(until) if is_needed(observed, until) => {
            amend(policy, relabel(policy, &template.ref_hash), None)
        }
        Some(_) => delete(policy, observed),
        None => {
            // The API server's clock dates the pods, and may be ahead of ours.
            let until = observed.pods.map_or(now, |(_, newest)| now.max(newest));
            let mut annotations = desired::policy_annotations(template);
            if let Some(members) = annotations.as_object_mut() {
                members.insert(names::POLICY_KEPT_FOR.to_owned(), json!(until.to_string()));
            }
            let mut metadata = relabel(policy, &template.ref_hash);
            metadata.insert("annotations".to_owned(), annotations);
            if policy.head.owner.is_some() {
                metadata.insert("ownerReferences".to_owned(), Value::Null);
            }
            let patch = as_seen(policy, metadata, None);
            PolicyStep::Mark(policy.head.key.clone(), Box::new(patch))
        }
    }
}

/// Whether a pod is left that was created by then, or started under the policy all the same. Pods are dated
/// in whole seconds, rounded down.
fn is_needed(observed: &Observed, until: Timestamp) -> bool {
    observed.promised || observed.pods.is_some_and(|(oldest, _)| oldest <= until)
}

/// Pods are watched by a label that somebody may have taken from one, and the policy covers it still. So what
/// is watched is not enough to say that no pod is left.
fn delete(policy: &PolicyRow, observed: &Observed) -> PolicyStep {
    if !observed.asked.pods {
        return PolicyStep::Search;
    }
    PolicyStep::Delete(
        policy.head.key.clone(),
        policy.head.uid,
        policy.head.revision,
    )
}

/// The label by which a policy is watched, where it is not as it should be.
fn relabel(policy: &PolicyRow, ref_hash: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    if policy.ref_hash().is_none_or(|hash| **hash != *ref_hash) {
        metadata.insert(
            "labels".to_owned(),
            json!({labels::SANDBOX_TEMPLATE_REF_HASH: ref_hash}),
        );
    }
    metadata
}

/// A patch of the policy as it was seen, if there is anything to change.
fn amend(policy: &PolicyRow, metadata: Map<String, Value>, spec: Option<Value>) -> PolicyStep {
    if metadata.is_empty() && spec.is_none() {
        return PolicyStep::None;
    }
    let patch = as_seen(policy, metadata, spec);
    PolicyStep::Patch(policy.head.key.clone(), Box::new(patch))
}

/// A patch of the policy that fails where it has changed.
fn as_seen(policy: &PolicyRow, mut metadata: Map<String, Value>, spec: Option<Value>) -> Value {
    metadata.insert("uid".to_owned(), json!(policy.head.uid.to_string()));
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(policy.head.revision.to_string()),
    );
    let mut patch = Map::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
    patch.extend(spec.map(|spec| ("spec".to_owned(), spec)));
    Value::Object(patch)
}

/// Whether the template's status gives this reason.
fn says(template: &TemplateRow, reason: &str) -> bool {
    let conditions = &template.status.conditions;
    conditions.reason(condition::NETWORK_POLICY_READY) == Some(reason)
}

fn managed(template: &TemplateRow, observed: &Observed, settings: &PolicySettings) -> PolicyStep {
    let Some(policy) = observed.policy.as_deref() else {
        // Who had the name before may still have it. Otherwise the answer to the creation tells.
        return if !observed.asked.name && says(template, reason::CONFLICT) {
            PolicyStep::LookUp
        } else {
            PolicyStep::Create(Box::new(desired::policy(template, settings)))
        };
    };
    if policy.head.is_deleting() {
        return PolicyStep::None;
    }
    if !is_ours(policy, template) {
        return PolicyStep::Clash;
    }
    let mut metadata = relabel(policy, &template.ref_hash);
    if !is_recorded(policy, template) || policy.kept_for.is_some() || policy.stands_in {
        let mut annotations = desired::policy_annotations(template);
        for (is_set, mark) in [
            (policy.kept_for.is_some(), names::POLICY_KEPT_FOR),
            (policy.stands_in, names::POLICY_STANDS_IN),
        ] {
            if let (true, Some(members)) = (is_set, annotations.as_object_mut()) {
                members.insert(mark.to_owned(), Value::Null);
            }
        }
        metadata.insert("annotations".to_owned(), annotations);
    }
    if policy.head.owner.is_some() {
        // Garbage collection must not take it away with the template.
        metadata.insert("ownerReferences".to_owned(), Value::Null);
    }
    let spec = spec_change(policy, desired::policy_spec(template, settings));
    amend(policy, metadata, spec)
}

/// What to change in a policy's spec to make it the one wanted.
fn spec_change(policy: &PolicyRow, wanted: Value) -> Option<Value> {
    let wanted = normal_form(wanted);
    if wanted == *policy.spec {
        return None;
    }
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    merge::diff(&parse(&policy.spec), &parse(&wanted))
}
