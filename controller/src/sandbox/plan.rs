//! What to do for a sandbox, as a plain function of what was observed: no clock, no calls. Steps are
//! independent (a volume that cannot be had does not keep the Service from being repaired), and every
//! refusal is a step too, so that it ends up in the status.

use std::sync::Arc;

use agent_sandbox_crds::condition::{self, reason};
use agent_sandbox_crds::{annotations, labels, names};
use jiff::Timestamp;
use serde_json::Value;

use super::desired;
use super::policy::Policy;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::objects::{
    Head, Labels, Mode, OwnerKind, PodRow, SandboxRow, ServiceRow, ShutdownPolicy, Truth,
    VolumeClaimRow,
};

/// Everything a plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The sandbox.
    pub sandbox: Arc<SandboxRow>,
    /// The pods it controls.
    pub pods: Vec<Arc<PodRow>>,
    /// Who holds the pod's name, when the sandbox controls no pod.
    pub pod_name: Holder<PodRow>,
    /// Who holds the Service's name.
    pub service: Holder<ServiceRow>,
    /// Who holds the volume claims' names, by claim name.
    pub volume_claims: Vec<(String, Holder<VolumeClaimRow>)>,
    /// The network policy that must exist before a pod starts.
    pub policy: Policy,
    /// What the API server refused for good at this generation.
    pub rejected: Rejected,
}

/// Who holds a name.
#[derive(Clone, Debug)]
pub enum Holder<R> {
    /// Nobody that is watched; somebody who is not may still.
    Unseen,
    /// Nobody: the API server said so.
    Nobody,
    /// This object.
    Held(Arc<R>),
}

impl<R> Holder<R> {
    /// The object, if there is one.
    pub fn held(&self) -> Option<&Arc<R>> {
        match self {
            Self::Held(row) => Some(row),
            Self::Unseen | Self::Nobody => None,
        }
    }
}

/// Children the API server refused as invalid. They are not tried again before the sandbox changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rejected {
    /// The pod.
    pub pod: Option<Fault>,
    /// The Service.
    pub service: Option<Fault>,
    /// The volume claims.
    pub volumes: Option<Fault>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Nothing: the sandbox is being deleted and garbage collection does the rest.
    Leave,
    /// Say that the sandbox expired, before anything is taken down.
    MarkExpired,
    /// Find out whether an expired sandbox has a pod that the watch does not show.
    LookUp(Key),
    /// Take down an expired sandbox.
    TearDown(TearDown),
    /// Bring the children in line.
    Converge(Converge),
}

/// Taking down an expired sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TearDown {
    /// Pods to delete.
    pub pods: Vec<(Key, Uid)>,
    /// The Service to delete.
    pub service: Option<(Key, Uid)>,
    /// Delete the sandbox itself.
    pub sandbox: bool,
}

/// The steps of a normal pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converge {
    /// At most one step per volume claim.
    pub volumes: Vec<VolumeStep>,
    /// The step for the pod.
    pub pod: PodStep,
    /// The step for the Service.
    pub service: ServiceStep,
    /// The Service is to select by a label that the pod is only now given: it follows the pod, so that
    /// its endpoint does not vanish while the pod's step waits or fails.
    pub service_follows_pod: bool,
    /// Remove the annotation that tracked a pod of another name.
    pub forget_pod_name: bool,
}

impl Converge {
    /// Whether everything is as it should be.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What to do about the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PodStep {
    /// Nothing.
    #[default]
    None,
    /// Create it.
    Create(Box<Value>),
    /// Find out who holds this name.
    LookUp(Key),
    /// Bring its metadata in line, or take it over.
    Patch {
        /// The pod.
        key: Key,
        /// The patch.
        patch: Box<Value>,
        /// Whether this takes the pod over.
        adopts: bool,
    },
    /// Delete it.
    Delete(Key, Uid),
    /// Wait for the network policy.
    AwaitPolicy,
    /// Wait for the volume claims: one of them is somebody else's, and a pod would mount it.
    AwaitVolumes,
    /// Somebody else's pod has the name and keeps the sandbox from being suspended. Nobody tells when it
    /// goes, so it is looked at again by time.
    Blocked,
    /// More than one pod: touch nothing.
    Multiple(usize),
    /// Not possible.
    Fail(Fault),
}

/// What to do about the Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ServiceStep {
    /// Nothing.
    #[default]
    None,
    /// Create it.
    Create(Box<Value>),
    /// Repair it, or take it over.
    Patch(Key, Box<Value>),
    /// Delete it.
    Delete(Key, Uid),
    /// Not possible.
    Fail(Fault),
}

