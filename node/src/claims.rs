//! Persistent volume claims: bound at once to a directory of this machine, as a dynamic provisioner
//! would, and emptied when they are deleted.
//!
//! [`Plan::of`] is pure. The data of a claim lives in a directory named by its uid, so a later claim
//! of the same name never sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use crate::context::Context;
use crate::events::{Component, Record, Severity};
use crate::state_dir::ClaimData;

/// Who made a volume, in its annotation.
const PROVISIONER: &str = "process-node/directory";

/// Size that a claim without one is said to have.
const DEFAULT_SIZE: &str = "1Gi";

/// How often a deleted claim that is still mounted is looked at.
const IN_USE: Duration = Duration::from_millis(500);

/// First and longest pause before a volume that could not be made is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Binds claims until the order to stop.
pub(crate) async fn run(context: Arc<Context>, keep: ClaimData) {
    let api: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let watch = watcher(api, watcher::Config::default()).default_backoff();
    let stopping = context.stopping.clone();
    let mut events = std::pin::pin!(watch.take_until(async move { stopping.triggered().await }));
    let mut found = BTreeSet::new();
    // Removals and repeated attempts, which wait for others.
    let mut work: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            Some(()) = work.next() => continue,
        };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "watching claims failed");
                continue;
            }
        };
        match event {
            watcher::Event::Init => found.clear(),
            watcher::Event::InitApply(claim) => {
                found.extend(claim.metadata.uid.clone());
                if let Provided::Failed = provide(&context, &claim).await {
                    work.push(Box::pin(provide_again(context.clone(), claim)));
                }
            }
            watcher::Event::InitDone => {
                if keep == ClaimData::Remove {
                    remove_strangers(&context.claims, &found);
                }
            }
            watcher::Event::Apply(claim) => {
                if let Provided::Failed = provide(&context, &claim).await {
                    work.push(Box::pin(provide_again(context.clone(), claim)));
                }
            }
            watcher::Event::Delete(claim) => work.push(Box::pin(remove(context.clone(), claim))),
        }
    }
}

/// What is to be written for a claim.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    namespace: String,
    name: String,
    uid: String,
    size: Quantity,
    access_modes: Vec<String>,
    storage_class: Option<String>,
}

/// Why nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Bound, leaving, or somebody else's.
    Silently,
    /// Its owner should know.
    Saying(&'static str),
}

impl Plan {
    fn of(claim: &PersistentVolumeClaim) -> Result<Self, Pass> {
        let meta = &claim.metadata;
        let spec = claim.spec.clone().unwrap_or_default();
        let phase = claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let named = spec
            .volume_name
            .as_deref()
            .is_some_and(|name| !name.is_empty());
        let own = |uid: &String| spec.volume_name.as_deref() == Some(volume_name(uid).as_str());
        let (Some(namespace), Some(name), Some(uid)) = (&meta.namespace, &meta.name, &meta.uid)
        else {
            return Err(Pass::Silently);
        };
        if meta.deletion_timestamp.is_some() || phase == Some("Bound") {
            return Err(Pass::Silently);
        }
        // An empty class asks for a volume that exists already; so does a name or a selector.
        if spec.storage_class_name.as_deref() == Some("")
            || spec.selector.is_some()
            || (named && !own(uid))
        {
            return Err(Pass::Silently);
        }
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err(Pass::Saying(
                "volumeMode Block is not possible on this node; use Filesystem",
            ));
        }
        let requests = spec.resources.and_then(|resources| resources.requests);
        let size = requests.and_then(|requests| requests.get("storage").cloned());
        Ok(Self {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            size: size.unwrap_or_else(|| Quantity(DEFAULT_SIZE.into())),
            access_modes: spec
                .access_modes
                .unwrap_or_else(|| vec!["ReadWriteOnce".into()]),
            storage_class: spec.storage_class_name,
        })
    }

    fn volume(&self, directory: &Path) -> PersistentVolume {
        let annotation = (
            "pv.kubernetes.io/provisioned-by".to_owned(),
            PROVISIONER.to_owned(),
        );
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(volume_name(&self.uid)),
                annotations: Some([annotation].into()),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: Some(self.access_modes.clone()),
                capacity: Some(self.capacity()),
                claim_ref: Some(ObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("PersistentVolumeClaim".into()),
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.name.clone()),
                    uid: Some(self.uid.clone()),
                    ..ObjectReference::default()
                }),
                host_path: Some(HostPathVolumeSource {
                    path: directory.join(&self.uid).display().to_string(),
                    type_: Some("DirectoryOrCreate".into()),
                }),
                persistent_volume_reclaim_policy: Some("Delete".into()),
                storage_class_name: self.storage_class.clone(),
                volume_mode: Some("Filesystem".into()),
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        }
    }

    fn capacity(&self) -> BTreeMap<String, Quantity> {
        [("storage".to_owned(), self.size.clone())].into()
    }
}

