//! The closed loop: so many workers each claim a sandbox, give it back, and begin again once its pod is
//! gone. It tells how many claims a second a cluster bears for as long as one likes; its latencies are those of a
//! load that waits for the server, which the open loop's does not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::time::Instant;

use super::claims::{Served, judge, serve};
use super::client::Kind;
use super::objects;
use super::operator::Operator;
use super::scene::{Cost, Scene};
use super::watcher::Watcher;
use agent_sandbox_load::statistics::Latencies;

/// What so many workers reached.
#[derive(Clone, Debug, Serialize)]
pub struct ClosedLoop {
    /// How many had a claim at any time.
    pub workers: u32,
    /// Claims in all.
    pub claims: u32,
    /// Claims that went through their whole life, a second.
    pub per_second: f64,
    /// From the request until the claim was seen Ready.
    pub ready: Latencies,
    /// From the request to delete it until its pod was gone.
    pub gone: Latencies,
    /// Claims that got a sandbox made for them instead of a member of the pool.
    pub cold: usize,
    /// Shares of the machine, by process.
    pub shares: BTreeMap<String, f64>,
    /// Cost of the whole cycle: claim, refill, deletion.
    pub cycle: Cost,
}

/// How long a loop goes on: until both are reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    /// Claims in all.
    pub claims: u32,
    /// Time.
    pub time: Duration,
}

impl Scene {
    /// Runs the loop.
    pub async fn closed_loop(&self, operator: &Operator, workers: u32) -> Result<ClosedLoop> {
        self.at_rest(self.plan.pool).await?;
        let claims = Watcher::of_claims(&self.plain).await?;
        let pods = Watcher::of_pods(&self.plain).await?;
        let before = self.snapshot(operator).await?;
        let clocks = self.clocks(operator)?;
        let begun = AtomicU32::new(0);
        let start = Instant::now();
        let work = (0..workers).map(|_| self.work(&claims, &pods, &begun, start));
        let lives = futures::future::try_join_all(work).await?.concat();
        let took = start.elapsed();
        let shares = self.clocks(operator)?.since(&clocks).shares();
        let count = u32::try_from(lives.len())?;
        let (served, gone): (Vec<Served>, Vec<Duration>) = lives.into_iter().unzip();
        let cold = judge(&served, begun.into_inner())?;
        let ready: Vec<Duration> = served.iter().map(Served::latency).collect();
        self.at_rest(self.plan.pool).await?;
        Ok(ClosedLoop {
            workers,
            claims: count,
            per_second: f64::from(count) / took.as_secs_f64(),
            ready: Latencies::of(&ready).context("no claim was made")?,
            gone: Latencies::of(&gone).context("no claim was deleted")?,
            cold,
            shares,
            cycle: self.cost(operator, &before, count).await?,
        })
    }

    /// One worker: each claim, and how long its removal took.
    async fn work(
        &self,
        claims: &Watcher,
        pods: &Watcher,
        begun: &AtomicU32,
        start: Instant,
    ) -> Result<Vec<(Served, Duration)>> {
        let Length {
            claims: least,
            time,
        } = self.plan.closed_loop;
        let mut lives = Vec::new();
        while start.elapsed() < time || begun.load(Ordering::Relaxed) < least {
            begun.fetch_add(1, Ordering::Relaxed);
            let name = objects::fresh();
            let ready = claims.expect(&name);
            let body = objects::claim(&name);
            let served = serve(&self.plain, &name, &body, Instant::now(), ready)
                .await?
                .ok_or_else(|| claims.trouble())?;
            // A sandbox's pod has its name.
            let gone = pods.expect(&served.sandbox);
            let asked = Instant::now();
            self.plain.delete(Kind::Claim, &name).await?;
            let seen = match tokio::time::timeout(PATIENCE, gone).await {
                Ok(seen) => seen.map_err(|_| pods.trouble())?,
                Err(_) => bail!(
                    "the pod of sandbox {} is not gone {} s after its claim's deletion; the run is void",
                    served.sandbox,
                    PATIENCE.as_secs()
                ),
            };
            lives.push((served, seen.at.duration_since(asked)));
        }
        Ok(lives)
    }
}

/// How long a removal may take.
const PATIENCE: Duration = Duration::from_secs(120);
