//! The only file of this kind that writes.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

use super::desired;
use super::plan::Doomed;
use crate::allocation::record::Request;
use crate::allocation::{self, Answer};
use crate::api::{ApiError, Delete, POOLS, Part, SANDBOXES};
use crate::context::Context;
use crate::error::Fault;
use crate::ident::{Key, Uid};
use crate::metrics::Step;
use crate::objects::{Named, PoolRow, Row, SandboxRow, TemplateRow};
use crate::store::{PoolId, Work};

/// How a number of creations or deletions went.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those that succeeded.
    pub done: usize,
    /// Those that were not tried because earlier ones failed.
    pub untried: usize,
    /// Why the others failed.
    pub faults: Vec<Fault>,
}

/// Creates members: one, two, four, ... at a time, stopping at the first batch with a failure, so that
/// a quota or a bad template costs one call and not three hundred.
pub async fn create_members(
    cx: &Context,
    by: &Work,
    pool: &PoolRow,
    template: &TemplateRow,
    count: usize,
) -> Tally {
    let mut tally = Tally::default();
    let mut batch = 1;
    let mut left = count;
    while left > 0 && tally.faults.is_empty() {
        let size = batch.min(left);
        let mut running: FuturesUnordered<_> = (0..size)
            .map(|_| create_member(cx, by, pool, template))
            .collect();
        while let Some(result) = running.next().await {
            match result {
                Ok(()) => tally.done += 1,
                Err(fault) => tally.faults.push(fault),
            }
        }
        left -= size;
        batch *= 2;
    }
    tally.untried = left;
    tally
}

async fn create_member(
    cx: &Context,
    by: &Work,
    pool: &PoolRow,
    template: &TemplateRow,
) -> Result<(), Fault> {
    let _lane = cx.lanes.background().await;
    let name = desired::member_name(&pool.head.key.name);
    let member = desired::member(
        pool,
        template,
        &name,
        cx.config.pools.eviction,
        &cx.config.policy.resolvers,
    );
    let namespace = &pool.head.key.namespace;
    let began = Instant::now();
    let created = cx
        .create::<SandboxRow>(by, &SANDBOXES, namespace, &member)
        .await;
    cx.metrics.steps.took(Step::Refill, began.elapsed());
    match created {
        Ok(()) => Ok(()),
        Err(error) if error.outcome_unknown() => {
            // It may exist; if so it must be known before the pool is counted again.
            let key = pool.head.key.sibling(name);
            match cx.api.get(&SANDBOXES, &key).await {
                Ok(Some(wire)) => {
                    cx.learn::<SandboxRow>(Some(by), wire);
                    Ok(())
                }
                _ => Err(Fault::of("creating Sandbox", &error)),
            }
        }
        Err(error) => Err(Fault::of("creating Sandbox", &error)),
    }
}

/// Deletes members, a batch at a time as [`create_members`] creates them, after the pool's record says
/// that they are given to nobody. A member that is gone, was given away, or has changed since it was
/// chosen is no failure: it will be judged again.
pub async fn delete_members(cx: &Context, by: &Work, pool: &PoolRow, doomed: &[Doomed]) -> Tally {
    let mut tally = Tally::default();
    let mut batch = 1;
    let doomed = retire(cx, pool, doomed, &mut tally).await;
    let mut rest = &*doomed;
    while !rest.is_empty() && tally.faults.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        let mut running: FuturesUnordered<_> = now
            .iter()
            .map(|member| delete_member(cx, by, member))
            .collect();
        while let Some(result) = running.next().await {
            match result {
                Ok(()) => tally.done += 1,
                Err(fault) => tally.faults.push(fault),
            }
        }
        rest = later;
        batch *= 2;
    }
    tally.untried += rest.len();
    tally
}

/// Has the pool's record say that members are given to nobody any more, and returns those of which it
/// does.
async fn retire(cx: &Context, pool: &PoolRow, doomed: &[Doomed], tally: &mut Tally) -> Vec<Doomed> {
    let requests: Vec<Request> = doomed
        .iter()
        .map(|member| {
            Request::Retire(Named {
                name: member.key.name.clone(),
                uid: member.uid,
            })
        })
        .collect();
    let id = PoolId::new(&pool.head.key, pool.head.uid);
    let lane = cx.lanes.background().await;
    let answers = allocation::act::commit(cx, &pool.head.key, &id, requests).await;
    drop(lane);
    let mut retired = Vec::new();
    for (member, answer) in doomed.iter().zip(answers) {
        match answer {
            Answer::Granted => retired.push(member.clone()),
            Answer::Refused => {}
            Answer::Failed(fault) => {
                tally.untried += 1;
                if tally.faults.is_empty() {
                    tally.faults.push(fault);
                }
            }
        }
    }
    retired
}

/// Deletes a member that was given to a claim which is gone. Nobody else can have it, and the claim may
/// have used it.
pub async fn delete_forsaken(cx: &Context, by: &Work, key: &Key, uid: Uid) -> Result<(), Fault> {
    let _lane = cx.lanes.background().await;
    match cx
        .delete::<SandboxRow>(by, &SANDBOXES, key, Delete::of(uid))
        .await
    {
        Ok(()) => {
            // The record that names it may outlive it.
            let left = cx.store.read(|state| state.sandbox(key));
            if left.is_none_or(|row| row.head.uid != uid) {
                cx.store.note_gone(uid);
            }
            Ok(())
        }
        // Another one has its name by now.
        Err(ApiError::Conflict(_)) => allocation::act::read_member(cx, key, uid).await,
        Err(error) => Err(Fault::of(
            &format!("deleting Sandbox {:?}", &*key.name),
            &error,
        )),
    }
}

async fn delete_member(cx: &Context, by: &Work, doomed: &Doomed) -> Result<(), Fault> {
    let _lane = cx.lanes.background().await;
    tracing::debug!(member = %doomed.key, why = ?doomed.why, "deleting pool member");
    let as_seen = Delete::as_seen(doomed.uid, doomed.revision);
    match cx
        .delete::<SandboxRow>(by, &SANDBOXES, &doomed.key, as_seen)
        .await
    {
        Ok(()) => Ok(()),
        // Judged anew as it is now; without this the watch would have to come first, and until it did
        // every pass would try the same again.
        Err(ApiError::Conflict(_)) => {
            allocation::act::read_member(cx, &doomed.key, doomed.uid).await
        }
        Err(error) => Err(Fault::of(
            &format!("deleting Sandbox {:?}", &*doomed.key.name),
            &error,
        )),
    }
}

/// How a status write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// It was written.
    Done,
    /// The pool has changed since it was seen; the store knows it as it is.
    Stale,
    /// The pool is gone.
    Gone,
}

/// Writes the status.
pub async fn publish(
    cx: &Context,
    by: &Work,
    key: &Key,
    patch: &Value,
) -> Result<Published, Fault> {
    let (wire, published) = match cx.api.patch(&POOLS, key, Part::Status, patch).await {
        Ok(wire) => (wire, Published::Done),
        Err(ApiError::NotFound(_)) => return Ok(Published::Gone),
        Err(ApiError::Conflict(_)) => {
            match cx.api.get::<<PoolRow as Row>::Wire>(&POOLS, key).await {
                Ok(Some(wire)) => (wire, Published::Stale),
                Ok(None) => return Ok(Published::Gone),
                Err(error) => return Err(Fault::of("reading the pool", &error)),
            }
        }
        Err(error) => return Err(Fault::of("writing the pool's status", &error)),
    };
    cx.learn::<PoolRow>(Some(by), wire);
    Ok(published)
}
