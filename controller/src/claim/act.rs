//! The only file of this kind that writes.

use std::sync::Arc;

use serde_json::Value;

use crate::allocation::act::read_pool;
use crate::api::{ApiError, CLAIMS, Delete, Deleted, POLICIES, Part, SANDBOXES};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::objects::{ClaimRow, PolicyRow, Row, SandboxRow};
use crate::store::{PoolId, Work};

/// How an attempt to hand a member over, or to create a sandbox, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// The claim controls the sandbox now.
    Won,
    /// It does not, and the store knows the sandbox as it is.
    Lost,
}

/// Makes the claim the owner of a member that it was given, provided the member is as it was seen.
///
/// When the answer is lost, or says that the member has changed, the API server is asked who controls it
/// now.
pub async fn hand_over(
    cx: &Context,
    by: &Work,
    claim: &ClaimRow,
    member: &Key,
    patch: &Value,
) -> Result<Attempt, Fault> {
    match cx
        .patch::<SandboxRow>(by, &SANDBOXES, member, Part::Object, patch)
        .await
    {
        Ok(()) => Ok(Attempt::Won),
        Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => whose(cx, by, claim, member).await,
        Err(error) if error.outcome_unknown() => whose(cx, by, claim, member).await,
        Err(error) => Err(Fault::of(
            &format!("handing over Sandbox {:?}", &*member.name),
            &error,
        )),
    }
}

/// Creates the claim's own sandbox.
pub async fn create(
    cx: &Context,
    by: &Work,
    claim: &ClaimRow,
    sandbox: &Value,
) -> Result<Attempt, Fault> {
    let key = &claim.head.key;
    match cx
        .create::<SandboxRow>(by, &SANDBOXES, &key.namespace, sandbox)
        .await
    {
        Ok(()) => Ok(Attempt::Won),
        Err(ApiError::AlreadyExists(_)) => whose(cx, by, claim, key).await,
        Err(error) if error.outcome_unknown() => match whose(cx, by, claim, key).await? {
            Attempt::Won => Ok(Attempt::Won),
            Attempt::Lost => Err(Fault::of("creating Sandbox", &error)),
        },
        Err(error) => Err(Fault::of("creating Sandbox", &error)),
    }
}

/// Asks the API server for a sandbox and tells the store; says whether the claim controls it.
async fn whose(cx: &Context, by: &Work, claim: &ClaimRow, key: &Key) -> Result<Attempt, Fault> {
    let known = cx.store.read(|state| state.sandbox(key));
    match cx
        .api
        .get::<<SandboxRow as Row>::Wire>(&SANDBOXES, key)
        .await
    {
        Ok(Some(wire)) => {
            let row = cx.store.assume::<SandboxRow>(wire, Some(by));
            let ours = row.is_ok_and(|row| row.head.is_controlled_by(claim.head.uid));
            Ok(if ours { Attempt::Won } else { Attempt::Lost })
        }
        Ok(None) => {
            if let Some(row) = known {
                cx.store
                    .assume_deleted::<SandboxRow>(key, row.head.uid, Some(by));
            }
            Ok(Attempt::Lost)
        }
        Err(error) => Err(Fault::of(
            &format!("reading Sandbox {:?}", &*key.name),
            &error,
        )),
    }
}

