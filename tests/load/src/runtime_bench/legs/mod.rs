//! The parts of the bench. Each starts its own servers, so that none is marked by an earlier part.

pub mod exec;
pub mod grown;
pub mod idle;
pub mod output;
pub mod rate;
pub mod small;
pub mod transfer;

use std::time::Duration;

use anyhow::{Context, Result};

use super::args::Leg;
use super::figures::Measure;
use super::peers::Kind;
use super::report::Report;
use super::stage::{Cast, Stage};
use crate::bench::figures::Peer as _;
use crate::bench::rounds::{self, Gate};
use crate::bench::say;
use crate::statistics::Latencies;

/// Bytes of a MiB.
pub const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The middle, in milliseconds.
pub const P50: &str = "p50 ms";
/// Nine in ten.
pub const P90: &str = "p90 ms";
/// 99 in a hundred.
pub const P99: &str = "p99 ms";

/// One setting of a leg.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The leg.
    pub leg: Leg,
    /// Its name.
    pub name: &'static str,
    /// How many rounds.
    pub rounds: usize,
}

/// What a measurement found: quantities and their values.
pub type Found = Vec<(&'static str, f64)>;

/// All rounds of a setting, everybody in each.
async fn compare(
    cast: &Cast,
    setting: Setting,
    gate: &mut Gate,
    report: &mut Report,
    measure: impl AsyncFn(Kind) -> Result<Found>,
) -> Result<()> {
    let Setting { leg, name, rounds } = setting;
    for round in 0..rounds {
        say(&format!("{leg:?}: {name}, round {} of {rounds}", round + 1));
        report.idle(gate.pass().await?);
        let order = rounds::order(cast.kinds.len(), round);
        for kind in order.filter_map(|index| cast.kinds.get(index).copied()) {
            let found = cast
                .undisturbed(gate, report, async || measure(kind).await)
                .await;
            note(report, setting, kind, round, found)?;
        }
    }
    Ok(())
}

/// Notes what was found, or that it is void. Only the peer may fail.
fn note(
    report: &mut Report,
    setting: Setting,
    kind: Kind,
    round: usize,
    found: Result<Found>,
) -> Result<()> {
    let Setting {
        leg, name: setting, ..
    } = setting;
    let found = match found {
        Ok(found) => found,
        Err(error) if kind.is_foreign() => {
            report.void(kind, leg, &format!("{setting}: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("{}, {setting}", kind.name())),
    };
    for (quantity, value) in found {
        let measure = Measure {
            leg,
            setting,
            quantity,
        };
        report.figures.note(measure, kind, round, value);
    }
    Ok(())
}

/// The percentiles of some times.
fn percentiles(samples: &[Duration]) -> Result<Found> {
    let found = Latencies::of(samples).context("nothing was measured")?;
    Ok(vec![(P50, found.p50), (P90, found.p90), (P99, found.p99)])
}

/// Whether client and server can be apart; if not, legs about that are left out.
fn is_apart(stage: &Stage) -> bool {
    !stage.placement.is_shared()
}
