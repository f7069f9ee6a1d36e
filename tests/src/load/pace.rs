//! The floor at a rate: a plain client that does for every claim all that an operator does, from the record
//! to the refill, while the pods live and die as they do under the operator.
//!
//! It knows beforehand what an operator has to find out, and hears of its pods alone.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;

use super::args::Rate;
use super::claims::DWELL;
use super::client::{Kind, Plain};
use super::floor::{BACKGROUND, Member, WRITERS};
use super::ledger::Ledger;
use super::objects::{self, Entry, Version, fresh};
use super::scene::Scene;
use super::watcher::Watcher;
use agent_sandbox_load::machine::API_SERVER;
use agent_sandbox_load::statistics::{Latencies, arrivals};

/// What the plain client reached at a rate.
#[derive(Clone, Debug, Serialize)]
pub struct Paced {
    /// Mean claims per second that were asked for.
    pub asked_per_second: f64,
    /// Claims per second that had their status, from the first due to the last.
    pub reached_per_second: f64,
    /// From due to the answer to the write of the status.
    pub latencies: Latencies,
    /// The API server's time per claim, in milliseconds, until the last had its status.
    pub api_server_ms: Option<f64>,
}

/// The stand-in for an operator.
struct Stage {
    plain: Arc<Plain>,
    ledger: Ledger,
    pods: Watcher,
    /// Whoever makes members puts them here.
    made: mpsc::UnboundedSender<Member>,
    members: Mutex<mpsc::UnboundedReceiver<Member>>,
    /// Writes that nobody waits for.
    background: Semaphore,
}

impl Scene {
    /// Claims at a rate, each deleted a while after it has its status.
    pub async fn pace(&self, rate: Rate, seed: u64) -> Result<Paced> {
        let plain = &self.plain;
        let (made, members) = mpsc::unbounded_channel();
        let stage = Arc::new(Stage {
            plain: Arc::clone(plain),
            ledger: self.ledger(self.plan.pool).await?,
            pods: Watcher::of_started_pods(plain).await?,
            made,
            members: Mutex::new(members),
            background: Semaphore::new(BACKGROUND),
        });
        stream::iter((0..self.plan.pool).map(|_| stage.refill()))
            .buffer_unordered(WRITERS)
            .try_collect::<()>()
            .await?;
        self.settle().await?;

        let tasks = Tasks::new("claims");
        let (sender, mut served) = mpsc::unbounded_channel();
        let (end, mut ended) = mpsc::unbounded_channel();
        let before = self.processes.times()?;
        let start = Instant::now();
        for due in arrivals(rate.per_second, rate.claims, seed) {
            let due = start + due;
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            let (stage, sender, end) = (Arc::clone(&stage), sender.clone(), end.clone());
            tasks.spawn("claim", async move {
                let claimed = stage.claim().await;
                let at = Instant::now();
                let (latency, rest) = match claimed {
                    Ok(claimed) => (Ok((at, at.duration_since(due))), Some(claimed)),
                    Err(error) => (Err(error), None),
                };
                // The other ends are gone only after a failure.
                drop(sender.send(latency));
                drop(sender);
                if let Some((claim, member)) = rest {
                    drop(end.send(stage.see_off(&claim, &member).await));
                }
            });
        }
        drop((sender, end));
        let (mut last, mut samples) = (start, Vec::new());
        while let Some(latency) = served.recv().await {
            let (at, latency) = latency?;
            last = last.max(at);
            samples.push(latency);
        }
        let spent = self.processes.times()?.since(&before);
        while let Some(ended) = ended.recv().await {
            ended?;
        }
        self.clear().await?;
        let count = f64::from(rate.claims);
        Ok(Paced {
            asked_per_second: rate.per_second,
            reached_per_second: count / last.duration_since(start).as_secs_f64(),
            latencies: Latencies::of(&samples).context("no claim was made")?,
            api_server_ms: spent
                .of(API_SERVER)
                .map(|time| time.as_secs_f64() * 1000.0 / count),
        })
    }
}

impl Stage {
    /// A claim from its creation to its status.
    async fn claim(&self) -> Result<(Version, Member)> {
        let plain = &*self.plain;
        let claim = plain.made(Kind::Claim, objects::claim(&fresh())).await?;
        let member = self.members.lock().await.recv().await;
        let member = member.context("nobody makes members any more")?;
        let entry = Entry {
            claim: claim.clone(),
            member: member.sandbox.clone(),
        };
        self.ledger.commit(plain, entry).await?;
        let status = objects::claim_status(&claim, &member.sandbox.name);
        plain
            .patch_status(Kind::Claim, &claim.name, &status)
            .await?;
        Ok((claim, member))
    }

    /// All that comes after: the member is handed over and replaced, and its claim deleted in time.
    async fn see_off(&self, claim: &Version, member: &Member) -> Result<()> {
        let hand_over = async {
            {
                let _permit = self.background.acquire().await?;
                let Member { sandbox, pod } = member;
                let patch = objects::binding(claim, sandbox, true);
                let plain = &self.plain;
                let owned = plain.patched(Kind::Sandbox, &sandbox.name, patch).await?;
                self.ledger.settle(owned);
                let patch = objects::relabelling(claim, pod, true);
                plain.patched(Kind::Pod, &pod.name, patch).await?;
            }
            self.refill().await
        };
        let use_it = async {
            tokio::time::sleep(DWELL).await;
            anyhow::Ok(())
        };
        tokio::try_join!(hand_over, use_it)?;
        self.plain.delete(Kind::Claim, &claim.name).await
    }

    /// One more member, from its creation to its readiness.
    async fn refill(&self) -> Result<()> {
        let plain = &self.plain;
        let name = fresh();
        let started = self.pods.expect(&name);
        let (sandbox, pod) = {
            let _permit = self.background.acquire().await?;
            let sandbox = plain.made(Kind::Sandbox, objects::member(&name)).await?;
            let body = objects::started_pod(&sandbox);
            (sandbox, plain.made(Kind::Pod, body).await?)
        };
        let Ok(started) = tokio::time::timeout(PATIENCE, started).await else {
            anyhow::bail!("pod {name} is not Ready; the run is void");
        };
        started.map_err(|_| self.pods.trouble())?;
        let _permit = self.background.acquire().await?;
        let status = objects::member_status(&sandbox);
        let sandbox = plain.patched_status(Kind::Sandbox, &name, status).await?;
        // Nobody takes any more after a failure.
        drop(self.made.send(Member { sandbox, pod }));
        Ok(())
    }
}

/// How long a pod may take.
const PATIENCE: Duration = Duration::from_secs(120);
