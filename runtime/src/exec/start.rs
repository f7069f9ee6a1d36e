//! A start under way: who gives it up when it takes too long, and what a thread hands back from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::task::{JoinError, JoinHandle};

use super::driver::Driver;
use super::process::Leash;
use super::table::Table;

/// How long loading a program may take.
const START_TIME: Duration = Duration::from_secs(20);

/// Watches a start, also when nobody waits for it any more: a child that has not loaded its program in
/// time is killed, and whoever started it is told that it failed.
pub(super) struct Watch {
    making: Arc<AtomicI32>,
    tasks: Tasks,
    over: bool,
}

impl Watch {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            making: Arc::default(),
            tasks,
            over: false,
        }
    }

    /// Where the start says which child it is making.
    pub(super) fn making(&self) -> Arc<AtomicI32> {
        self.making.clone()
    }

    /// What became of the start.
    pub(super) async fn over<T>(mut self, mut start: JoinHandle<T>) -> Result<T, JoinError> {
        // A timer of this task: one of another would wake the event loop once more for every command.
        let outcome = if let Ok(outcome) = tokio::time::timeout(START_TIME, &mut start).await {
            outcome
        } else {
            give_up(&self.making);
            start.await
        };
        self.over = true;
        outcome
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let making = self.making.clone();
        self.tasks.spawn("watch a start", async move {
            tokio::time::sleep(START_TIME).await;
            give_up(&making);
        });
    }
}

fn give_up(making: &AtomicI32) {
    if let Some(pid) = Pid::from_raw(making.load(Ordering::Acquire)) {
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
