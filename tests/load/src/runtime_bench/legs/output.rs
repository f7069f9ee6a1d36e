//! 10 MiB of standard output in one answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, timeout};

use super::{Found, MEBIBYTE, P50, Setting, compare};
use crate::bench::client::Connection;
use crate::bench::figures::number;
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::server::Server;
use crate::runtime_bench::stage::Stage;
use crate::runtime_bench::{execute, floor};
use crate::statistics::Latencies;

/// What runs.
pub const SETTING: &str = "10 MiB of output, across processors";
/// By how much the largest resident set exceeds the one before.
pub const GROWTH: &str = "peak MiB over idle";
/// The output.
const LENGTH: usize = 10 << 20;
/// Makes it, of a letter that JSON does not escape.
const LINE: &str = r#"head -c 10485760 /dev/zero | tr "\0" a"#;
/// What an answer has besides.
const BESIDES: usize = 1024;
/// The default of the runtime would leave out the middle.
const MORE: [&str; 2] = ["--max-output-bytes", "16777216"];
/// What one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let kinds = [Kind::SpawnPiped, Kind::Runtime, Kind::Python];
    let root = stage.root("output")?;
    let cast = stage.cast(&kinds, &root, &MORE, report).await?;
    let setting = Setting {
        leg: Leg::Output,
        name: SETTING,
        rounds: stage.plan.rounds,
    };
    compare(&cast, setting, gate, report, async |kind| {
        let runs = stage.plan.outputs;
        if kind == Kind::SpawnPiped {
            let samples = stage
                .placement
                .with_measured(|| floor::shell(LINE, LENGTH, runs))?;
            return median(&samples?);
        }
        ask(cast.server(kind)?, runs, stage.sees_memory).await
    })
    .await
}

fn median(samples: &[Duration]) -> Result<Found> {
    let found = Latencies::of(samples).context("nothing was measured")?;
    Ok(vec![(P50, found.p50)])
}

async fn ask(server: &Server, runs: usize, sees_memory: bool) -> Result<Found> {
    let request = execute::request(server.address, &format!("sh -c '{LINE}'"));
    let mut connection = Connection::open(server.address).await?;
    connection.enlarge();
    let tree = server.tree()?;
    let mut resident = None;
    if sees_memory {
        tree.forget_peak()?;
        resident = Some(tree.resident()?);
    }
    let mut samples = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let answer = timeout(ANSWER, connection.exchange(&request)).await??;
        samples.push(start.elapsed());
        let length = usize::try_from(answer.length)?;
        ensure!(
            answer.status == 200 && (LENGTH..LENGTH + BESIDES).contains(&length),
            "answered {} with {length} bytes instead of a few more than {LENGTH}",
            answer.status
        );
    }
    let mut found = median(&samples)?;
    if let Some(resident) = resident {
        let growth = tree.peak()?.saturating_sub(resident);
        found.push((GROWTH, number(growth) / MEBIBYTE));
    }
    Ok(found)
}
