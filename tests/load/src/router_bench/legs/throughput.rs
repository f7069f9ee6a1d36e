//! Requests a second of processor time: what a proxy can carry, whoever else is busy.

use anyhow::Result;

use super::{undisturbed, unless_void};
use crate::bench::figures::number;
use crate::bench::generator::{Generator, Load, Order};
use crate::bench::rounds::{self, Gate};
use crate::bench::say;
use crate::bench::tree::{Cpu, Tree};
use crate::router_bench::args::Leg;
use crate::router_bench::figures::Measure;
use crate::router_bench::peers::{Peer, Sandbox};
use crate::router_bench::report::Report;
use crate::router_bench::stage::Stage;

/// Requests by the clock.
pub const PER_SECOND: &str = "requests/s";
/// Requests by the proxy's processor time.
pub const PER_CPU_SECOND: &str = "requests/CPU-s";
/// What the program itself spends.
pub const USER: &str = "user us/request";
/// What the kernel spends on its behalf.
pub const SYSTEM: &str = "kernel us/request";
/// The setting that targets are about.
pub const USUAL: &str = "2 B, c=50";

struct Setting {
    name: &'static str,
    path: &'static str,
    length: u64,
    connections: u32,
}

const SETTINGS: [Setting; 5] = [
    setting(USUAL, "/2", 2, 50),
    setting("2 B, c=1", "/2", 2, 1),
    setting("2 B, c=200", "/2", 2, 200),
    setting("4 KiB, c=50", "/4096", 4096, 50),
    setting("1 MiB, c=50", "/1048576", 1 << 20, 50),
];

const fn setting(name: &'static str, path: &'static str, length: u64, connections: u32) -> Setting {
    Setting {
        name,
        path,
        length,
        connections,
    }
}

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let cast = stage.cast().await?;
    compare(stage, &cast, gate, report).await
}

/// Measures these.
pub async fn compare(
    stage: &Stage,
    cast: &[Peer],
    gate: &mut Gate,
    report: &mut Report,
) -> Result<()> {
    for setting in &SETTINGS {
        for round in 0..stage.plan.rounds {
            say(&format!(
                "throughput, {}, round {} of {}",
                setting.name,
                round + 1,
                stage.plan.rounds
            ));
            report.idle(gate.pass().await?);
            for peer in rounds::order(cast.len(), round).filter_map(|index| cast.get(index)) {
                let order = Order {
                    request: peer.request(&stage.site, Sandbox::Fixed, setting.path),
                    length: setting.length,
                    connections: setting.connections,
                    time: stage.plan.time,
                };
                if round == 0 {
                    let short = Order {
                        time: stage.plan.warm_up,
                        ..order.clone()
                    };
                    let warm = stage.generator.run(&short).await;
                    unless_void(warm, Leg::Throughput, setting.name, peer.kind, report)?;
                }
                let found = undisturbed(stage, cast, gate, report, async || {
                    measure(peer, &order, stage.generator).await
                })
                .await;
                let Some(found) =
                    unless_void(found, Leg::Throughput, setting.name, peer.kind, report)?
                else {
                    continue;
                };
                let mut note = |quantity, value| {
                    let measure = Measure {
                        leg: Leg::Throughput,
                        setting: setting.name,
                        quantity,
                    };
                    report.figures.note(measure, peer.kind, round, value);
                };
                let requests = number(found.load.requests);
                note(PER_SECOND, requests / found.load.elapsed.as_secs_f64());
                if let Some(cpu) = found.cpu.filter(|cpu| !cpu.all().is_zero()) {
                    note(PER_CPU_SECOND, requests / cpu.all().as_secs_f64());
                    note(USER, cpu.user.as_secs_f64() * 1e6 / requests);
                    note(SYSTEM, cpu.system.as_secs_f64() * 1e6 / requests);
                }
            }
        }
    }
    Ok(())
}

struct Found {
    load: Load,
    cpu: Option<Cpu>,
}

async fn measure(peer: &Peer, order: &Order, generator: Generator) -> Result<Found> {
    let tree = peer.tree()?;
    let before = tree.map(Tree::cpu).transpose()?;
    let load = generator.run(order).await?;
    let after = tree.map(Tree::cpu).transpose()?;
    peer.forget_output()?;
    Ok(Found {
        load,
        cpu: after.zip(before).map(|(after, before)| after.since(before)),
    })
}
