//! The time of a command, one at a time over a kept connection, beside bare spawns of the same program.

use std::time::Duration;

use anyhow::Result;

use super::{Setting, compare, is_apart, percentiles};
use crate::bench::placement::Placement;
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::floor::{self, ECHO, TRUE, Task};
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::stage::{Cast, Stage};
use crate::runtime_bench::{execute, grpc};

/// Everything on one processor: no wake-up crosses processors, so the code alone is seen.
pub const ONE_PROCESSOR: &str = "true, one processor";
/// The server and its commands on their own processor.
pub const ACROSS: &str = "true, across processors";
/// The same, and something is written.
pub const ECHOED: &str = "echo hi, across processors";
/// Commands before the first round.
const WARM_UP: usize = 20;

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let kinds = [
        Kind::Spawn,
        Kind::SpawnPiped,
        Kind::Runtime,
        Kind::Grpc,
        Kind::Python,
    ];
    let root = stage.root("exec")?;
    let cast = stage.cast(&kinds, &root, &[], report).await?;
    for kind in &cast.kinds {
        samples(&cast, *kind, TRUE, WARM_UP, Place::Here).await?;
    }
    let apart = Place::Apart(stage.placement);
    for (name, task, place) in [
        (ONE_PROCESSOR, TRUE, Place::Here),
        (ACROSS, TRUE, apart),
        (ECHOED, ECHO, apart),
    ] {
        if place == Place::Here {
            cast.pin(stage.placement.rest)?;
        } else if is_apart(stage) {
            cast.pin(stage.placement.measured)?;
        } else {
            continue;
        }
        let setting = Setting {
            leg: Leg::Exec,
            name,
            rounds: stage.plan.rounds,
        };
        compare(&cast, setting, gate, report, async |kind| {
            percentiles(&samples(&cast, kind, task, stage.plan.runs, place).await?)
        })
        .await?;
    }
    Ok(())
}

/// How long each command takes; the floors run where the server does.
pub async fn samples(
    cast: &Cast,
    kind: Kind,
    task: Task,
    runs: usize,
    place: Place,
) -> Result<Vec<Duration>> {
    match kind {
        Kind::Spawn => place.run(|| floor::bare(task, runs)),
        Kind::SpawnPiped => place.run(|| floor::piped(task, runs)),
        Kind::Grpc => {
            let address = cast.server(kind)?.address;
            grpc::one_at_a_time(address, task.words, task.output, runs).await
        }
        _ => execute::one_at_a_time(cast.server(kind)?.address, task, runs).await,
    }
}

/// Where floors run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// With the client, where this thread is.
    Here,
    /// Where the server is when it is apart.
    Apart(Placement),
}

impl Place {
    fn run<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Here => work(),
            Self::Apart(placement) => placement.with_measured(work)?,
        }
    }
}
