//! A start under way: who gives it up when it takes too long, and what a thread hands back from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use super::driver::Driver;
use super::process::Leash;
use super::table::Table;

/// A child that is being made at one look and still at the next is given up.
const LOOK: Duration = Duration::from_secs(10);

/// Watches a start, also when nobody waits for it any more: a child that has not loaded its program in
/// time is killed, and whoever started it is told that it failed.
pub(super) struct Watch {
    making: Arc<AtomicI32>,
    tasks: Tasks,
    /// Ends with the start. `None` when that is over.
    under_way: Option<oneshot::Receiver<()>>,
}

/// What the start itself holds while it is under way.
pub(super) struct UnderWay {
    /// Where it says which child it is making.
    pub(super) making: Arc<AtomicI32>,
    _ends: oneshot::Sender<()>,
}

impl Watch {
    pub(super) fn new(tasks: Tasks) -> (Self, UnderWay) {
        let (ends, under_way) = oneshot::channel();
        let making = Arc::<AtomicI32>::default();
        let watch = Self {
            making: making.clone(),
            tasks,
            under_way: Some(under_way),
        };
        let start = UnderWay {
            making,
            _ends: ends,
        };
        (watch, start)
    }

    /// What became of the start.
    pub(super) async fn over<T>(mut self, start: JoinHandle<T>) -> Result<T, JoinError> {
        // A timer of this task: one of another would wake the event loop once more for every command.
        let outcome = guarded(&self.making, start).await;
        self.under_way = None;
        outcome
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            let making = self.making.clone();
            self.tasks.spawn("watch a start", async move {
                // It says nothing but that it is gone.
                guarded(&making, under_way).await.ok();
            });
        }
    }
}

/// Waits for a start, and kills the child that it takes too long to make.
async fn guarded<F: Future>(making: &AtomicI32, start: F) -> F::Output {
    let mut start = std::pin::pin!(start);
    let mut seen = 0;
    loop {
        if let Ok(outcome) = tokio::time::timeout(LOOK, &mut start).await {
            return outcome;
        }
        let now = making.load(Ordering::Acquire);
        if now == seen {
            give_up(now);
        }
        seen = now;
    }
}

fn give_up(child: i32) {
    if let Some(pid) = Pid::from_raw(child) {
        tracing::warn!("a command that did not start in time is given up");
        // Nobody waits for it before its start returns, so the number is still its own.
        if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
            tracing::warn!(%error, "it cannot be killed");
        }
    }
}

/// A command that has started. Whoever drops it lets the command be ended, and driven until then.
pub(super) struct Started<T> {
    pub(super) leash: Leash,
    /// What was attached to its output.
    pub(super) attached: T,
    pub(super) driver: Undriven,
}

impl<T> Started<T> {
    pub(super) fn drive(self) -> (Leash, T) {
        drop(self.driver);
        (self.leash, self.attached)
    }
}

/// A driver that has not been started. It is when this is dropped, whatever happens to a start.
pub(super) struct Undriven {
    pub(super) driver: Option<Driver>,
    pub(super) table: Arc<Mutex<Table>>,
    /// How many commands of its kind stay in the table.
    pub(super) kept: usize,
    pub(super) tasks: Tasks,
}

impl Drop for Undriven {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            let (table, kept) = (self.table.clone(), self.kept);
            let id = driver.process.id();
            self.tasks.spawn("command", async move {
                driver.run(|| table.lock().end(id, kept)).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// The clock is paused, and goes on when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_child_that_stays_unmade_is_killed_and_none_that_is_new() {
        let tasks = Tasks::new("test");
        let (watch, start) = Watch::new(tasks.clone());
        drop(watch);
        // For long it waits for its turn, and makes nothing.
        tokio::time::sleep(LOOK * 10 + LOOK / 2).await;
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        start.making.store(pid, Ordering::Release);
        tokio::time::sleep(LOOK).await;
        assert!(child.try_wait().unwrap().is_none(), "it was new");
        tokio::time::sleep(LOOK).await;
        // The signal is under way; the paused clock knows nothing of how long that takes.
        let status = (0..60_000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            child.try_wait().unwrap()
        });
        child.kill().unwrap();
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
    }

    #[tokio::test]
    async fn who_watches_for_nobody_ends_with_the_start() {
        let tasks = Tasks::new("test");
        let (watch, start) = Watch::new(tasks.clone());
        drop(watch);
        assert_eq!(tasks.len(), 1);
        drop(start);
        assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0);
    }
}
