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

/// Triggers `shutdown` at the first SIGINT or SIGTERM and returns the name of the signal.
///
/// # Errors
/// When the process cannot install signal handlers.
pub async fn signals(shutdown: &Shutdown) -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        () = shutdown.triggered() => "none",
    };
    shutdown.trigger();
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::Shutdown;

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
