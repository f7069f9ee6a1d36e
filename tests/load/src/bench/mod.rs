//! What the benches of programs share: rounds that are interleaved, figures and their ratios, a watch for
//! others on the machine, programs that end with their owner, and the report.

pub mod client;
pub mod figures;
pub mod generator;
pub mod installed;
pub mod memory;
pub mod placement;
pub mod program;
pub mod report;
pub mod rounds;
pub mod targets;
pub mod tree;
pub mod watch;

use std::path::Path;

use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::{Context, Result};

use report::{Bench, Report};

/// Runs a bench to its end or to an interrupt, prints the tables, and writes the JSON if it was not
/// interrupted.
///
/// # Errors
/// Those of `measure`, the interrupt, or that the JSON cannot be written.
pub async fn run<B: Bench>(
    json: Option<&Path>,
    measure: impl AsyncFnOnce(&mut Report<B>) -> Result<()>,
) -> Result<()> {
    let mut report = Report::default();
    let signalled = shutdown::signals(&Shutdown::new()).context("cannot listen for signals")?;
    let outcome = tokio::select! {
        biased;
        signal = signalled => Err(anyhow::anyhow!("interrupted by {signal}")),
        outcome = Box::pin(measure(&mut report)) => outcome,
    };
    if let Err(error) = outcome {
        say("void; until then:");
        print(&report.text()?);
        return Err(error);
    }
    print(&report.text()?);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One line per step, before the step starts.
#[expect(clippy::print_stdout, reason = "the program's terminal")]
pub fn say(step: &str) {
    println!("==> {step}");
}

#[expect(clippy::print_stdout, reason = "the program's result")]
fn print(text: &str) {
    println!("\n{text}");
}
