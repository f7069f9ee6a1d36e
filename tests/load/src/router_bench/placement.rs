//! Which processor runs what: the proxy has one, the generator and the backend share another.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// The processors in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Placement {
    /// Where proxies run.
    pub proxy: usize,
    /// Where generator and backend run; the same one on a machine with a single processor.
    pub rest: usize,
}

impl Placement {
    /// The first processor this process may use is for the proxies, the second for the rest.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the processor affinity")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let proxy = usable.next().context("no processor is allowed")?;
        Ok(Self {
            proxy,
            rest: usable.next().unwrap_or(proxy),
        })
    }

    /// Whether there is only one.
    pub fn is_shared(self) -> bool {
        self.proxy == self.rest
    }

    /// Moves this thread, and what it starts from now on, to the rest's processor.
    pub fn settle(self) -> Result<()> {
        pin(self.rest)
    }

    /// Starts something on the proxies' processor: children and threads inherit the place of the
    /// thread that starts them.
    pub fn with_proxy<T>(self, start: impl FnOnce() -> T) -> Result<T> {
        let before = sched_getaffinity(None).context("cannot read the processor affinity")?;
        pin(self.proxy)?;
        let started = start();
        sched_setaffinity(None, &before).context("cannot restore the processor affinity")?;
        Ok(started)
    }

    /// What was done, for the report.
    pub fn text(self) -> String {
        if self.is_shared() {
            return format!(
                "one processor ({}) for everything: no figure is free of the generator's share",
                self.proxy
            );
        }
        format!(
            "proxies on processor {}, generator and backend on processor {} (sched_setaffinity)",
            self.proxy, self.rest
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
                .with_proxy(|| sched_getaffinity(None).unwrap())
                .unwrap();
            assert!(inside.is_set(placement.proxy) && inside.count() == 1);
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
        let one = Placement { proxy: 0, rest: 0 };
        assert!(one.text().contains("one processor"));
        let two = Placement { proxy: 0, rest: 3 };
        assert!(two.text().contains("proxies on processor 0") && !two.is_shared());
    }
}
