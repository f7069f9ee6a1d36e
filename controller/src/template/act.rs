//! The only file of this kind that writes.

use std::sync::Arc;

use agent_sandbox_crds::{hash, labels};
use serde_json::Value;

use crate::api::{ApiError, Delete, PODS, POLICIES, Part, TEMPLATES};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Revision, Uid};
use crate::objects::{PodRow, PolicyRow, Row, TemplateRow};
use crate::store::Work;

/// Labels a template.
pub async fn label(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    match cx
        .patch::<TemplateRow>(by, &TEMPLATES, key, Part::Object, patch)
        .await
    {
        Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
        Err(error) => Err(Fault::of(
            &format!("labelling SandboxTemplate {:?}", &*key.name),
            &error,
        )),
    }
}

/// Writes the status. That there is none to write to is no failure: the template is gone, or the installed
/// definition is one of another implementation, which has no status. Where somebody else was faster, the
/// watch brings what they wrote and with it the next pass.
pub async fn publish(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    match cx
        .patch::<TemplateRow>(by, &TEMPLATES, key, Part::Status, patch)
        .await
    {
        Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
        Err(error) => Err(Fault::of(
            &format!("writing the status of SandboxTemplate {:?}", &*key.name),
            &error,
        )),
    }
}

/// Creates a policy. Where its name is taken, by one that is not watched or not yet seen, the answer is who
/// has it.
pub async fn create_policy(
    cx: &Context,
    by: &Work,
    key: &Key,
    policy: &Value,
) -> Result<Created, Fault> {
    match cx
        .create::<PolicyRow>(by, &POLICIES, &key.namespace, policy)
        .await
    {
        Ok(()) => Ok(Created::Done),
        Err(ApiError::AlreadyExists(_)) => look_up(cx, by, key).await.map(Created::Taken),
        Err(error) => Err(Fault::of("creating NetworkPolicy", &error)),
    }
}

/// What became of an attempt to create a policy.
#[derive(Clone, Debug)]
pub enum Created {
    /// It exists now.
    Done,
    /// Its name was taken by this one, unless that is gone again.
    Taken(Option<Arc<PolicyRow>>),
}

/// Asks the API server who has a policy's name. One that the watch does not select is not stored: it would
/// never be updated.
pub async fn look_up(cx: &Context, by: &Work, key: &Key) -> Result<Option<Arc<PolicyRow>>, Fault> {
    let wire = match cx.api.get::<<PolicyRow as Row>::Wire>(&POLICIES, key).await {
        Ok(Some(wire)) => wire,
        Ok(None) => return Ok(None),
        Err(error) => {
            let doing = format!("reading NetworkPolicy {:?}", &*key.name);
            return Err(Fault::of(&doing, &error));
        }
    };
    let row = PolicyRow::from_wire(wire.clone(), cx.store.interner()).map_err(|error| {
        Fault::Transient {
            message: error.to_string(),
            retry_after: None,
        }
    })?;
    if row.ref_hash().is_none() {
        return Ok(Some(Arc::new(row)));
    }
    // Not stored means that the watch has already told of its end.
    Ok(cx.store.assume::<PolicyRow>(wire, Some(by)).ok())
}

/// Asks the API server for the pods with the hash of a template's name that are not watched: the ones without
/// the label that gives the sandbox.
pub async fn unwatched_pods(cx: &Context, template: &Key) -> Result<Vec<Arc<PodRow>>, Fault> {
    let selector = format!(
        "{}={},!{}",
        labels::SANDBOX_TEMPLATE_REF_HASH,
        hash::name_hash(&template.name),
        labels::SANDBOX_NAME_HASH,
    );
    let doing = format!("looking for pods of SandboxTemplate {:?}", &*template.name);
    let namespace = Some(&*template.namespace);
    let found = cx
        .api
        .list_all::<<PodRow as Row>::Wire>(&PODS, namespace, &selector)
        .await
        .map_err(|error| Fault::of(&doing, &error))?;
    let rows = found.into_iter().map(|wire| {
        let row = PodRow::from_wire(wire, cx.store.interner());
        // One that cannot be read is a pod all the same.
        row.map(Arc::new).map_err(|error| Fault::Transient {
            message: format!("{doing}: {error}"),
            retry_after: None,
        })
    });
    rows.collect()
}

/// Brings a policy in line.
pub async fn patch_policy(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    cx.patch::<PolicyRow>(by, &POLICIES, key, Part::Object, patch)
        .await
        .map_err(|error| Fault::of(&format!("updating NetworkPolicy {:?}", &*key.name), &error))
}

/// Deletes a policy as it was seen.
pub async fn delete_policy(
    cx: &Context,
    by: &Work,
    key: &Key,
    uid: Uid,
    revision: Revision,
) -> Result<(), Fault> {
    cx.delete::<PolicyRow>(by, &POLICIES, key, Delete::as_seen(uid, revision))
        .await
        .map_err(|error| Fault::of(&format!("deleting NetworkPolicy {:?}", &*key.name), &error))
}