/// What to do about one volume claim.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeStep {
    /// Create it.
    Create(Key, Box<Value>),
    /// Take it over.
    Adopt(Key, Box<Value>),
    /// Give it up, so that it outlives the sandbox.
    Release(Key, Box<Value>),
    /// Not possible.
    Fail(Fault),
}

/// Whether `shutdownTime` has come.
pub fn is_expired(row: &SandboxRow, now: Timestamp) -> bool {
    row.shutdown_time.is_some_and(|at| now >= at)
}

/// Whether the status already says that the sandbox expired.
pub fn is_marked_expired(row: &SandboxRow) -> bool {
    row.status.conditions.reason(condition::READY) == Some(reason::SANDBOX_EXPIRED)
}

/// Decides what to do.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let row = &*observed.sandbox;
    if row.head.is_deleting() {
        return Plan::Leave;
    }
    if is_expired(row, now) {
        return match hidden_pod(observed) {
            _ if !is_marked_expired(row) => Plan::MarkExpired,
            Some(name) => Plan::LookUp(name),
            None => Plan::TearDown(tear_down(observed)),
        };
    }
    if observed.pods.len() > 1 {
        return Plan::Converge(Converge {
            volumes: volumes(observed),
            pod: PodStep::Multiple(observed.pods.len()),
            ..Converge::default()
        });
    }
    let volumes = volumes(observed);
    let mut pod = match row.mode {
        Mode::Running => running_pod(observed),
        Mode::Suspended => suspended_pod(observed),
    };
    if matches!(pod, PodStep::Create(_)) && some_volume_is_not_ours(observed) {
        pod = PodStep::AwaitVolumes;
    }
    if !matches!(pod, PodStep::Create(_)) && lost_sight_of_pod(observed) {
        pod = PodStep::LookUp(tracked_pod(row));
    }
    let service_follows_pod = matches!(pod, PodStep::Patch { .. })
        && observed
            .pods
            .iter()
            .any(|pod| !desired::is_selected(row, &pod.labels));
    Plan::Converge(Converge {
        volumes,
        forget_pod_name: forget_pod_name(observed),
        pod,
        service: service(observed),
        service_follows_pod,
    })
}

/// Whether the sandbox is known to have had a pod, and none is seen. Somebody may have taken the label from it
/// by which it is watched; where one is created instead, the answer tells.
fn lost_sight_of_pod(observed: &Observed) -> bool {
    observed.pods.is_empty()
        && observed.sandbox.status.has_pod()
        && matches!(observed.pod_name, Holder::Unseen)
}

/// The name under which a sandbox that is kept may still have a pod although none is known: one without the
/// label that the watch selects by. Nothing else would ever delete it.
fn hidden_pod(observed: &Observed) -> Option<Key> {
    let row = &*observed.sandbox;
    let may_be = observed.pods.is_empty()
        && !row.status.is_bare()
        && row.shutdown_policy == ShutdownPolicy::Retain
        && matches!(observed.pod_name, Holder::Unseen);
    may_be.then(|| tracked_pod(row))
}

fn tear_down(observed: &Observed) -> TearDown {
    let row = &*observed.sandbox;
    let hidden = observed.pod_name.held();
    let hidden = hidden.filter(|pod| pod.head.is_controlled_by(row.head.uid));
    let hidden = hidden.filter(|_| observed.pods.is_empty());
    TearDown {
        pods: observed
            .pods
            .iter()
            .chain(hidden)
            .filter(|pod| !pod.head.is_deleting())
            .map(|pod| (pod.head.key.clone(), pod.head.uid))
            .collect(),
        service: observed
            .service
            .held()
            .filter(|service| {
                service.head.is_controlled_by(row.head.uid) && !service.head.is_deleting()
            })
            .map(|service| (service.head.key.clone(), service.head.uid)),
        sandbox: row.shutdown_policy == ShutdownPolicy::Delete,
    }
}

/// The pod's key: its name is the sandbox's unless an older controller recorded another one.
pub fn tracked_pod(row: &SandboxRow) -> Key {
    let tracked = row
        .annotations
        .get(annotations::POD_NAME)
        .filter(|name| !name.is_empty());
    row.head
        .key
        .sibling(tracked.unwrap_or(&row.head.key.name).clone())
}

