//! Files of 4 KiB: the time of a GET, and how many a second.

use anyhow::{Context, Result};

use super::{Found, Setting, compare, is_apart};
use crate::bench::figures::number;
use crate::bench::generator::{Generator, Order};
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::server::Server;
use crate::runtime_bench::stage::Stage;

/// One at a time, everything on one processor.
pub const ONE_PROCESSOR: &str = "GET 4 KiB, c=1, one processor";
/// One at a time.
pub const ACROSS: &str = "GET 4 KiB, c=1, across processors";
/// 32 at a time.
pub const MANY: &str = "GET 4 KiB, c=32, across processors";
/// The middle.
pub const P50: &str = "p50 us";
/// 99 in a hundred.
pub const P99: &str = "p99 us";
/// By the clock.
pub const PER_SECOND: &str = "requests/s";
/// By the server's processor time.
pub const PER_CPU_SECOND: &str = "requests/CPU-s";
const NAME: &str = "small";
const LENGTH: u16 = 4096;

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let root = stage.root("small")?;
    let file = root.join(NAME);
    std::fs::write(&file, vec![b'x'; LENGTH.into()])
        .with_context(|| format!("cannot write {}", file.display()))?;
    let generator = stage.plan.generator;
    report.about("generator of small requests", generator.text());
    let kinds = [Kind::Runtime, Kind::Legacy, Kind::Python];
    let cast = stage.cast(&kinds, &root, &[], report).await?;
    for (name, connections, processor) in [
        (ONE_PROCESSOR, 1, stage.placement.rest),
        (ACROSS, 1, stage.placement.measured),
        (MANY, 32, stage.placement.measured),
    ] {
        if name == ACROSS && !is_apart(stage) {
            continue;
        }
        cast.pin(processor)?;
        let setting = Setting {
            leg: Leg::Small,
            name,
            rounds: stage.plan.rounds,
        };
        compare(&cast, setting, gate, report, async |kind| {
            let server = cast.server(kind)?;
            let order = Order {
                request: server.request(&path(kind, NAME)),
                length: LENGTH.into(),
                connections,
                time: stage.plan.time,
            };
            load(server, &order, generator).await
        })
        .await?;
    }
    Ok(())
}

/// Where one has a file for reading.
pub(super) fn path(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Runtime => format!("/v1/files/{name}"),
        _ => format!("/download/{name}"),
    }
}

async fn load(server: &Server, order: &Order, generator: Generator) -> Result<Found> {
    let tree = server.tree()?;
    let (before, _) = tree.root_time()?;
    let load = generator.run(order).await?;
    let (after, _) = tree.root_time()?;
    let requests = number(load.requests);
    let mut found = vec![
        (P50, load.p50),
        (P99, load.p99),
        (PER_SECOND, requests / load.elapsed.as_secs_f64()),
    ];
    let spent = after.saturating_sub(before);
    if !spent.is_zero() {
        found.push((PER_CPU_SECOND, requests / spent.as_secs_f64()));
    }
    Ok(found)
}
