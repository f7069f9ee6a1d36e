//! One part of the platform: its tasks, its order to stop, and word of its failure.
//!
//! The stop has an order, so each part has its own order to stop.

use std::time::Duration;

use agent_sandbox_service::causes;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use tokio::sync::mpsc;

/// How long a part may take to stop before it is cut.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A part that runs.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    shutdown: Shutdown,
    tasks: Tasks,
}

/// A part that ended while it should run.
#[derive(Debug, thiserror::Error)]
#[error("the {part} stopped by itself: {cause}")]
pub struct Failure {
    part: &'static str,
    cause: String,
}

impl Part {
    /// Runs a part; its end without an order to stop is reported to `failed`.
    pub fn run<F, R, E>(name: &'static str, failed: &mpsc::Sender<Failure>, run: F) -> Self
    where
        F: FnOnce(Shutdown) -> R,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let part = Self {
            name,
            shutdown: Shutdown::new(),
            tasks: Tasks::new(name),
        };
        let (failed, order) = (failed.clone(), part.shutdown.clone());
        let running = run(part.shutdown.clone());
        part.tasks.spawn(name, async move {
            let outcome = running.await;
            if order.is_triggered() {
                if let Err(error) = outcome {
                    tracing::warn!(part = name, %error, "stopped with an error");
                }
                return;
            }
            let cause = match outcome {
                Ok(()) => "no reason given".to_owned(),
                Err(error) => causes::on_one_line(&error),
            };
            if failed.send(Failure { part: name, cause }).await.is_err() {
                tracing::debug!(part = name, "nobody waits for failures any more");
            }
        });
        part
    }

    /// Stops it, and cuts what is late.
    pub async fn stop(&self) {
        self.shutdown.trigger();
        let late = self.tasks.shutdown(STOP_DEADLINE).await;
        if late > 0 {
            tracing::warn!(part = self.name, late, "had to be cut off");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Full(#[source] std::io::Error);

    #[tokio::test]
    async fn an_end_without_an_order_is_a_failure() {
        let (failed, mut failures) = mpsc::channel(1);
        let part = Part::run("node", &failed, |_| async {
            Err(Full(std::io::Error::other("no space")))
        });
        let failure = failures.recv().await.unwrap();
        assert_eq!(
            failure.to_string(),
            "the node stopped by itself: the disk is full: no space"
        );
        part.stop().await;
    }

    #[tokio::test]
    async fn an_ordered_end_is_none() {
        let (failed, mut failures) = mpsc::channel(1);
        let part = Part::run("router", &failed, |order| async move {
            order.triggered().await;
            Ok::<(), Infallible>(())
        });
        part.stop().await;
        drop(failed);
        assert!(failures.recv().await.is_none());
    }
}
