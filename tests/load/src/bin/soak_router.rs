//! `soak-router`: load on the router, for as long and as large as one likes. `cargo xtask soak router`
//! builds and runs it.

use std::process::ExitCode;
use std::time::Duration;

use agent_sandbox_load::{bodies, many, soak};
use agent_sandbox_service::causes;
use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};

/// What the user says.
#[derive(Debug, Parser)]
#[command(
    name = "soak-router",
    version,
    about = "Load on the router: very many connections, very large bodies, and an hour of everything mixed"
)]
struct Args {
    /// What to do; everything when none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LEG,...")]
    legs: Vec<Leg>,
    /// How long the mixed load goes on
    #[arg(long, default_value_t = 60, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How often everything stops meanwhile, to see what the router keeps
    #[arg(long, default_value_t = 12, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Clients of the mixed load at once
    #[arg(long, default_value_t = 48, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Sandboxes of the mixed load
    #[arg(long, default_value_t = 16, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(2..200))]
    sandboxes: u8,
    /// Size of the large body, each way
    #[arg(long, default_value_t = 10, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..1000))]
    gib: u64,
    /// What differs between runs of the mixed load; any number when not given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// One part of the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Leg {
    /// 10,000 idle tunnels and 1,000 active streams at once
    Many,
    /// A large body each way, and slow clients of every kind
    Bodies,
    /// Clients of every kind while pods are replaced
    Mixed,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    // What was started ends with what is dropped, so an interrupt must not end this program at once.
    let args = Args::parse();
    let outcome = match shutdown::signals(&Shutdown::new()) {
        Ok(signalled) => tokio::select! {
            outcome = run(args) => outcome,
            signal = signalled => Err(anyhow!("interrupted by {signal}")),
        },
        Err(error) => Err(anyhow!("cannot listen for signals: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let Args {
        legs,
        minutes,
        rounds,
        clients,
        sandboxes,
        gib,
        seed,
    } = args;
    let wanted = |leg| legs.is_empty() || legs.contains(&leg);
    if wanted(Leg::Many) {
        let plan = many::Plan {
            websockets: 10_000,
            streams: 1_000,
        };
        let report = many::run(plan, say).await?;
        say(&report.to_string());
        report.verdict()?;
    }
    if wanted(Leg::Bodies) {
        let plan = bodies::Plan {
            large: gib << 30,
            slow: 20,
        };
        bodies::run(plan, say).await?.verdict()?;
    }
    if wanted(Leg::Mixed) {
        let plan = soak::Plan {
            rounds,
            round: Duration::from_secs(minutes * 60) / rounds,
            clients,
            sandboxes,
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
        };
        say(&format!("seed {}", plan.seed));
        let report = soak::run(plan, say).await?;
        say(&report.to_string());
        report.verdict()?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the program's words to its user")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
