//! Named background tasks that are joined at shutdown.
//!
//! The workspace forbids a bare `tokio::spawn`: a task nobody joins can outlive its owner, and one
//! whose panic nobody sees turns a crash into a silence.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with one owner. Clones share the set.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

impl Tasks {
    /// An empty set, named in logs.
    pub fn new(name: &'static str) -> Self {
        Self {
            inner: Arc::new(Inner {
                name,
                tracker: TaskTracker::new(),
                abort: CancellationToken::new(),
            }),
        }
    }

    /// Starts `future`. A panic inside is logged with both names and does not spread. The task ends
    /// at the latest when [`Self::shutdown`] reaches its deadline or the last clone is dropped.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns; everything else spawns through it"
    )]
    pub fn spawn<F>(&self, task: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let set = self.inner.name;
        let abort = self.inner.abort.clone();
        let guarded = async move {
            // In a fixed order, as everywhere: what runs under a paused clock then runs the same way
            // each time.
            let outcome = tokio::select! {
                biased;
                () = abort.cancelled() => Ok(()),
                outcome = AssertUnwindSafe(future).catch_unwind() => outcome,
            };
            if let Err(panic) = outcome {
                let cause = panic
                    .downcast_ref::<&str>()
                    .map(ToString::to_string)
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned());
                tracing::error!(set, task, cause, "task panicked");
            }
        };
        tokio::spawn(self.inner.tracker.track_future(guarded)).abort_handle()
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.inner.tracker.is_empty()
    }

    /// Waits for every task, aborts those still running after `deadline`, and reports how many
    /// those were. A deadline of zero asks for the abort, so nobody is warned of it.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.inner.tracker.close();
        if tokio::time::timeout(deadline, self.inner.tracker.wait())
            .await
            .is_ok()
        {
            return 0;
        }
        let late = self.inner.tracker.len();
        if !deadline.is_zero() {
            tracing::warn!(
                set = self.inner.name,
                late,
                "aborting tasks that outlived the deadline"
            );
        }
        self.inner.abort.cancel();
        self.inner.tracker.wait().await;
        late
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_joins_the_quick_and_aborts_the_stuck() {
        let tasks = Tasks::new("test");
        let ran = Arc::new(AtomicBool::new(false));
        let flag = ran.clone();
        tasks.spawn("quick", async move { flag.store(true, Ordering::SeqCst) });
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.shutdown(Duration::from_secs(1)).await, 1);
        assert!(ran.load(Ordering::SeqCst));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_stays_inside_its_task() {
        let tasks = Tasks::new("test");
        tasks.spawn("broken", async { panic!("on purpose") });
        assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0);
    }

    #[tokio::test]
    async fn dropping_the_set_ends_its_tasks() {
        let tasks = Tasks::new("test");
        let (guard, ended) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("forever", async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        drop(tasks);
        assert!(ended.await.is_err());
    }
}
