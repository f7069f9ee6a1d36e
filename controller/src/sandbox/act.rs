//! The only file of this kind that writes. Each function makes one call, tells the store what came of
//! it, and turns a failure into a [`Fault`].

use std::sync::Arc;

use agent_sandbox_crds::labels;
use serde_json::{Value, json};

use super::plan::Holder;
use crate::api::{ApiError, Delete, PODS, Part, Resource, SANDBOXES, SERVICES, VOLUME_CLAIMS};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::intern::Interner;
use crate::objects::{Labels, PodRow, Row, SandboxRow, ServiceRow, VolumeClaimRow};
use crate::store::{Stored, Work};

/// What became of an attempt to create a child.
#[derive(Debug)]
pub enum Created<R> {
    /// It exists now.
    Done,
    /// Its name was taken; this is who holds it.
    Taken(Holder<R>),
}

/// What became of a status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// It is as it should be.
    Done,
    /// The sandbox is gone.
    Gone,
}

/// A kind of children. The watches of all of them select by the same label.
pub trait Child: Stored {
    /// How the API names the kind.
    fn resource() -> &'static Resource;

    /// The object's labels.
    fn labels(&self) -> &Labels;
}

impl Child for PodRow {
    fn resource() -> &'static Resource {
        &PODS
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Child for ServiceRow {
    fn resource() -> &'static Resource {
        &SERVICES
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Child for VolumeClaimRow {
    fn resource() -> &'static Resource {
        &VOLUME_CLAIMS
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// Creates a child under this name, with strict field validation: a misspelt field in a pod template is
/// the user's to learn about, not ours to drop.
///
/// When the answer is lost, or the name was taken, the API server is asked who has it: a child that an
/// earlier call of ours made, unnoticed, must not pass for somebody else's.
pub async fn create<R: Child>(
    cx: &Context,
    by: &Work,
    owner: Uid,
    key: &Key,
    object: &Value,
) -> Result<Created<R>, Fault> {
    let resource = R::resource();
    let answer = cx.create::<R>(by, resource, &key.namespace, object).await;
    let Err(error) = answer else {
        return Ok(Created::Done);
    };
    let fault = Fault::of(
        &format!("creating {} {:?}", resource.kind, &*key.name),
        &error,
    );
    match error {
        ApiError::AlreadyExists(_) => look_up::<R>(cx, by, owner, key).await.map(Created::Taken),
        error if error.outcome_unknown() => match look_up::<R>(cx, by, owner, key).await {
            Ok(Holder::Held(row)) if row.head().is_controlled_by(owner) => Ok(Created::Done),
            _ => Err(fault),
        },
        _ => Err(fault),
    }
}

/// Asks the API server who holds a name. An answer that concerns a child of `owner` is stored, for the
/// watch goes on from there; any other is not: the object may be one that the watch does not select, and
/// would then never be updated.
pub async fn look_up<R: Child>(
    cx: &Context,
    by: &Work,
    owner: Uid,
    key: &Key,
) -> Result<Holder<R>, Fault> {
    let resource = R::resource();
    let wire = match cx.api.get::<R::Wire>(resource, key).await {
        Ok(Some(wire)) => wire,
        Ok(None) => return Ok(Holder::Nobody),
        Err(error) => {
            let doing = format!("reading {} {:?}", resource.kind, &*key.name);
            return Err(Fault::of(&doing, &error));
        }
    };
    let row = decode::<R>(wire.clone(), cx.store.interner())?;
    let selected = row.labels().contains(labels::SANDBOX_NAME_HASH);
    if !(selected && row.head().is_controlled_by(owner)) {
        return Ok(Holder::Held(Arc::new(row)));
    }
    // Not stored means that the watch has already told of its end.
    let stored = cx.store.assume::<R>(wire, Some(by));
    Ok(stored.map_or(Holder::Nobody, Holder::Held))
}

fn decode<R: Row>(wire: R::Wire, interner: &Interner) -> Result<R, Fault> {
    R::from_wire(wire, interner).map_err(|error| Fault::Transient {
        message: error.to_string(),
        retry_after: None,
    })
}

/// Brings a child in line, or takes it over.
pub async fn patch<R: Child>(
    cx: &Context,
    by: &Work,
    key: &Key,
    patch: &Value,
) -> Result<(), Fault> {
    patch_resource::<R>(cx, by, R::resource(), key, patch).await
}

async fn patch_resource<R: Stored>(
    cx: &Context,
    by: &Work,
    resource: &'static Resource,
    key: &Key,
    patch: &Value,
) -> Result<(), Fault> {
    match cx.patch::<R>(by, resource, key, Part::Object, patch).await {
        // Not found: it is gone or replaced; the watch brings the news and with it the next pass.
        Ok(()) | Err(ApiError::NotFound(_)) => Ok(()),
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
    cx.delete::<R>(by, resource, key, delete)
        .await
        .map_err(|error| {
            Fault::of(
                &format!("deleting {} {:?}", resource.kind, &*key.name),
                &error,
            )
        })
}

/// Removes the annotation that tracked a pod of another name.
pub async fn forget_pod_name(cx: &Context, by: &Work, row: &SandboxRow) -> Result<(), Fault> {
    let patch = json!({"metadata": {
        "uid": row.head.uid.to_string(),
        "annotations": {agent_sandbox_crds::annotations::POD_NAME: null},
    }});
    patch_resource::<SandboxRow>(cx, by, &SANDBOXES, &row.head.key, &patch).await
}

/// Writes the status. A sandbox that is gone needs none, and no more of the pass either.
pub async fn publish(
    cx: &Context,
    by: &Work,
    key: &Key,
    patch: &Value,
) -> Result<Published, Fault> {
    match cx
        .patch::<SandboxRow>(by, &SANDBOXES, key, Part::Status, patch)
        .await
    {
        Ok(()) => Ok(Published::Done),
        Err(ApiError::NotFound(_)) => Ok(Published::Gone),
        Err(error) => Err(Fault::of(
            &format!("writing the status of Sandbox {:?}", &*key.name),
            &error,
        )),
    }
}
