//! The bench of the in-pod runtime: what a command costs over its bare spawn, also when the server has
//! grown, how many go through, and what files cost, beside `cp` and the upstream Python stack in the same
//! run.
//!
//! `bench-runtime` calls [`run`]; `cargo xtask bench runtime` builds and starts it. Everything runs on the
//! loopback device of this machine. Rounds are interleaved and their order rotates, so that what
//! disturbs one peer disturbs all. Nothing outlives the run.

pub mod args;
pub mod execute;
pub mod figures;
pub mod floor;
pub mod grpc;
pub mod legs;
pub mod peers;
pub mod report;
pub mod rows;
pub mod server;
pub mod stage;

use anyhow::Result;

use crate::bench;
pub use args::Args;
use args::{Leg, Plan};
use report::Report;
use stage::Stage;

/// Measures, prints the tables, writes the JSON.
///
/// # Errors
/// When the arguments are wrong, a peer that is there does not start, or the runtime answers wrongly.
pub async fn run(args: Args) -> Result<()> {
    let plan = args.plan()?;
    let json = plan.json.clone();
    bench::run(json.as_deref(), async |report| measure(plan, report).await).await
}

/// Measures what the plan says.
///
/// # Errors
/// As [`run`].
pub async fn measure(plan: Plan, report: &mut Report) -> Result<()> {
    let stage = Stage::set(plan, report)?;
    let mut gate = stage.gate();
    for leg in &stage.plan.legs {
        match leg {
            Leg::Exec => legs::exec::run(&stage, &mut gate, report).await?,
            Leg::Grown => legs::grown::run(&stage, &mut gate, report).await?,
            Leg::Rate => legs::rate::run(&stage, &mut gate, report).await?,
            Leg::Output => legs::output::run(&stage, &mut gate, report).await?,
            Leg::Small => legs::small::run(&stage, &mut gate, report).await?,
            Leg::Transfer => legs::transfer::run(&stage, &mut gate, report).await?,
            Leg::Idle => legs::idle::run(&stage, report).await?,
        }
    }
    Ok(())
}
