//! The workers of the controllers: each takes a key from its queue, runs one pass over it and tells
//! the queue what comes next. A pass that panics is retried and takes nobody along.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use crate::claim::Claims;
use crate::claim::handover::Handovers;
use crate::context::Context;
use crate::ident::Key;
use crate::metrics::Metrics;
use crate::queue::{Next, Queue};
use crate::sandbox::Sandboxes;
use crate::store::Queues;
use crate::template::Templates;
use crate::trace::{About, Span, Tracer};
use crate::warm_pool::{Pools, Staleness};

/// A controller: what its queue's workers run.
trait Reconcile: Send + Sync + 'static {
    /// Its name in metrics and logs.
    const NAME: &'static str;

    /// What its passes are called in traces, if they are traced.
    const SPAN: Option<&'static str>;

    /// What traces say of an object.
    fn about(&self, _key: &Key) -> About {
        About::default()
    }

    /// One pass over one object.
    fn pass(&self, key: &Key, span: &Span) -> impl Future<Output = Next> + Send;
}

impl Reconcile for Sandboxes {
    const NAME: &'static str = "sandbox";
    const SPAN: Option<&'static str> = Some("ReconcileSandbox");

    fn about(&self, key: &Key) -> About {
        self.traced_as(key).unwrap_or_default()
    }

    async fn pass(&self, key: &Key, span: &Span) -> Next {
        self.reconcile(key, span).await
    }
}

impl Reconcile for Claims {
    const NAME: &'static str = "sandboxclaim";
    const SPAN: Option<&'static str> = Some("ReconcileSandboxClaim");

    fn about(&self, key: &Key) -> About {
        self.traced_as(key).unwrap_or_default()
    }

    async fn pass(&self, key: &Key, span: &Span) -> Next {
        self.reconcile(key, span).await
    }
}

impl Reconcile for Handovers {
    const NAME: &'static str = "sandboxclaim-handover";
    const SPAN: Option<&'static str> = None;

    async fn pass(&self, key: &Key, _: &Span) -> Next {
        self.reconcile(key).await
    }
}

impl Reconcile for Templates {
    const NAME: &'static str = "sandboxtemplate";
    const SPAN: Option<&'static str> = Some("ReconcileSandboxTemplate");

    async fn pass(&self, key: &Key, _: &Span) -> Next {
        self.reconcile(key).await
    }
}

impl Reconcile for Pools {
    const NAME: &'static str = "sandboxwarmpool";
    const SPAN: Option<&'static str> = None;

    async fn pass(&self, key: &Key, _: &Span) -> Next {
        self.reconcile(key).await
    }
}

pub(super) fn start_workers(cx: &Arc<Context>, queues: &Queues, tasks: &Tasks, stop: &Shutdown) {
    let counts = cx.config.workers;
    let crew = Crew { cx, tasks, stop };
    crew.start(
        Sandboxes::new(cx.clone()),
        &queues.sandboxes,
        counts.sandboxes,
    );
    if !cx.config.extensions {
        return;
    }
    let staleness = Arc::new(Staleness::new(cx.config.policy.resolvers.clone()));
    let claims = Claims::new(cx.clone(), staleness.clone());
    crew.start(claims, &queues.claims, counts.claims);
    // As many as may write at once: most of their time they wait for claims that go first.
    crew.start(
        Handovers::new(cx.clone()),
        &queues.handovers,
        cx.config.background_writes,
    );
    crew.start(
        Templates::new(cx.clone()),
        &queues.templates,
        counts.templates,
    );
    crew.start(
        Pools::new(cx.clone(), staleness),
        &queues.pools,
        counts.pools,
    );
}

/// Those who work off the queues.
struct Crew<'a> {
    cx: &'a Arc<Context>,
    tasks: &'a Tasks,
    stop: &'a Shutdown,
}

impl Crew<'_> {
    fn start<R: Reconcile>(&self, reconciler: R, queue: &Queue, count: usize) {
        let reconciler = Arc::new(reconciler);
        self.cx.metrics.passes.workers(R::NAME, count);
        for _ in 0..count {
            let worker = work(
                reconciler.clone(),
                queue.clone(),
                self.cx.metrics.clone(),
                self.cx.tracer.clone(),
                self.stop.clone(),
            );
            self.tasks.spawn(R::NAME, worker);
        }
    }
}

async fn work<R: Reconcile>(
    reconciler: Arc<R>,
    queue: Queue,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    stop: Shutdown,
) {
    loop {
        let (key, waited) = tokio::select! {
            biased;
            () = stop.triggered() => return,
            taken = queue.take_turn() => taken,
        };
        let started = Instant::now();
        let turn = metrics.passes.begin(R::NAME, waited);
        let span = tracing::debug_span!("reconcile", controller = R::NAME, object = %key);
        // A defect in one pass must not take the worker, and with it all other objects, along.
        let mut work = R::SPAN.map_or_else(Span::off, |name| {
            tracer.pass(name, &key, || reconciler.about(&key))
        });
        let pass = reconciler.pass(&key, &work).instrument(span);
        let guarded = AssertUnwindSafe(pass).catch_unwind();
        let next = guarded.await.unwrap_or_else(|_| {
            tracing::error!(controller = R::NAME, object = %key, "a pass panicked; it is retried");
            metrics.passes.panicked(R::NAME);
            Next::Retry
        });
        let result = match next {
            Next::Done => "success",
            Next::After(_) => "requeue_after",
            Next::Retry | Next::RetryAfter(_) => "error",
        };
        if result == "error" {
            work.fail("the pass failed and is repeated");
        }
        work.text("result", || result.to_owned());
        drop(work);
        queue.finish(&key, next);
        turn.end(result, started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::queue::Priority;

    /// Panics at its first pass.
    #[derive(Clone, Default)]
    struct Clumsy(Arc<AtomicUsize>);

    impl Reconcile for Clumsy {
        const NAME: &'static str = "sandbox";
        const SPAN: Option<&'static str> = None;

        async fn pass(&self, _: &Key, _: &Span) -> Next {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            Next::Done
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_panics_is_retried_and_takes_nobody_along() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let (queue, stop, clumsy) = (Queue::new(), Shutdown::new(), Clumsy::default());
        let tasks = Tasks::new("test");
        let timers = queue.clone();
        tasks.spawn("timers", async move { timers.run_timers().await });
        let worker = work(
            Arc::new(clumsy.clone()),
            queue.clone(),
            metrics,
            Tracer::default(),
            stop.clone(),
        );
        tasks.spawn("worker", worker);
        queue.add(Key::new("n", "a"), Priority::High);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clumsy.0.load(Ordering::SeqCst), 2);
        let count = |name: &str| {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            let metrics = family.unwrap().get_metric();
            metrics
                .iter()
                .map(|it| it.get_counter().get_value())
                .sum::<f64>()
        };
        for name in [
            "controller_runtime_reconcile_panics_total",
            "controller_runtime_reconcile_errors_total",
        ] {
            assert!((count(name) - 1.0).abs() < 0.5, "{name}");
        }
        let passes = count("controller_runtime_reconcile_total");
        assert!((passes - 2.0).abs() < 0.5, "{passes}");
    }
}
