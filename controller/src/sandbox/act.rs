//! The only file of this kind that writes. Each function makes one call, tells the store what came of
//! it, and turns a failure into a [`Fault`].

use serde_json::{Value, json};

use super::plan::Holder;
use crate::api::{
    self, ApiError, Delete, Deleted, Fields, PODS, Part, Resource, SANDBOXES, SERVICES,
    VOLUME_CLAIMS,
};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::intern::Interner;
use crate::objects::{PodRow, Row, SandboxRow, ServiceRow, VolumeClaimRow};
use crate::store::{Stored, Work};

/// What became of an attempt to create a child.
#[derive(Debug)]
pub enum Created<R> {
    /// It exists now.
    Done,
    /// Its name was taken; this is who holds it.
    Taken(Holder<R>),
}

/// Creates the sandbox's pod, with strict field validation: a misspelt field in a pod template is the
/// user's to learn about, not ours to drop.
pub async fn create_pod(
    cx: &Context,
    by: &Work,
    key: &Key,
    pod: &Value,
) -> Result<Created<PodRow>, Fault> {
    create::<PodRow>(cx, by, &PODS, key, pod).await
}

/// Creates the sandbox's Service.
pub async fn create_service(
    cx: &Context,
    by: &Work,
    key: &Key,
    service: &Value,
) -> Result<Created<ServiceRow>, Fault> {
    create::<ServiceRow>(cx, by, &SERVICES, key, service).await
}

/// Creates one of the sandbox's volume claims.
pub async fn create_volume_claim(
    cx: &Context,
    by: &Work,
    key: &Key,
    claim: &Value,
) -> Result<Created<VolumeClaimRow>, Fault> {
    create::<VolumeClaimRow>(cx, by, &VOLUME_CLAIMS, key, claim).await
}

async fn create<R: Stored>(
    cx: &Context,
    by: &Work,
    resource: &'static Resource,
    key: &Key,
    object: &Value,
) -> Result<Created<R>, Fault> {
    let doing = || format!("creating {} {:?}", resource.kind, &*key.name);
    match cx
        .api
        .create::<R::Wire>(resource, &key.namespace, object, Fields::Strict)
        .await
    {
        Ok(wire) => {
            assume::<R>(cx, by, wire);
            Ok(Created::Done)
        }
        Err(ApiError::AlreadyExists(_)) => {
            look_up::<R>(cx, resource, key).await.map(Created::Taken)
        }
        Err(error) => Err(Fault::of(&doing(), &error)),
    }
}

/// Asks the API server who holds a pod's name. The answer is not stored: the pod may be one that the
/// watch does not select, and would then never be updated.
pub async fn look_up_pod(cx: &Context, key: &Key) -> Result<Holder<PodRow>, Fault> {
    look_up::<PodRow>(cx, &PODS, key).await
}

async fn look_up<R: Row>(
    cx: &Context,
    resource: &'static Resource,
    key: &Key,
) -> Result<Holder<R>, Fault> {
    let doing = format!("reading {} {:?}", resource.kind, &*key.name);
    match cx.api.get::<R::Wire>(resource, key).await {
        Ok(None) => Ok(Holder::Nobody),
        Ok(Some(wire)) => {
            decode::<R>(wire, cx.store.interner()).map(|row| Holder::Held(std::sync::Arc::new(row)))
        }
        Err(error) => Err(Fault::of(&doing, &error)),
    }
}

fn decode<R: Row>(wire: R::Wire, interner: &Interner) -> Result<R, Fault> {
    R::from_wire(wire, interner).map_err(|error| Fault::Transient {
        message: error.to_string(),
        retry_after: None,
    })
}

/// Patches a pod.
pub async fn patch_pod(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    patch_child::<PodRow>(cx, by, &PODS, key, patch).await
}

/// Patches a Service.
pub async fn patch_service(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    patch_child::<ServiceRow>(cx, by, &SERVICES, key, patch).await
}

/// Takes a volume claim over.
pub async fn adopt_volume_claim(
    cx: &Context,
    by: &Work,
    key: &Key,
    patch: &Value,
) -> Result<(), Fault> {
    patch_child::<VolumeClaimRow>(cx, by, &VOLUME_CLAIMS, key, patch).await
}

async fn patch_child<R: Stored>(
    cx: &Context,
    by: &Work,
    resource: &'static Resource,
    key: &Key,
    patch: &Value,
) -> Result<(), Fault> {
    match cx
        .api
        .patch::<R::Wire>(resource, key, Part::Object, patch)
        .await
    {
        Ok(wire) => {
            assume::<R>(cx, by, wire);
            Ok(())
        }
        // It is gone or replaced; the watch brings the news and with it the next pass.
        Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(Fault::of(
            &format!("updating {} {:?}", resource.kind, &*key.name),
            &error,
        )),
    }
}

/// Deletes a pod, gracefully.
pub async fn delete_pod(cx: &Context, by: &Work, key: &Key, uid: Uid) -> Result<(), Fault> {
    delete::<PodRow>(cx, by, &PODS, key, Delete::of(uid)).await
}

/// Deletes a Service.
pub async fn delete_service(cx: &Context, by: &Work, key: &Key, uid: Uid) -> Result<(), Fault> {
    delete::<ServiceRow>(cx, by, &SERVICES, key, Delete::of(uid)).await
}

/// Deletes an expired sandbox, provided it is still as it was when it was found expired.
pub async fn delete_sandbox(cx: &Context, by: &Work, row: &SandboxRow) -> Result<(), Fault> {
    let delete_as_seen = Delete::as_seen(row.head.uid, row.head.revision);
    delete::<SandboxRow>(cx, by, &SANDBOXES, &row.head.key, delete_as_seen).await
}

async fn delete<R: Stored>(
    cx: &Context,
    by: &Work,
    resource: &'static Resource,
    key: &Key,
    delete: Delete,
) -> Result<(), Fault> {
    match cx.api.delete::<R::Wire>(resource, key, delete).await {
        Ok(Deleted::Gone) => {
            cx.store.assume_deleted::<R>(key, delete.uid, Some(by));
            Ok(())
        }
        Ok(Deleted::Pending(wire)) => {
            assume::<R>(cx, by, *wire);
            Ok(())
        }
        Err(error) => Err(Fault::of(
            &format!("deleting {} {:?}", resource.kind, &*key.name),
            &error,
        )),
    }
}

/// Removes the annotation that tracked a pod of another name.
pub async fn forget_pod_name(cx: &Context, by: &Work, row: &SandboxRow) -> Result<(), Fault> {
    let patch = json!({"metadata": {
        "uid": row.head.uid.to_string(),
        "annotations": {agent_sandbox_crds::annotations::POD_NAME: null},
    }});
    patch_child::<SandboxRow>(cx, by, &SANDBOXES, &row.head.key, &patch).await
}

/// Writes the status. A sandbox that is gone needs none.
pub async fn publish(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    let answer: api::Result<<SandboxRow as Row>::Wire> =
        cx.api.patch(&SANDBOXES, key, Part::Status, patch).await;
    match answer {
        Ok(wire) => {
            assume::<SandboxRow>(cx, by, wire);
            Ok(())
        }
        Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(Fault::of(
            &format!("writing the status of Sandbox {:?}", &*key.name),
            &error,
        )),
    }
}

/// Tells the store about a write. What cannot be stored arrives through the watch.
fn assume<R: Stored>(cx: &Context, by: &Work, wire: R::Wire) {
    if let Err(error) = cx.store.assume::<R>(wire, Some(by)) {
        tracing::debug!(%error, "the result of a write was not stored");
    }
}
