//! Whether others worked on the machine while something was measured.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use tokio::time::Instant;

use super::report::{Bench, Report};
use super::rounds::Gate;
use super::tree::Tree;
use crate::machine::{self, Processes, Times};

/// Others may use this share of the machine before what was measured is worth less.
pub const TOLERATED: f64 = 0.10;

/// The clocks when it began.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    machine: Times,
    ours: Duration,
    trees: Vec<Tree>,
}

impl Watch {
    /// Begins. What the bench and these trees use is not others' work.
    pub fn begin(trees: Vec<Tree>) -> Result<Self> {
        Ok(Self {
            ours: ours(&trees)?,
            machine: Processes::default().times()?,
            started: Instant::now(),
            trees,
        })
    }

    /// The share of the machine that others have used since.
    pub fn foreign(&self) -> Result<f64> {
        let machine = Processes::default().times()?.since(&self.machine);
        let ours = ours(&self.trees)?.saturating_sub(self.ours);
        Ok(share(machine.busy(), machine.idle(), ours))
    }

    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Measures, and measures again if others worked meanwhile, for as long as patience lasts. What `trees`
/// do is not others' work.
pub async fn undisturbed<B: Bench, T>(
    trees: &[Tree],
    gate: &mut Gate,
    report: &mut Report<B>,
    measure: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    loop {
        let watch = Watch::begin(trees.to_vec())?;
        let found = measure().await?;
        let foreign = watch.foreign()?;
        if foreign <= TOLERATED || !gate.again(watch.elapsed()) {
            report.foreign(foreign);
            return Ok(found);
        }
        report.discarded();
    }
}

fn share(busy: Duration, idle: Duration, ours: Duration) -> f64 {
    let whole = (busy + idle).as_secs_f64();
    if whole == 0.0 {
        return 0.0;
    }
    busy.saturating_sub(ours).as_secs_f64() / whole
}

/// Processor time of the trees, of this process, and of the generators it has waited for.
fn ours(trees: &[Tree]) -> Result<Duration> {
    let path = format!(
        "/proc/{}/stat",
        Pid::as_raw(Some(rustix::process::getpid()))
    );
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let own = machine::whole_time(&stat).with_context(|| format!("{path} is unknown"))?;
    trees
        .iter()
        .try_fold(own, |sum, tree| Ok(sum + tree.whole_time()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_foreign() {
        let seconds = Duration::from_secs;
        assert!((share(seconds(3), seconds(1), seconds(2)) - 0.25).abs() < 1e-9);
        // Clocks are read one after the other.
        assert!(share(seconds(3), seconds(1), seconds(4)).abs() < 1e-9);
        assert!(share(Duration::ZERO, Duration::ZERO, Duration::ZERO).abs() < 1e-9);
    }

    #[test]
    fn own_time_is_known() {
        assert!(ours(&[]).unwrap() < Duration::from_secs(3600));
    }
}
