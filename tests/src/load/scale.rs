//! What many sandboxes cost the operator: memory, and a restart among them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::Instant;

use super::client::Kind;
use super::fill::Fill;
use super::objects;
use super::operator::Operator;
use super::scene::Scene;
use super::watcher::Watcher;
use agent_sandbox_load::machine::memory;

/// The operator's memory at one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Sandboxes in the cluster, each with a pod.
    pub sandboxes: u32,
    /// Its proportional set size.
    pub bytes: u64,
}

/// Everything found.
#[derive(Clone, Debug, Serialize)]
pub struct Scale {
    /// By size, ascending.
    pub memory: Vec<Memory>,
    /// How fast the pool grew to each of them.
    pub fills: Vec<Fill>,
    /// After a restart among the most sandboxes.
    pub memory_after_restart: Memory,
    /// From the start of the process to `/readyz`, in milliseconds.
    pub restart_to_ready_ms: f64,
    /// From the start of the process to the first claim that was seen ready, in milliseconds; the
    /// claim was there before.
    pub restart_to_served_ms: f64,
    /// How long a plain client needs to read the sandboxes and the pods, side by side, and nothing else, in
    /// milliseconds.
    pub plain_lists_ms: f64,
    /// Writes of the restarted operator before anybody asked for something.
    pub restart_writes: f64,
}

impl Scene {
    /// Grows the pool step by step, then restarts the operator twice: once to see that it writes
    /// nothing, once to see how soon it serves.
    pub async fn scale(&self, mut say: impl FnMut(&str)) -> Result<Scale> {
        let log = self.log.clone();
        let mut operator = Operator::start(&self.plan, &log).await?;
        operator.ready().await?;
        let mut found = Vec::new();
        let mut fills = Vec::new();
        let mut most = 0;
        for size in &self.plan.sizes {
            say(&format!("memory with {size} sandboxes"));
            if *size > 0 {
                fills.push(self.fill(&operator, most, *size).await?);
            }
            most = *size;
            // What was needed for a moment is given back first.
            tokio::time::sleep(REST).await;
            found.push(Memory {
                sandboxes: *size,
                bytes: memory(operator.pid())?,
            });
        }
        operator.stop().await?;

        say(&format!("restart with {most} sandboxes"));
        let mut operator = Operator::start(&self.plan, &log).await?;
        let ready = operator.ready().await?;
        tokio::time::sleep(REST).await;
        let writes = operator.writes().await?;
        let memory_after_restart = Memory {
            sandboxes: most,
            bytes: memory(operator.pid())?,
        };
        operator.stop().await?;

        let began = Instant::now();
        tokio::try_join!(
            self.plain.read_all(Kind::Sandbox),
            self.plain.read_all(Kind::Pod)
        )?;
        let lists = began.elapsed();

        let watcher = Watcher::of_claims(&self.plain).await?;
        let name = "first";
        let served = watcher.expect(name);
        self.plain
            .create(Kind::Claim, &objects::claim(name))
            .await?;
        let operator = Operator::start(&self.plan, &log).await?;
        let seen = tokio::time::timeout(FIRST, served)
            .await
            .context("the restarted operator serves no claim; the run is void")?
            .map_err(|_| watcher.trouble())?;
        ensure!(
            seen.sandbox != name,
            "the restarted operator made a sandbox although the pool is full; the run is void"
        );
        let served = seen.at.duration_since(operator.started());
        self.plain.delete(Kind::Claim, name).await?;
        self.delete_pool().await?;
        operator.stop().await?;
        Ok(Scale {
            memory: found,
            fills,
            memory_after_restart,
            restart_to_ready_ms: milliseconds(ready),
            restart_to_served_ms: milliseconds(served),
            plain_lists_ms: milliseconds(lists),
            restart_writes: writes.total(),
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Long enough for whatever a start might write, pools and events included.
const REST: Duration = Duration::from_secs(5);
const FIRST: Duration = Duration::from_secs(120);