/// The annotation is of no more use when the pod it names is gone, is somebody else's, or when the
/// sandbox controls another pod.
fn forget_pod_name(observed: &Observed) -> bool {
    let row = &*observed.sandbox;
    if !row.annotations.contains(annotations::POD_NAME) {
        return false;
    }
    if let Some(pod) = observed.pods.first() {
        return tracked_pod(row) != pod.head.key;
    }
    match &observed.pod_name {
        Holder::Unseen => false,
        Holder::Nobody => true,
        Holder::Held(pod) => row.mode == Mode::Suspended || pod.head.owner.is_some(),
    }
}

fn running_pod(observed: &Observed) -> PodStep {
    let row = &*observed.sandbox;
    if let Some(pod) = observed.pods.first() {
        return if pod.head.is_deleting() {
            // The replacement is created once this one is gone.
            PodStep::None
        } else {
            patch_pod(row, pod, false)
        };
    }
    match &observed.pod_name {
        Holder::Held(pod) => take_over_pod(row, pod),
        Holder::Unseen if tracked_pod(row) != row.head.key => PodStep::LookUp(tracked_pod(row)),
        Holder::Unseen | Holder::Nobody => create_pod(observed),
    }
}

fn create_pod(observed: &Observed) -> PodStep {
    if let Some(fault) = &observed.rejected.pod {
        return PodStep::Fail(fault.clone());
    }
    let policy = match observed.policy.to_start_under() {
        Ok(policy) => policy,
        Err(step) => return step,
    };
    match desired::pod(&observed.sandbox, policy) {
        Ok(pod) => PodStep::Create(Box::new(pod)),
        Err(fault) => PodStep::Fail(fault),
    }
}

fn take_over_pod(row: &SandboxRow, pod: &PodRow) -> PodStep {
    if let Some(fault) = not_ours("pod", row, &pod.head, &pod.labels) {
        return PodStep::Fail(fault);
    }
    if pod.head.is_deleting() {
        return PodStep::Fail(Fault::Refused(format!(
            "pod {:?} is being deleted; waiting for its name",
            &*pod.head.key.name
        )));
    }
    patch_pod(row, pod, true)
}

fn patch_pod(row: &SandboxRow, pod: &PodRow, adopts: bool) -> PodStep {
    match desired::pod_patch(row, pod, adopts) {
        Some(patch) => PodStep::Patch {
            key: pod.head.key.clone(),
            patch: Box::new(patch),
            adopts,
        },
        None => PodStep::None,
    }
}

fn suspended_pod(observed: &Observed) -> PodStep {
    let row = &*observed.sandbox;
    if let Some(pod) = observed.pods.first() {
        return if pod.head.is_deleting() {
            PodStep::None
        } else {
            PodStep::Delete(pod.head.key.clone(), pod.head.uid)
        };
    }
    // A pod of this name that is not ours keeps the sandbox from being suspended, and such a pod need
    // not carry the label that the watch selects by. Once confirmed, the answer is not asked again.
    let confirmed = row
        .status
        .conditions
        .get(condition::SUSPENDED)
        .is_some_and(|it| {
            it.status == Truth::True && it.observed_generation == row.head.generation
        });
    match &observed.pod_name {
        Holder::Unseen if !confirmed => PodStep::LookUp(tracked_pod(row)),
        // Ours, but without the label by which it would be watched: given that, it is deleted.
        Holder::Held(pod) if pod.head.is_controlled_by(row.head.uid) => patch_pod(row, pod, true),
        Holder::Held(_) => PodStep::Blocked,
        Holder::Unseen | Holder::Nobody => PodStep::None,
    }
}

/// Why an object of the right name may not be touched; `None` when it may.
fn not_ours(what: &str, row: &SandboxRow, head: &Head, found: &Labels) -> Option<Fault> {
    let name = &*head.key.name;
    let sandbox = &*row.head.key.name;
    if head.is_controlled_by(row.head.uid) {
        return None;
    }
    if let Some(owner) = &head.owner {
        return Some(Fault::Refused(format!(
            "{what} {name:?} is owned by {}/{} (UID: {}), not by sandbox {sandbox:?}",
            owner.kind_name, owner.name, owner.uid
        )));
    }
    if desired::is_adoptable(row, found) {
        return None;
    }
    Some(Fault::Refused(format!(
        "cannot adopt unowned {what} {name:?} for sandbox {sandbox:?}: it carries neither the label {}=true nor {}={}",
        labels::ADOPTABLE,
        labels::SANDBOX_NAME_HASH,
        desired::name_hash(row),
    )))
}

