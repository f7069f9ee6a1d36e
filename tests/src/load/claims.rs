//! Claims under load: open loop at a rate, and all at once.
//!
//! Time zero of a claim is when it was due, not when its request left, so that a slow server cannot
//! hide its slowness by holding the load back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::args::Rate;
use super::client::{Kind, Plain};
use super::members::Members;
use super::objects;
use super::operator::Operator;
use super::scene::{Cost, Scene};
use super::watcher::{Sighting, Watcher};
use agent_sandbox_load::statistics::{Latencies, arrivals};

/// What one leg found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The leg and its round.
    pub name: String,
    /// Mean claims per second that were asked for; `None` for all at once.
    pub asked_per_second: Option<f64>,
    /// Claims per second that became ready, from the first due to the last ready.
    pub reached_per_second: f64,
    /// From due to seen ready.
    pub latencies: Latencies,
    /// Claims that got a sandbox made for them instead of a member of the pool.
    pub cold: usize,
    /// Cost of the whole cycle: claim, refill, deletion.
    pub cycle: Cost,
    /// Processor time until the last claim was ready, in milliseconds a claim, by process.
    pub until_ready_ms: BTreeMap<String, f64>,
    /// Shares of the machine until the last claim was ready, by process.
    pub shares: BTreeMap<String, f64>,
    /// Claims that were made all at once: from the last one's readiness until the pool was full and
    /// Ready again, in milliseconds.
    pub refill_ms: Option<f64>,
}

impl Outcome {
    /// The share of the claims that got a member of the pool.
    pub fn warm_share(&self) -> f64 {
        let number = |count| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        1.0 - number(self.cold) / number(self.latencies.count.max(1))
    }
}

/// One claim's fate.
#[derive(Clone, Debug)]
pub struct Served {
    due: Instant,
    at: Instant,
    name: String,
    /// Its sandbox.
    pub sandbox: String,
}

impl Served {
    /// From due to seen ready.
    pub fn latency(&self) -> Duration {
        self.at.duration_since(self.due)
    }
}

impl Scene {
    /// Claims at a rate, each deleted a while after it is ready.
    pub async fn open_loop(&self, operator: &Operator, rate: Rate, seed: u64) -> Result<Outcome> {
        let dues = arrivals(rate.per_second, rate.claims, seed);
        let name = format!("{}/s", rate.per_second);
        let asked = Some(rate.per_second);
        let load = Load {
            name,
            asked,
            dues,
            pool: self.plan.pool,
        };
        self.claims(operator, load).await
    }

    /// Claims all at once, deleted when the pool is full again.
    pub async fn burst(&self, operator: &Operator, round: u32) -> Result<Outcome> {
        let load = Load {
            name: format!("burst {round}"),
            asked: None,
            dues: vec![Duration::ZERO; usize::try_from(self.plan.burst)?],
            pool: self.plan.pool,
        };
        self.claims(operator, load).await
    }

    /// Bursts on a smaller pool, each twice the one before, until it has not enough for all of one.
    pub async fn depletion(
        &self,
        operator: &Operator,
        mut say: impl FnMut(&str),
    ) -> Result<Vec<Outcome>> {
        let pool = self.plan.small_pool;
        let mut found = Vec::new();
        let mut size = pool / 2;
        loop {
            say(&format!("{size} claims at once from a pool of {pool}"));
            let load = Load {
                name: format!("{size} from {pool}"),
                asked: None,
                dues: vec![Duration::ZERO; usize::try_from(size)?],
                pool,
            };
            let outcome = self.claims(operator, load).await?;
            let is_depleted = outcome.cold > 0 || size >= MOST_TIMES * pool;
            found.push(outcome);
            if is_depleted {
                return Ok(found);
            }
            size *= 2;
        }
    }

