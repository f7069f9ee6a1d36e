//! The only file here that writes: requests that wait together go into the record together.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::record::{self, Draft, Outlook, Request};
use super::{Answer, Slip};
use crate::api::{ApiError, POOLS, Part, SANDBOXES};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::objects::{Named, PoolRow, Row, SandboxRow};
use crate::store::{PoolId, State};

/// How often a record that others write too is read again and tried anew.
const MOST_TRIES: usize = 8;

/// Gets requests into the record of a pool, and answers each of them. Whoever comes while a write is
/// under way goes with the next one.
pub async fn commit(cx: &Context, pool: &Key, id: &PoolId, requests: Vec<Request>) -> Vec<Answer> {
    if requests.is_empty() {
        return Vec::new();
    }
    let desk = cx.desks.of(id);
    let slip = Arc::new(Slip::new(requests));
    desk.waiting.lock().push(slip.clone());
    let _turn = desk.turn.lock().await;
    if let Some(answers) = slip.answers.lock().take() {
        return answers;
    }
    let mut batch = std::mem::take(&mut *desk.waiting.lock());
    if !batch.iter().any(|other| Arc::ptr_eq(other, &slip)) {
        // Whoever took it along was stopped half-way. Its write may have landed; then the record has
        // changed, is read again, and grants what it says already.
        batch.push(slip.clone());
    }
    let requests: Vec<&Request> = batch.iter().flat_map(|slip| &slip.requests).collect();
    let mut answers = write(cx, pool, id, &requests).await.into_iter();
    for slip in &batch {
        *slip.answers.lock() = Some(answers.by_ref().take(slip.requests.len()).collect());
    }
    slip.answers.lock().take().unwrap_or_default()
}

/// What is known when a record is drafted.
struct Look {
    pool: Arc<PoolRow>,
    draft: Draft,
    /// How many members will be Ready, if that is news.
    ready_replicas: Option<i32>,
    /// Whether all that has left the record has been seen.
    verified: bool,
}

async fn write(cx: &Context, pool: &Key, id: &PoolId, requests: &[&Request]) -> Vec<Answer> {
    let mut confirmed = BTreeSet::new();
    for _ in 0..MOST_TRIES {
        let Some(look) = cx.store.read(|state| look(state, pool, id, requests)) else {
            return vec![Answer::Refused; requests.len()];
        };
        if look.draft.record == *look.pool.record {
            return answers(&look.draft, None);
        }
        if !look.verified {
            match confirm(cx, pool, &look, requests, &mut confirmed).await {
                Ok(Confirmed::All) => {}
                Ok(Confirmed::More) => continue,
                Err(fault) => return vec![Answer::Failed(fault); requests.len()],
            }
        }
        let patch = patch(&look);
        let error = match cx
            .api
            .patch::<<PoolRow as Row>::Wire>(&POOLS, pool, Part::Status, &patch)
            .await
        {
            Ok(wire) => return written(cx, id, wire, &look, requests),
            Err(error) => error,
        };
        let fault = Fault::of("writing the pool's allocation record", &error);
        let unknown = error.outcome_unknown();
        if !unknown && !matches!(error, ApiError::Conflict(_) | ApiError::NotFound(_)) {
            return answers(&look.draft, Some(&fault));
        }
        // What was confirmed was confirmed of the record as it was.
        confirmed.clear();
        match read_pool(cx, pool).await {
            Ok(()) if !unknown => {}
            // It may still be on its way, so that what the record does not grant is open.
            Ok(()) => {
                return cx
                    .store
                    .read(|state| as_recorded(state, pool, requests, &fault));
            }
            Err(fault) => return answers(&look.draft, Some(&fault)),
        }
    }
    let fault = Fault::Transient {
        message: format!("the status of SandboxWarmPool {pool} is written by others all the time"),
        retry_after: None,
    };
    vec![Answer::Failed(fault); requests.len()]
}

