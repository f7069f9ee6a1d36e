//! Filling a pool: how fast sandboxes that nobody waits for are made, and what one costs.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::time::Instant;

use super::members::Members;
use super::operator::Operator;
use super::scene::{Cost, Scene};
use agent_sandbox_load::machine::API_SERVER;

/// What one filling found.
#[derive(Clone, Debug, Serialize)]
pub struct Fill {
    /// How many members the pool had before.
    pub from: u32,
    /// How many it has.
    pub to: u32,
    /// From the pool's creation or change until the last one was seen Ready.
    pub seconds: f64,
    /// Sandboxes Ready a second.
    pub per_second: f64,
    /// Processor time until then, in milliseconds a sandbox, by process.
    pub until_ready_ms: BTreeMap<String, f64>,
    /// Shares of the machine until then, by process.
    pub shares: BTreeMap<String, f64>,
    /// What a sandbox cost until everything had come to rest.
    pub cost: Cost,
}

impl Fill {
    /// The API server's time, in milliseconds a sandbox.
    pub fn api_server_ms(&self) -> Option<f64> {
        self.until_ready_ms.get(API_SERVER).copied()
    }
}

impl Scene {
    /// Creates a pool, or makes the one of `from` members larger, and waits until all are Ready.
    pub async fn fill(&self, operator: &Operator, from: u32, to: u32) -> Result<Fill> {
        let mut members = Members::start(&self.plain, HashSet::new()).await?;
        let before = self.snapshot(operator).await?;
        let clocks = self.clocks(operator)?;
        let start = Instant::now();
        if from == 0 {
            self.create_pool(to).await?;
        } else {
            self.resize_pool(to).await?;
        }
        let took = members.until(to).await?.duration_since(start);
        let until_ready = self.clocks(operator)?.since(&clocks);
        drop(members);
        self.at_rest(to).await?;
        let made = to.saturating_sub(from);
        let each = |time: Duration| time.as_secs_f64() * 1000.0 / f64::from(made.max(1));
        Ok(Fill {
            from,
            to,
            seconds: took.as_secs_f64(),
            per_second: f64::from(made) / took.as_secs_f64(),
            until_ready_ms: until_ready
                .by_name()
                .map(|(name, time)| (name.to_owned(), each(time)))
                .collect(),
            shares: until_ready.shares(),
            cost: self.cost(operator, &before, made).await?,
        })
    }
}