fn volume_name(uid: &str) -> String {
    format!("pvc-{uid}")
}

/// What came of providing for a claim.
enum Provided {
    /// Nothing more is to be done.
    Settled,
    /// Worth another attempt.
    Failed,
}

/// Tries until a claim has its volume or needs none any more.
async fn provide_again(context: Arc<Context>, claim: PersistentVolumeClaim) {
    let (Some(namespace), Some(name)) = (&claim.metadata.namespace, &claim.metadata.name) else {
        return;
    };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let mut pause = RETRY.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
        match api.get_opt(name).await {
            // A successor of the same name has an attempt of its own.
            Ok(found) => {
                let same = found.filter(|found| found.metadata.uid == claim.metadata.uid);
                let Some(claim) = same else { return };
                if let Provided::Settled = provide(&context, &claim).await {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, claim = name, "reading a claim failed"),
        }
    }
}

/// Binds a claim that waits for it.
async fn provide(context: &Context, claim: &PersistentVolumeClaim) -> Provided {
    let plan = match Plan::of(claim) {
        Ok(plan) => plan,
        Err(Pass::Silently) => return Provided::Settled,
        Err(Pass::Saying(why)) => {
            let warning = Severity::Warning;
            record(
                context,
                claim,
                warning,
                "ProvisioningFailed",
                why.to_owned(),
            );
            return Provided::Settled;
        }
    };
    match bind(context, &plan).await {
        Ok(()) => {
            let message = format!("Successfully provisioned volume {}", volume_name(&plan.uid));
            let normal = Severity::Normal;
            record(context, claim, normal, "ProvisioningSucceeded", message);
            Provided::Settled
        }
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Provided::Settled,
        Err(error) => {
            let warning = Severity::Warning;
            record(
                context,
                claim,
                warning,
                "ProvisioningFailed",
                error.to_string(),
            );
            Provided::Failed
        }
    }
}

async fn bind(context: &Context, plan: &Plan) -> kube::Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = plan.volume(&context.claims);
    let name = volume_name(&plan.uid);
    match volumes.create(&PostParams::default(), &volume).await {
        Ok(_) => {}
        // Made by an earlier attempt.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let params = PatchParams::default();
    let bound = json!({"status": {"phase": "Bound"}});
    volumes
        .patch_status(&name, &params, &Patch::Merge(bound))
        .await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), &plan.namespace);
    let spec = json!({
        "metadata": {"uid": plan.uid, "annotations": {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
            "volume.kubernetes.io/storage-provisioner": PROVISIONER,
        }},
        "spec": {"volumeName": name},
    });
    claims
        .patch(&plan.name, &params, &Patch::Merge(spec))
        .await?;
    let status = json!({
        "metadata": {"uid": plan.uid},
        "status": {
            "phase": "Bound",
            "accessModes": plan.access_modes,
            "capacity": plan.capacity(),
        },
    });
    claims
        .patch_status(&plan.name, &params, &Patch::Merge(status))
        .await?;
    Ok(())
}

