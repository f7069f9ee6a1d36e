//! The bench of the router: what a request costs, what it adds to its time, what a connection and a
//! stream cost, beside nginx, HAProxy and the upstream routers in the same run.
//!
//! `bench-router` calls [`run`]; `cargo xtask bench router` builds and starts it. Everything runs on the
//! loopback device of this machine. Rounds are interleaved and their order rotates, so that what
//! disturbs one peer disturbs all; requests are counted against the proxy's processor time, which
//! neighbours hardly change. Nothing outlives the run.

pub mod args;
pub mod backend;
pub mod client;
pub mod figures;
pub mod generator;
pub mod legs;
pub mod peers;
pub mod placement;
pub mod program;
pub mod report;
pub mod rounds;
pub mod rows;
pub mod stage;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod watch;

use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::{Context, Result};

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
    let mut report = Report::default();
    let order = Shutdown::new();
    let outcome = tokio::select! {
        biased;
        signal = shutdown::signals(&order) => Err(match signal {
            Ok(name) => anyhow::anyhow!("interrupted by {name}"),
            Err(error) => anyhow::Error::new(error).context("cannot listen for signals"),
        }),
        outcome = Box::pin(all(plan, &mut report)) => outcome,
    };
    if let Err(error) = outcome {
        say("void; until then:");
        print(&report.text()?);
        return Err(error);
    }
    print(&report.text()?);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
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

/// One line per step, before the step starts.
#[expect(clippy::print_stdout, reason = "the program's terminal")]
fn say(step: &str) {
    println!("==> {step}");
}

#[expect(clippy::print_stdout, reason = "the program's result")]
fn print(text: &str) {
    println!("\n{text}");
}
