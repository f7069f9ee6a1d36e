//! The time of a command while the server holds 1 GiB: what copies page tables pays for each of them.

use anyhow::Result;

use super::exec::{Place, samples};
use super::{P50, Setting, compare, percentiles};
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::figures::Measure;
use crate::runtime_bench::floor::TRUE;
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::stage::Stage;

/// Where it is measured.
pub const SETTING: &str = "true, one processor, server idle or holding 1 GiB";
/// The middle through that of the same server without anything to hold.
pub const RATIO: &str = "p50 to that of the idle one";
/// The settings whose servers differ in what they hold.
pub const PAIRS: [(Kind, Kind); 2] = [
    (Kind::Grown, Kind::Embedded),
    (Kind::PythonGrown, Kind::Python),
];
/// Commands before the first round.
const WARM_UP: usize = 20;

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let kinds = [Kind::Embedded, Kind::Grown, Kind::Python, Kind::PythonGrown];
    let root = stage.root("grown")?;
    let cast = stage.cast(&kinds, &root, &[], report).await?;
    cast.pin(stage.placement.rest)?;
    for kind in &cast.kinds {
        samples(&cast, *kind, TRUE, WARM_UP, Place::Here).await?;
    }
    let setting = Setting {
        leg: Leg::Grown,
        name: SETTING,
        rounds: stage.plan.rounds,
    };
    compare(&cast, setting, gate, report, async |kind| {
        percentiles(&samples(&cast, kind, TRUE, stage.plan.runs, Place::Here).await?)
    })
    .await?;
    note_ratios(report);
    Ok(())
}

/// Notes in each round what holding memory does.
fn note_ratios(report: &mut Report) {
    let measure = |quantity| Measure {
        leg: Leg::Grown,
        setting: SETTING,
        quantity,
    };
    let Some(figure) = report.figures.figure(measure(P50)).cloned() else {
        return;
    };
    for (grown, idle) in PAIRS {
        let rounds = |kind| figure.rounds.get(&kind).into_iter().flatten();
        for (round, (grown_time, idle_time)) in rounds(grown).zip(rounds(idle)).enumerate() {
            if let (Some(grown_time), Some(idle_time)) = (grown_time, idle_time) {
                let ratio = grown_time / idle_time;
                report.figures.note(measure(RATIO), grown, round, ratio);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_made_within_a_round() {
        let mut report = Report::default();
        let measure = |quantity| Measure {
            leg: Leg::Grown,
            setting: SETTING,
            quantity,
        };
        for (round, (grown, idle)) in [(3.0, 2.0), (4.0, 4.0)].into_iter().enumerate() {
            let figures = &mut report.figures;
            figures.note(measure(P50), Kind::Grown, round, grown);
            figures.note(measure(P50), Kind::Embedded, round, idle);
        }
        // The other of the pair is void.
        report.figures.note(measure(P50), Kind::PythonGrown, 0, 9.0);
        note_ratios(&mut report);
        let figure = report.figures.figure(measure(RATIO)).unwrap();
        let rounds = &figure.rounds[&Kind::Grown];
        assert_eq!(rounds, &[Some(1.5), Some(1.0)]);
        assert_eq!(figure.rounds.len(), 1);
    }
}