/// Removes the volume and the data of a claim that is gone, once no pod has it mounted.
async fn remove(context: Arc<Context>, claim: PersistentVolumeClaim) {
    let (Some(uid), Some(namespace), Some(name)) = (
        claim.metadata.uid,
        claim.metadata.namespace,
        claim.metadata.name,
    ) else {
        return;
    };
    while is_mounted(&context, &namespace, &name) {
        tokio::time::sleep(IN_USE).await;
    }
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    match volumes
        .delete(&volume_name(&uid), &DeleteParams::default())
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => tracing::warn!(%error, claim = name, "deleting a volume failed"),
    }
    let directory = context.claims.join(&uid);
    let removed =
        tokio::task::spawn_blocking(move || crate::state_dir::remove_tree(&directory)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, claim = name, "removing the data of a claim failed");
    }
}

fn is_mounted(context: &Context, namespace: &str, name: &str) -> bool {
    context.roster.pods().iter().any(|pod| {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let mounted = volumes.into_iter().flatten().any(|volume| {
            let claim = volume.persistent_volume_claim.as_ref();
            claim.is_some_and(|claim| claim.claim_name == name)
        });
        mounted && pod.metadata.namespace.as_deref() == Some(namespace)
    })
}

/// Removes data of claims that do not exist, left by a node that did not stop cleanly.
fn remove_strangers(directory: &Path, known: &BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| known.contains(name)) {
            continue;
        }
        if let Err(error) = crate::state_dir::remove_tree(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "removing old data failed");
        }
    }
}

fn record(
    context: &Context,
    claim: &PersistentVolumeClaim,
    severity: Severity,
    reason: &'static str,
    message: String,
) {
    let meta = &claim.metadata;
    context.recorder.record(Record {
        about: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        },
        component: Component::VolumeController,
        severity,
        reason,
        message,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn claim(edit: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {"namespace": "ns", "name": "c", "uid": "u"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "fast",
                "resources": {"requests": {"storage": "5Gi"}},
            },
            "status": {"phase": "Pending"},
        });
        edit(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_waiting_claim_gets_a_volume_of_its_size() {
        let plan = Plan::of(&claim(|_| {})).unwrap();
        let volume = serde_json::to_value(plan.volume(Path::new("/state/claims"))).unwrap();
        assert_eq!(volume["metadata"]["name"], "pvc-u");
        let spec = &volume["spec"];
        assert_eq!(spec["capacity"]["storage"], "5Gi");
        assert_eq!(spec["accessModes"], json!(["ReadWriteMany"]));
        assert_eq!(spec["claimRef"]["uid"], "u");
        assert_eq!(spec["hostPath"]["path"], "/state/claims/u");
        assert_eq!(spec["storageClassName"], "fast");
        // An attempt that was interrupted is taken up again.
        let again = claim(|value| value["spec"]["volumeName"] = json!("pvc-u"));
        assert!(Plan::of(&again).is_ok());
        let small = claim(|value| value["spec"]["resources"] = json!({}));
        assert_eq!(Plan::of(&small).unwrap().size.0, DEFAULT_SIZE);
    }

    #[test]
    fn claims_of_others_are_left_alone() {
        let deleted = json!("2026-01-01T00:00:00Z");
        for claim in [
            claim(|value| value["status"]["phase"] = json!("Bound")),
            claim(|value| value["metadata"]["deletionTimestamp"] = deleted),
            claim(|value| value["spec"]["storageClassName"] = json!("")),
            claim(|value| value["spec"]["volumeName"] = json!("mine")),
            claim(|value| value["spec"]["selector"] = json!({"matchLabels": {"a": "b"}})),
        ] {
            assert_eq!(Plan::of(&claim), Err(Pass::Silently));
        }
        let block = claim(|value| value["spec"]["volumeMode"] = json!("Block"));
        assert!(matches!(Plan::of(&block), Err(Pass::Saying(why)) if why.contains("Block")));
    }

    #[test]
    fn only_data_without_a_claim_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        for uid in ["known", "stranger"] {
            std::fs::create_dir(directory.path().join(uid)).unwrap();
        }
        remove_strangers(directory.path(), &["known".to_owned()].into());
        assert!(directory.path().join("known").exists());
        assert!(!directory.path().join("stranger").exists());
    }
}
