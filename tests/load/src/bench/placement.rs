//! Which processor runs what: what is measured has one, the rest shares another.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// The processors in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Placement {
    /// Where what is measured runs.
    pub measured: usize,
    /// Where everything else runs; the same one on a machine with a single processor.
    pub rest: usize,
}

impl Placement {
    /// The first processor this process may use is for what is measured, the second for the rest.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the processor affinity")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let measured = usable.next().context("no processor is allowed")?;
        Ok(Self {
            measured,
            rest: usable.next().unwrap_or(measured),
        })
    }

    /// Whether there is only one.
    pub fn is_shared(self) -> bool {
        self.measured == self.rest
    }

    /// Moves this thread, and what it starts from now on, to the rest's processor.
    pub fn settle(self) -> Result<()> {
        pin(self.rest)
    }

    /// Starts something where what is measured runs: children and threads inherit the place of the
    /// thread that starts them.
    pub fn with_measured<T>(self, start: impl FnOnce() -> T) -> Result<T> {
        let before = sched_getaffinity(None).context("cannot read the processor affinity")?;
        pin(self.measured)?;
        let started = start();
        sched_setaffinity(None, &before).context("cannot restore the processor affinity")?;
        Ok(started)
    }

    /// What was done, for the report, with the names of what is measured and of the rest.
    pub fn text(self, [measured, rest]: [&str; 2]) -> String {
        if self.is_shared() {
            return format!(
                "one processor ({}) for everything: no figure is free of the generator's share",
                self.measured
            );
        }
        format!(
            "{measured} on processor {}, {rest} on processor {} (sched_setaffinity)",
            self.measured, self.rest
        )
    }
}

fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot run on processor {processor} alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_has_its_place() {
        // A thread of its own, so that the place of other tests is left alone.
        std::thread::spawn(|| {
            let placement = Placement::choose().unwrap();
            let before = sched_getaffinity(None).unwrap().count();
            let inside = placement
                .with_measured(|| sched_getaffinity(None).unwrap())
                .unwrap();
            assert!(inside.is_set(placement.measured) && inside.count() == 1);
            assert_eq!(sched_getaffinity(None).unwrap().count(), before);
            placement.settle().unwrap();
            let settled = sched_getaffinity(None).unwrap();
            assert!(settled.is_set(placement.rest) && settled.count() == 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn one_processor_is_told() {
        let one = Placement {
            measured: 0,
            rest: 0,
        };
        assert!(one.text(["proxies", "the rest"]).contains("one processor"));
        let two = Placement {
            measured: 0,
            rest: 3,
        };
        assert!(
            two.text(["proxies", "the rest"])
                .contains("proxies on processor 0")
                && !two.is_shared()
        );
    }
}