fn look(state: &State, pool: &Key, id: &PoolId, requests: &[&Request]) -> Option<Look> {
    let row = state.pool(pool)?;
    if PoolId::new(pool, row.head.uid) != *id || row.head.is_deleting() {
        return None;
    }
    let allocations = state.allocations();
    let is_free = |named: &Named| {
        let member = state.sandbox(&pool.sibling(named.name.clone()));
        member.is_some_and(|member| {
            member.head.uid == named.uid
                && !member.head.is_deleting()
                && PoolId::of_member(&member).as_ref() == Some(id)
                && allocations.hold_on(named.uid).is_none()
        })
    };
    let draft = record::draft(
        &row.record,
        requests.iter().copied(),
        |uid| allocations.end_of(uid),
        is_free,
    );
    let verified = state.is_record_verified(id, row.record.settled);
    Some(Look {
        ready_replicas: ready_replicas(state, &row, id, &draft, requests),
        pool: row,
        draft,
        verified,
    })
}

/// How many members will be Ready, if that has to be told: it has to be anyway, and here it costs
/// nothing. Those that are given away are replaced at once, so that the number of all is left alone.
fn ready_replicas(
    state: &State,
    pool: &PoolRow,
    id: &PoolId,
    draft: &Draft,
    requests: &[&Request],
) -> Option<i32> {
    let roll = state.roll(id)?;
    let leaving: BTreeSet<Uid> = requests
        .iter()
        .zip(&draft.outlook)
        .filter(|(_, outlook)| **outlook == Outlook::Granted)
        .map(|(request, _)| request.sandbox().uid)
        .collect();
    let members = leaving.iter().filter_map(|uid| roll.member(*uid));
    let ready = members.filter(|member| member.counts_as_ready()).count();
    let left = i32::try_from(roll.ready().saturating_sub(ready)).ok()?;
    (left != pool.status.ready_replicas).then_some(left)
}

/// The merge patch that writes the record, on condition that the pool is as it was read.
fn patch(look: &Look) -> Value {
    let mut status = look.draft.record.to_value();
    if let (Some(ready), Some(members)) = (look.ready_replicas, status.as_object_mut()) {
        // Zero is absent in the API, so it is written as null.
        let ready = if ready == 0 {
            Value::Null
        } else {
            json!(ready)
        };
        members.insert("readyReplicas".to_owned(), ready);
    }
    json!({
        "metadata": {
            "uid": look.pool.head.uid.to_string(),
            "resourceVersion": look.pool.head.revision.to_string(),
        },
        "status": status,
    })
}

fn answers(draft: &Draft, fault: Option<&Fault>) -> Vec<Answer> {
    let answer = |outlook: &Outlook| match (outlook, fault) {
        (Outlook::Refused, _) => Answer::Refused,
        (Outlook::Granted, Some(fault)) => Answer::Failed(fault.clone()),
        (Outlook::Granted, None) => Answer::Granted,
        (Outlook::Full, _) => Answer::Failed(Fault::Transient {
            message:
                "the pool's allocation record is full; waiting for sandboxes to be handed over"
                    .to_owned(),
            retry_after: None,
        }),
    };
    draft.outlook.iter().map(answer).collect()
}

/// The record was written: what came back is what holds.
fn written(
    cx: &Context,
    id: &PoolId,
    wire: <PoolRow as Row>::Wire,
    look: &Look,
    requests: &[&Request],
) -> Vec<Answer> {
    let row = match PoolRow::from_wire(wire.clone(), cx.store.interner()) {
        Ok(row) => row,
        Err(error) => {
            let fault = Fault::Transient {
                message: error.to_string(),
                retry_after: None,
            };
            return answers(&look.draft, Some(&fault));
        }
    };
    let mut outlooks = requests.iter().zip(&look.draft.outlook);
    if !outlooks.all(|(request, outlook)| {
        *outlook != Outlook::Granted || request.is_granted_by(&row.record)
    }) {
        let fault = Fault::Refused(
            "the CustomResourceDefinition of SandboxWarmPool in this cluster has no status.allocations; apply the CustomResourceDefinitions of this version"
                .to_owned(),
        );
        return answers(&look.draft, Some(&fault));
    }
    cx.learn::<PoolRow>(None, wire);
    if look.verified {
        cx.store.verify_record(id, row.record.settled);
    }
    answers(&look.draft, None)
}

