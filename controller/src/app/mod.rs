//! Wiring: which parts there are, in which order they start, and how they stop. [`Controller`] is the
//! whole operator; it takes clients and settings, touches no globals, and ends when it is told to or
//! when it loses the lease.

mod builder;
mod recording;
mod timers;
mod watches;
mod workers;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::readiness::Gate;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use tokio::sync::Notify;

pub use builder::Builder;

use crate::claim;
use crate::context::Context;
use crate::events::Recorder;
use crate::expiry::Deadlines;
use crate::fence::Fence;
use crate::lease::{Lease, Standing};
use crate::store::{Queues, Store};

use recording::Recording;
use timers::start_timers;
use watches::{keep_watch, start_watches};
use workers::start_workers;

/// How long passes in progress may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The metrics registry already has metrics of these names: two operators share one registry.
    #[error("metrics could not be registered; give each operator a registry of its own")]
    Metrics(#[from] prometheus::Error),
    /// Another replica leads, or the lease could not be renewed in time.
    #[error("the lease was lost; restart to stand by")]
    LostLease,
}

/// The operator, ready to run.
#[derive(Debug)]
pub struct Controller {
    cx: Arc<Context>,
    queues: Queues,
    deadlines: Deadlines,
    recorder: Recorder,
    traces: Option<Exporter>,
    caches: Gate,
    leadership: Gate,
    fence: Fence,
}

impl Controller {
    /// The operator's store, for tests and diagnostics.
    pub fn store(&self) -> Store {
        self.cx.store.clone()
    }

    /// Runs until `shutdown`, finishing what is in progress, or until the lease is lost.
    ///
    /// # Errors
    /// [`ControllerError::LostLease`].
    pub async fn run(self, shutdown: Shutdown) -> Result<(), ControllerError> {
        let background = Background {
            tasks: Tasks::new("controller"),
            halt: Shutdown::new(),
        };
        let result = self.run_in(&background, &shutdown).await;
        background.halt.trigger();
        background.tasks.shutdown(DRAIN).await;
        result
    }

    async fn run_in(
        self,
        background: &Background,
        shutdown: &Shutdown,
    ) -> Result<(), ControllerError> {
        let Self {
            cx,
            queues,
            deadlines,
            recorder,
            traces,
            caches,
            leadership,
            fence,
        } = self;
        let mut lease = cx
            .config
            .leader_election
            .clone()
            .map(|settings| Lease::new(&cx.api, settings, fence, cx.clock.clone()));
        let lease_name = cx
            .config
            .leader_election
            .as_ref()
            .map_or("none", |settings| settings.name.as_str())
            .to_owned();

        // The lease is tried before the first list. If it is won, everything listed afterwards is newer
        // than any write of an earlier leader, and nothing needs to be listed twice.
        let leads = match &mut lease {
            None => true,
            Some(lease) => matches!(lease.try_once().await, Ok(Standing::Leader)),
        };
        cx.metrics.set_leader(&lease_name, leads);
        let watches = start_watches(&cx, background);
        start_timers(&cx, &queues, &deadlines, background);
        let recording = Recording::start(&cx, recorder, traces);
        let workers = Tasks::new("controller-workers");
        let stop = shutdown.child();

        let (warm, won) = (Notify::new(), Notify::new());
        // From the moment it is won the lease is held beside everything else: the first lists can take
        // longer than a lease lasts.
        let mut election = Box::pin(elect(lease.as_mut(), leads, &warm, &won));
        let synced = Notify::new();
        let watching = keep_watch(&watches, &caches, &synced);
        let work = async {
            synced.notified().await;
            if !leads {
                // A standby is as ready as it can be: its caches are warm.
                leadership.set_ready();
                tracing::info!("standing by for the lease");
                warm.notify_one();
                won.notified().await;
                cx.metrics.set_leader(&lease_name, true);
                // What the last leader wrote may not have arrived here yet.
                futures::future::join_all(watches.iter().map(|(_, watch)| watch.refresh())).await;
            }
            leadership.set_ready();
            tracing::info!(took_over = !leads, "reconciling");
            cx.store.queue_all();
            if cx.config.extensions {
                background.spawn("older-policies", claim::legacy::find_policies(cx.clone()));
            }
            start_workers(&cx, &queues, &workers, &stop);
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            biased;
            () = shutdown.triggered() => Ok(()),
            () = &mut election => Err(ControllerError::LostLease),
            _ = futures::future::join(watching, work) => Ok(()),
        };
        if result.is_err() {
            leadership.set_not_ready("the lease was lost");
            cx.metrics.set_leader(&lease_name, false);
        }
        stop.trigger();
        // Passes in progress still write; the lease must last until they are done, and the events that
        // they left behind are written.
        let drained = async {
            workers.shutdown(DRAIN).await;
            recording.end().await;
        };
        if result.is_ok() {
            tokio::select! {
                biased;
                () = drained => {}
                () = async { election.await; std::future::pending().await } => {}
            }
            if let Some(lease) = &mut lease {
                lease.release().await;
            }
        } else {
            drained.await;
        }
        result
    }
}

/// Takes part in the election, once the caches are warm, until the lease is lost.
async fn elect(lease: Option<&mut Lease>, leads: bool, warm: &Notify, won: &Notify) {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    if !leads {
        warm.notified().await;
        lease.acquire().await;
        won.notify_one();
    }
    lease.hold().await;
}

/// Tasks that run as long as the operator does and end when it is over.
#[derive(Debug)]
struct Background {
    tasks: Tasks,
    halt: Shutdown,
}

impl Background {
    fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let halt = self.halt.clone();
        self.tasks.spawn(task, async move {
            tokio::select! {
                biased;
                () = halt.triggered() => {}
                () = future => {}
            }
        });
    }
}