/// Asks the API server for the claim itself, and tells the store. `None` when it is gone or another
/// one has its name.
pub async fn confirm_claim(
    cx: &Context,
    by: &Work,
    claim: &ClaimRow,
) -> Result<Option<Arc<ClaimRow>>, Fault> {
    let key = &claim.head.key;
    match cx.api.get::<<ClaimRow as Row>::Wire>(&CLAIMS, key).await {
        Ok(Some(wire)) => {
            let row = cx.store.assume::<ClaimRow>(wire, Some(by));
            Ok(row.ok().filter(|row| row.head.uid == claim.head.uid))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(Fault::of("reading the claim", &error)),
    }
}

/// Asks the API server for the sandbox that the claim's status names, and while a pool still controls it,
/// for the pool's record. The store is told.
pub async fn confirm_bound(
    cx: &Context,
    by: &Work,
    claim: &ClaimRow,
    sandbox: &Key,
) -> Result<(), Fault> {
    if whose(cx, by, claim, sandbox).await? == Attempt::Won {
        return Ok(());
    }
    let found = cx.store.read(|state| state.sandbox(sandbox));
    let pool = found.filter(|row| PoolId::of_member(row).is_some());
    match pool.and_then(|row| row.head.owner.clone()) {
        Some(owner) => read_pool(cx, &sandbox.sibling(owner.name)).await,
        None => Ok(()),
    }
}

/// Brings a bound sandbox's metadata in line. The store is told of one that is gone: the pass goes on with
/// what the store knows, and would try again at once.
pub async fn update(
    cx: &Context,
    by: &Work,
    sandbox: &Key,
    uid: Uid,
    patch: &Value,
) -> Result<(), Fault> {
    match cx
        .patch::<SandboxRow>(by, &SANDBOXES, sandbox, Part::Object, patch)
        .await
    {
        Ok(()) => Ok(()),
        Err(ApiError::NotFound(_)) => {
            cx.store
                .assume_deleted::<SandboxRow>(sandbox, uid, Some(by));
            Ok(())
        }
        Err(error) => Err(Fault::of(
            &format!("updating Sandbox {:?}", &*sandbox.name),
            &error,
        )),
    }
}

/// Deletes a sandbox the claim controls.
pub async fn delete_sandbox(cx: &Context, by: &Work, key: &Key, uid: Uid) -> Result<(), Fault> {
    cx.delete::<SandboxRow>(by, &SANDBOXES, key, Delete::of(uid))
        .await
        .map_err(|error| Fault::of(&format!("deleting Sandbox {:?}", &*key.name), &error))
}

/// Deletes a network policy that belongs to the claim.
pub async fn delete_policy(cx: &Context, key: &Key, uid: Uid) -> Result<(), Fault> {
    match cx
        .api
        .delete::<<PolicyRow as Row>::Wire>(&POLICIES, key, Delete::of(uid))
        .await
    {
        // A conflict: somebody else's has the name by now.
        Ok(Deleted::Gone | Deleted::Pending(_)) | Err(ApiError::Conflict(_)) => {
            cx.store.forget_legacy_policy(key);
            Ok(())
        }
        Err(error) => Err(Fault::of(
            &format!("deleting NetworkPolicy {:?}", &*key.name),
            &error,
        )),
    }
}

/// Deletes an expired claim, provided it is still as it was when it was found expired.
pub async fn delete_claim(
    cx: &Context,
    by: &Work,
    claim: &ClaimRow,
    foreground: bool,
) -> Result<(), Fault> {
    let delete = Delete {
        foreground,
        ..Delete::as_seen(claim.head.uid, claim.head.revision)
    };
    cx.delete::<ClaimRow>(by, &CLAIMS, &claim.head.key, delete)
        .await
        .map_err(|error| Fault::of("deleting the expired claim", &error))
}

/// How a status write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// It was written.
    Written,
    /// The claim has changed since it was seen; the change itself brings the next pass.
    Stale,
    /// The claim is gone.
    Gone,
}

/// Writes the status.
pub async fn publish(
    cx: &Context,
    by: &Work,
    key: &Key,
    patch: &Value,
) -> Result<Published, Fault> {
    match cx
        .patch::<ClaimRow>(by, &CLAIMS, key, Part::Status, patch)
        .await
    {
        Ok(()) => Ok(Published::Written),
        Err(ApiError::Conflict(_)) => Ok(Published::Stale),
        Err(ApiError::NotFound(_)) => Ok(Published::Gone),
        Err(error) => Err(Fault::of("writing the claim's status", &error)),
    }
}

/// Writes annotations on the claim.
pub async fn annotate(cx: &Context, by: &Work, key: &Key, patch: &Value) -> Result<(), Fault> {
    match cx
        .patch::<ClaimRow>(by, &CLAIMS, key, Part::Object, patch)
        .await
    {
        Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => Ok(()),
        Err(error) => Err(Fault::of("annotating the claim", &error)),
    }
}
