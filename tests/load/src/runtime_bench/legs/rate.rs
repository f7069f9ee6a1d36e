//! Commands a second in a closed loop, and what one costs: the server alone, and with its commands.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Found, Setting, compare, is_apart};
use crate::bench::figures::number;
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::execute;
use crate::runtime_bench::floor::{self, TRUE};
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::server::Server;
use crate::runtime_bench::stage::Stage;

/// By the clock.
pub const PER_SECOND: &str = "commands/s";
/// What the server itself spends, without its children.
pub const SERVER: &str = "CPU-s/1000, server";
/// The same with its children, from their birth to their end.
pub const WHOLE: &str = "CPU-s/1000, with children";
/// Eight at a time, the server on its own processor.
pub const EIGHT: &str = "true, 8 at a time, across processors";
/// 32 at a time.
pub const MANY: &str = "true, 32 at a time, across processors";
/// 32 at a time, where server, commands and client use what there is.
pub const EVERYWHERE: &str = "true, 32 at a time, server on both processors";

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let kinds = [Kind::Spawn, Kind::Runtime, Kind::Python];
    let root = stage.root("rate")?;
    let cast = stage.cast(&kinds, &root, &[], report).await?;
    let one = [stage.placement.measured];
    let both = [stage.placement.measured, stage.placement.rest];
    for (name, connections, processors) in [
        (EIGHT, 8, one.as_slice()),
        (MANY, 32, one.as_slice()),
        (EVERYWHERE, 32, both.as_slice()),
    ] {
        if name == EVERYWHERE && !is_apart(stage) {
            continue;
        }
        cast.spread(processors)?;
        let setting = Setting {
            leg: Leg::Rate,
            name,
            rounds: stage.plan.rounds,
        };
        let time = stage.plan.time;
        compare(&cast, setting, gate, report, async |kind| match kind {
            Kind::Spawn => Ok(vec![(PER_SECOND, floor::rate(TRUE, time, processors)?)]),
            _ => load(cast.server(kind)?, connections, time).await,
        })
        .await?;
    }
    Ok(())
}

async fn load(server: &Server, connections: usize, time: Duration) -> Result<Found> {
    let tree = server.tree()?;
    let before = tree.root_time()?;
    let (done, elapsed) = execute::closed_loop(server.address, TRUE, connections, time).await?;
    let after = tree.root_time()?;
    ensure!(done > 0, "no command was answered");
    let thousands = number(done) / 1000.0;
    let spent = |before, after: Duration| after.saturating_sub(before).as_secs_f64() / thousands;
    Ok(vec![
        (PER_SECOND, number(done) / elapsed.as_secs_f64()),
        (SERVER, spent(before.0, after.0)),
        (WHOLE, spent(before.1, after.1)),
    ])
}