    async fn claims(&self, operator: &Operator, load: Load) -> Result<Outcome> {
        let Load {
            name,
            asked,
            dues,
            pool,
        } = load;
        self.at_rest(pool).await?;
        let dwell = asked.map(|_| DWELL);
        let count = u32::try_from(dues.len())?;
        let watcher = Watcher::of_claims(&self.plain).await?;
        let tasks = Tasks::new("claims");
        let (sender, mut results) = mpsc::unbounded_channel();
        let (gone, mut deletions) = mpsc::unbounded_channel();
        let before = self.snapshot(operator).await?;
        let clocks = self.clocks(operator)?;
        let start = Instant::now();
        let plain = &self.plain;
        for (index, due) in dues.into_iter().enumerate() {
            let claim = format!("c{:x}-{index}", fastrand::u32(..));
            let due = start + due;
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            let ready = watcher.expect(&claim);
            let body = objects::claim(&claim);
            let plain = Arc::clone(plain);
            let (sender, gone) = (sender.clone(), gone.clone());
            tasks.spawn("claim", async move {
                let served = serve(&plain, &claim, &body, due, ready).await;
                let is_served = matches!(served, Ok(Some(_)));
                // The other ends are gone only after a failure.
                drop(sender.send(served));
                drop(sender);
                if let (Some(dwell), true) = (dwell, is_served) {
                    tokio::time::sleep(dwell).await;
                    drop(gone.send(plain.delete(Kind::Claim, &claim).await));
                }
            });
        }
        drop((sender, gone));
        let mut served = Vec::new();
        while let Some(result) = results.recv().await {
            served.push(result?.ok_or_else(|| watcher.trouble())?);
        }
        let until_ready = self.clocks(operator)?.since(&clocks);
        let cold = judge(&served, count)?;
        let last = served.iter().map(|served| served.at).max();
        let took = last.context("no claim was made")?.duration_since(start);
        let samples: Vec<Duration> = served.iter().map(Served::latency).collect();
        let mut refill_ms = None;
        if let (None, Some(last)) = (dwell, last) {
            // Only now, so that nothing but claims is watched in the burst.
            let claimed = served.iter().map(|served| served.sandbox.clone()).collect();
            let full = Members::start(&self.plain, claimed)
                .await?
                .until(pool)
                .await?;
            refill_ms = Some(full.saturating_duration_since(last).as_secs_f64() * 1000.0);
            // As many at once as the connections bear.
            futures::future::try_join_all(
                served
                    .iter()
                    .map(|served| self.plain.delete(Kind::Claim, &served.name)),
            )
            .await?;
        }
        while let Some(deletion) = deletions.recv().await {
            deletion?;
        }
        self.at_rest(pool).await?;
        let cycle = self.cost(operator, &before, count).await?;
        let each = |time: Duration| time.as_secs_f64() * 1000.0 / f64::from(count);
        let until_ready_ms = until_ready
            .by_name()
            .map(|(name, time)| (name.to_owned(), each(time)))
            .collect();
        Ok(Outcome {
            name,
            asked_per_second: asked,
            reached_per_second: f64::from(count) / took.as_secs_f64(),
            latencies: Latencies::of(&samples).context("no claim was made")?,
            cold,
            cycle,
            until_ready_ms,
            shares: until_ready.shares(),
            refill_ms,
        })
    }
}

/// Claims to be made.
struct Load {
    name: String,
    /// A second; each is deleted a while after it is ready. `None` for all at once.
    asked: Option<f64>,
    /// When, from the start.
    dues: Vec<Duration>,
    /// Members of the pool.
    pool: u32,
}

/// Creates a claim and waits until it is ready; `None` when the watch ended.
pub async fn serve(
    plain: &Plain,
    name: &str,
    body: &serde_json::Value,
    due: Instant,
    ready: oneshot::Receiver<Sighting>,
) -> Result<Option<Served>> {
    plain.create(Kind::Claim, body).await?;
    match tokio::time::timeout(PATIENCE, ready).await {
        Ok(Ok(ready)) => Ok(Some(Served {
            due,
            at: ready.at,
            name: name.to_owned(),
            sandbox: ready.sandbox,
        })),
        Ok(Err(_)) => Ok(None),
        Err(_) => bail!(
            "claim {name} is not ready after {} s; the run is void",
            PATIENCE.as_secs()
        ),
    }
}

/// Voids the run unless every claim has a sandbox of its own; says how many are cold.
pub fn judge(served: &[Served], count: u32) -> Result<usize> {
    ensure!(
        served.len() == usize::try_from(count)?,
        "{} of {count} claims were served; the run is void",
        served.len()
    );
    let mut sandboxes = HashSet::new();
    for Served { name, sandbox, .. } in served {
        ensure!(
            !sandbox.is_empty(),
            "claim {name} is ready without a sandbox; the run is void"
        );
        ensure!(
            sandboxes.insert(sandbox.as_str()),
            "sandbox {sandbox} was handed out twice, the second time to claim {name}; the run is void"
        );
    }
    Ok(served
        .iter()
        .filter(|served| served.name == served.sandbox)
        .count())
}

/// How long a claim is used in the open-loop legs.
pub const DWELL: Duration = Duration::from_secs(2);
/// How long a claim may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many times a pool's size is the largest burst on it.
const MOST_TIMES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn served(pairs: &[(&str, &str)]) -> Vec<Served> {
        let now = Instant::now();
        pairs
            .iter()
            .map(|(name, sandbox)| Served {
                due: now,
                at: now,
                name: (*name).to_owned(),
                sandbox: (*sandbox).to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_sandbox_handed_out_twice_voids_the_run() {
        assert_eq!(judge(&served(&[("a", "x"), ("b", "b")]), 2).unwrap(), 1);
        let error = judge(&served(&[("a", "x"), ("b", "x")]), 2).unwrap_err();
        assert!(error.to_string().contains("sandbox x"), "{error}");
        let error = judge(&served(&[("a", "")]), 1).unwrap_err();
        assert!(error.to_string().contains("claim a"), "{error}");
        let error = judge(&served(&[("a", "x")]), 2).unwrap_err();
        assert!(error.to_string().contains("1 of 2"), "{error}");
    }
}
