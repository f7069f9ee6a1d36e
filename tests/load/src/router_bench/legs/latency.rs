//! What a proxy adds to the time of a request: its percentiles less those of the sandbox asked directly
//! in the same round.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{undisturbed, unless_void};
use crate::bench::generator::{Load, Order};
use crate::bench::rounds::{self, Gate};
use crate::bench::say;
use crate::router_bench::args::Leg;
use crate::router_bench::figures::Measure;
use crate::router_bench::peers::{Kind, Peer, Sandbox};
use crate::router_bench::report::Report;
use crate::router_bench::stage::Stage;

/// The time of a request, and what of it the proxy adds, in microseconds.
pub const QUANTITIES: [(&str, &str); 3] = [
    ("p50 us", "p50 added us"),
    ("p90 us", "p90 added us"),
    ("p99 us", "p99 added us"),
];
/// Everything on one processor: no wake-up crosses processors, so the code alone is seen.
pub const ONE_PROCESSOR: &str = "one processor, c=1";
/// The proxy on its own processor.
pub const ACROSS: &str = "across processors, c=1";
/// Fifty at a time.
pub const LOADED: &str = "across processors, c=50";

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
    for (setting, connections, processor) in [
        (ONE_PROCESSOR, 1, stage.placement.rest),
        (ACROSS, 1, stage.placement.measured),
        (LOADED, 50, stage.placement.measured),
    ] {
        if setting == ACROSS && stage.placement.is_shared() {
            continue;
        }
        for tree in cast.iter().map(Peer::tree) {
            if let Some(tree) = tree? {
                tree.pin(processor)?;
            }
        }
        for round in 0..stage.plan.rounds {
            say(&format!(
                "latency, {setting}, round {} of {}",
                round + 1,
                stage.plan.rounds
            ));
            report.idle(gate.pass().await?);
            let mut loads = BTreeMap::new();
            for peer in rounds::order(cast.len(), round).filter_map(|index| cast.get(index)) {
                let order = Order {
                    request: peer.request(&stage.site, Sandbox::Fixed, "/2"),
                    length: 2,
                    connections,
                    time: stage.plan.time,
                };
                let load = undisturbed(stage, cast, gate, report, async || {
                    stage.generator.run(&order).await
                })
                .await;
                peer.forget_output()?;
                if let Some(load) = unless_void(load, Leg::Latency, setting, peer.kind, report)? {
                    loads.insert(peer.kind, load);
                }
            }
            note(report, setting, round, &loads);
        }
    }
    Ok(())
}

fn note(report: &mut Report, setting: &'static str, round: usize, loads: &BTreeMap<Kind, Load>) {
    let percentiles = |load: &Load| [load.p50, load.p90, load.p99];
    let direct = loads.get(&Kind::Direct).map(percentiles);
    for (kind, load) in loads {
        let found = percentiles(load).into_iter().zip(QUANTITIES).enumerate();
        for (index, (time, (absolute, added))) in found {
            let mut note = |quantity, value| {
                let measure = Measure {
                    leg: Leg::Latency,
                    setting,
                    quantity,
                };
                report.figures.note(measure, *kind, round, value);
            };
            note(absolute, time);
            let base = direct.and_then(|direct| direct.get(index).copied());
            if let Some(base) = base.filter(|_| *kind != Kind::Direct) {
                note(added, time - base);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_added_is_the_difference_within_a_round() {
        let load = |p50, p90, p99| Load {
            requests: 1,
            elapsed: Duration::from_secs(1),
            p50,
            p90,
            p99,
        };
        let loads = BTreeMap::from([
            (Kind::Direct, load(18.0, 20.0, 30.0)),
            (Kind::Nginx, load(43.0, 50.0, 80.0)),
        ]);
        let mut report = Report::default();
        note(&mut report, ONE_PROCESSOR, 0, &loads);
        let rounds = |quantity, kind| {
            let measure = Measure {
                leg: Leg::Latency,
                setting: ONE_PROCESSOR,
                quantity,
            };
            let figure = report.figures.figure(measure)?;
            figure.rounds.get(&kind).cloned()
        };
        assert_eq!(rounds("p50 us", Kind::Direct), Some(vec![Some(18.0)]));
        assert_eq!(rounds("p50 added us", Kind::Nginx), Some(vec![Some(25.0)]));
        assert_eq!(rounds("p99 added us", Kind::Nginx), Some(vec![Some(50.0)]));
        assert_eq!(rounds("p50 added us", Kind::Direct), None);
    }
}
