//! The bench of the router: what a request costs, what it adds to its time, what a connection and a
//! stream cost, beside nginx, HAProxy and the upstream routers in the same run.
//!
//! `bench-router` calls [`run`]; `cargo xtask bench router` builds and starts it. Everything runs on the
//! loopback device of this machine. Rounds are interleaved and their order rotates, so that what
//! disturbs one peer disturbs all; requests are counted against the proxy's processor time, which
//! neighbours hardly change. Nothing outlives the run.

pub mod args;
pub mod backend;
pub mod figures;
pub mod legs;
pub mod peers;
pub mod report;
pub mod rows;
pub mod stage;
#[cfg(test)]
mod tests;

use anyhow::Result;

use crate::bench;
pub use args::Args;
use args::Leg;
use report::Report;
use stage::Stage;

/// Measures, prints the tables, writes the JSON.
///
/// # Errors
/// When the arguments are wrong, a peer that is there does not start, or the router answers wrongly.
pub async fn run(args: Args) -> Result<()> {
    let plan = args.plan()?;
    let json = plan.json.clone();
    bench::run(json.as_deref(), async |report| all(plan, report).await).await
}

async fn all(plan: args::Plan, report: &mut Report) -> Result<()> {
    let stage = Stage::set(plan, report).await?;
    let mut gate = stage.gate();
    for leg in &stage.plan.legs {
        match leg {
            Leg::Throughput => legs::throughput::run(&stage, &mut gate, report).await?,
            Leg::Latency => legs::latency::run(&stage, &mut gate, report).await?,
            Leg::Idle => legs::idle::run(&stage, report).await?,
            Leg::Tunnels => legs::tunnels::run(&stage, &mut gate, report).await?,
            Leg::Streaming => legs::streaming::run(&stage, &mut gate, report).await?,
        }
    }
    Ok(())
}
