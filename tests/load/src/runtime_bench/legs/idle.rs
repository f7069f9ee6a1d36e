//! Memory of a server without anything to do: fresh, after load, and each of several on one machine, as
//! sandboxes on a node are, which share the pages of their program.

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{Found, MEBIBYTE, Setting, note};
use crate::bench::figures::{Peer as _, number};
use crate::bench::tree::Tree;
use crate::bench::{memory, rounds, say};
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::execute;
use crate::runtime_bench::floor::TRUE;
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::stage::Stage;

/// A server that has run one command.
pub const FRESH: &str = "fresh, after one command";
/// A server that has carried load, which is over.
pub const AFTER: &str = "after 32 commands at a time";
/// One of [`SEVERAL`] servers, each of which has run one command.
pub const EACH: &str = "each of ten, after one command";
const SEVERAL: u8 = 10;
/// Its own pages, and its part of shared ones.
pub const PROPORTIONAL: &str = "PSS MiB";
/// All its pages.
pub const RESIDENT: &str = "RSS MiB";
const CONNECTIONS: usize = 32;

/// Measures, each server in a fresh process each time.
pub async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    if !stage.sees_memory {
        return Ok(());
    }
    let kinds = [Kind::Runtime, Kind::Python];
    let rounds = stage.plan.long_rounds;
    for round in 0..rounds {
        for kind in rounds::order(kinds.len(), round).filter_map(|index| kinds.get(index)) {
            let who = kind.who().context("it serves")?;
            if who.missing(&stage.plan).is_some() {
                continue;
            }
            say(&format!(
                "Idle: {}, round {} of {rounds}",
                kind.name(),
                round + 1
            ));
            let (fresh, after) = measure(stage, *kind).await.map_or_else(
                |error| (Err(error), None),
                |(fresh, after)| (Ok(fresh), Some(after)),
            );
            let each = each_of_several(stage, *kind).await;
            for (name, found) in [
                (FRESH, Some(fresh)),
                (AFTER, after.map(Ok)),
                (EACH, Some(each)),
            ] {
                let setting = Setting {
                    leg: Leg::Idle,
                    name,
                    rounds,
                };
                if let Some(found) = found {
                    note(report, setting, *kind, round, found)?;
                }
            }
        }
    }
    Ok(())
}

async fn measure(stage: &Stage, kind: Kind) -> Result<(Found, Found)> {
    let who = kind.who().context("it serves")?;
    let server = stage.start(who, &stage.root("idle")?, &[]).await?;
    let tree = server.tree()?;
    execute::one_at_a_time(server.address, TRUE, 1).await?;
    let fresh = sizes(tree).await?;
    execute::closed_loop(server.address, TRUE, CONNECTIONS, stage.plan.time).await?;
    sleep(stage.plan.rest).await;
    Ok((fresh, sizes(tree).await?))
}

/// The mean of servers that are there at once.
async fn each_of_several(stage: &Stage, kind: Kind) -> Result<Found> {
    let who = kind.who().context("it serves")?;
    let mut servers = Vec::new();
    for _ in 0..SEVERAL {
        let server = stage.start(who, &stage.root("idle")?, &[]).await?;
        execute::one_at_a_time(server.address, TRUE, 1).await?;
        servers.push(server);
    }
    // All are looked at when the youngest is at rest.
    if let Some(youngest) = servers.last() {
        memory::at_rest(youngest.tree()?).await?;
    }
    let mut sum = 0.0;
    for server in &servers {
        sum += number(server.tree()?.memory()?);
    }
    Ok(vec![(PROPORTIONAL, sum / f64::from(SEVERAL) / MEBIBYTE)])
}

async fn sizes(tree: Tree) -> Result<Found> {
    let proportional = memory::at_rest(tree).await?;
    Ok(vec![
        (PROPORTIONAL, proportional / MEBIBYTE),
        (RESIDENT, number(tree.resident()?) / MEBIBYTE),
    ])
}
