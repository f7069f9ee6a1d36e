//! The order to stop, as a value that is passed down.
//!
//! Every long-running part takes a [`Shutdown`] and ends when it is triggered. Only a program's
//! `main` turns operating-system signals into that order, so parts can run side by side in one
//! process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A cloneable order to stop. Clones share one state; children stop with their parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// An order that has not been given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the order. Giving it twice changes nothing.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether the order has been given.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes when the order is given.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// An order that is given with this one and can also be given alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// The token underneath, for APIs that ask for one.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

/// Catches SIGINT and SIGTERM from this call on. The future triggers `shutdown` at the first of them
/// and completes with its name, or with `none` when the order was given by somebody else.
///
/// The handlers are there before this returns: a program that calls it before it listens or says that
/// it is ready is never killed by a signal it should have obeyed.
///
/// # Errors
/// When the process cannot install signal handlers.
///
/// # Panics
/// Outside a Tokio runtime with I/O.
pub fn signals(
    shutdown: &Shutdown,
) -> std::io::Result<impl Future<Output = &'static str> + Send + use<>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    Ok(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            () = shutdown.triggered() => "none",
        };
        shutdown.trigger();
        name
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::{Shutdown, signals};

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_is_obeyed() {
        let shutdown = Shutdown::new();
        let signalled = signals(&shutdown).unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signalled.await, "SIGTERM");
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_alone() {
        let parent = Shutdown::new();
        let child = parent.child();
        let lone = parent.child();
        lone.trigger();
        assert!(!parent.is_triggered() && !child.is_triggered());
        parent.trigger();
        child.triggered().await;
        assert!(child.is_triggered());
    }
}