fn volumes(observed: &Observed) -> Vec<VolumeStep> {
    let row = &*observed.sandbox;
    let templates = match desired::volume_claim_templates(row) {
        Ok(templates) => templates,
        Err(fault) => return vec![VolumeStep::Fail(fault)],
    };
    let mut steps = Vec::new();
    for template in &templates {
        let name = names::volume_claim(template.name(), &row.head.key.name);
        let key = row.head.key.sibling(name.as_str());
        let holder = observed
            .volume_claims
            .iter()
            .find(|(known, _)| *known == name)
            .and_then(|(_, holder)| holder.held());
        let Some(claim) = holder else {
            steps.push(match &observed.rejected.volumes {
                Some(fault) => VolumeStep::Fail(fault.clone()),
                None => VolumeStep::Create(key, Box::new(desired::volume_claim(row, template))),
            });
            continue;
        };
        // It goes with the sandbox when the sandbox owns it, and outlives it when nobody does.
        let is_owned = claim.head.is_controlled_by(row.head.uid);
        let retains = row.retains_volumes();
        match not_our_volume(row, template.name(), claim) {
            Some(fault) => steps.push(VolumeStep::Fail(fault)),
            None if is_owned && retains => steps.push(release_volume(claim)),
            None if !is_owned && !retains => steps.push(VolumeStep::Adopt(
                key,
                Box::new(desired::volume_claim_adoption(row, &claim.head)),
            )),
            None => {}
        }
    }
    steps
}

/// Frees a volume claim that is to outlive its sandbox. Owners beside the sandbox are not ours to drop.
fn release_volume(claim: &VolumeClaimRow) -> VolumeStep {
    if claim.owners > 1 {
        return VolumeStep::Fail(Fault::Refused(format!(
            "cannot retain PersistentVolumeClaim {:?}: it has owners beside the sandbox; remove the sandbox's owner reference by hand",
            &*claim.head.key.name
        )));
    }
    VolumeStep::Release(
        claim.head.key.clone(),
        Box::new(desired::volume_claim_release(&claim.head)),
    )
}

/// Why a volume claim of the right name may not be used; `None` when it may.
fn not_our_volume(row: &SandboxRow, template: &str, claim: &VolumeClaimRow) -> Option<Fault> {
    // Claims are named after a template and a sandbox, and `a-b` of `c` is called what `a` of `b-c` is.
    // Nothing but another name for either helps.
    if let Some(owner) = &claim.head.owner
        && owner.kind == OwnerKind::Sandbox
        && owner.name != row.head.key.name
    {
        return Some(Fault::Invalid(format!(
            "spec.volumeClaimTemplates: {template:?} of sandbox {:?} would be PersistentVolumeClaim {:?}, which belongs to sandbox {:?}; rename the template or the sandbox",
            &*row.head.key.name, &*claim.head.key.name, &*owner.name
        )));
    }
    not_ours("PersistentVolumeClaim", row, &claim.head, &claim.labels)
}

/// Whether a name of a volume claim is held by an object that may not be used.
fn some_volume_is_not_ours(observed: &Observed) -> bool {
    let row = &*observed.sandbox;
    observed.volume_claims.iter().any(|(_, holder)| {
        holder.held().is_some_and(|claim| {
            not_ours("PersistentVolumeClaim", row, &claim.head, &claim.labels).is_some()
        })
    })
}

fn service(observed: &Observed) -> ServiceStep {
    let row = &*observed.sandbox;
    let Some(found) = observed.service.held() else {
        return match (row.service, &observed.rejected.service) {
            (Some(true), Some(fault)) => ServiceStep::Fail(fault.clone()),
            (Some(true), None) => ServiceStep::Create(Box::new(desired::service(row))),
            _ => ServiceStep::None,
        };
    };
    if found.head.is_deleting() {
        return ServiceStep::None;
    }
    let key = found.head.key.clone();
    if found.head.is_controlled_by(row.head.uid) {
        return match row.service {
            Some(false) => ServiceStep::Delete(key, found.head.uid),
            _ => patch_service(row, found, false),
        };
    }
    let ignored = row.service == Some(false) || row.service.is_none() && found.head.owner.is_none();
    if ignored {
        return ServiceStep::None;
    }
    if let Some(fault) = not_ours("Service", row, &found.head, &found.labels) {
        return ServiceStep::Fail(fault);
    }
    if !found.headless {
        return ServiceStep::Fail(Fault::Refused(format!(
            "cannot adopt Service {:?}: it has a cluster IP, and a sandbox's Service is headless",
            &*key.name
        )));
    }
    patch_service(row, found, true)
}

fn patch_service(row: &SandboxRow, found: &ServiceRow, adopts: bool) -> ServiceStep {
    desired::service_patch(row, found, adopts).map_or(ServiceStep::None, |patch| {
        ServiceStep::Patch(found.head.key.clone(), Box::new(patch))
    })
}