/// What the record that was just read says of the requests. Those that it does not grant may yet be
/// granted by a write under way, unless another one comes first.
fn as_recorded(state: &State, pool: &Key, requests: &[&Request], fault: &Fault) -> Vec<Answer> {
    let row = state.pool(pool);
    let answer = |request: &&Request| match &row {
        Some(row) if request.is_granted_by(&row.record) => Answer::Granted,
        Some(_) => Answer::Failed(fault.clone()),
        None => Answer::Refused,
    };
    requests.iter().map(answer).collect()
}

/// Asks the API server for the pool, and tells the store.
///
/// # Errors
/// When the API server does not answer.
pub async fn read_pool(cx: &Context, pool: &Key) -> Result<(), Fault> {
    match cx.api.get::<<PoolRow as Row>::Wire>(&POOLS, pool).await {
        Ok(Some(wire)) => cx.learn::<PoolRow>(None, wire),
        Ok(None) => {
            if let Some(row) = cx.store.read(|state| state.pool(pool)) {
                cx.store.assume_deleted::<PoolRow>(pool, row.head.uid, None);
            }
        }
        Err(error) => return Err(Fault::of("reading the pool", &error)),
    }
    Ok(())
}

/// How far the members that are asked for are known to be free.
enum Confirmed {
    /// All of them are.
    All,
    /// Some were read just now, so that the draft has to be made again.
    More,
}

/// Asks the API server for the members that the draft would give away or condemn: what is known of
/// them here may be older than what has left the record.
async fn confirm(
    cx: &Context,
    pool: &Key,
    look: &Look,
    requests: &[&Request],
    confirmed: &mut BTreeSet<Uid>,
) -> Result<Confirmed, Fault> {
    let granted = requests.iter().zip(&look.draft.outlook);
    let doubtful: Vec<&Named> = granted
        .filter(|(_, outlook)| **outlook == Outlook::Granted)
        .map(|(request, _)| request.sandbox())
        .filter(|sandbox| !confirmed.contains(&sandbox.uid))
        .collect();
    if doubtful.is_empty() {
        return Ok(Confirmed::All);
    }
    let reads = doubtful.iter().map(|sandbox| {
        let key = pool.sibling(sandbox.name.clone());
        async move { read_member(cx, &key, sandbox.uid).await }
    });
    for read in futures::future::join_all(reads).await {
        read?;
    }
    confirmed.extend(doubtful.iter().map(|sandbox| sandbox.uid));
    Ok(Confirmed::More)
}

/// Asks the API server for a member, and tells the store what became of it.
///
/// # Errors
/// When the API server does not answer.
pub async fn read_member(cx: &Context, key: &Key, uid: Uid) -> Result<(), Fault> {
    let known = cx.store.read(|state| state.sandbox(key));
    match cx
        .api
        .get::<<SandboxRow as Row>::Wire>(&SANDBOXES, key)
        .await
    {
        Ok(Some(wire)) => match cx.store.assume::<SandboxRow>(wire, None) {
            Ok(row) if row.head.uid == uid => {}
            Ok(_) => cx.store.note_gone(uid),
            Err(error) => tracing::debug!(%error, "a sandbox that was read was not stored"),
        },
        Ok(None) => {
            if let Some(row) = known {
                cx.store
                    .assume_deleted::<SandboxRow>(key, row.head.uid, None);
            }
            cx.store.note_gone(uid);
        }
        Err(error) => {
            return Err(Fault::of(
                &format!("reading Sandbox {:?}", &*key.name),
                &error,
            ));
        }
    }
    Ok(())
}
