//! Wiring: which parts there are, in which order they start, and how they stop. [`Controller`] is the
//! whole operator; it takes clients and settings, touches no globals, and ends when it is told to or
//! when it loses the lease.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::labels;
use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::readiness::{Gate, Readiness};
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use futures::FutureExt;
use kube::Client;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument;

use crate::api::{
    self, Api, CLAIMS, NODES, PODS, POLICIES, POOLS, RateLimit, SANDBOXES, SERVICES, TEMPLATES,
    VOLUME_CLAIMS,
};
use crate::claim::Claims;
use crate::config::Config;
use crate::context::Context;
use crate::events::{Events, Recorder};
use crate::expiry::{Deadlines, Target};
use crate::fence::Fence;
use crate::ident::Key;
use crate::lanes::Lanes;
use crate::lease::{Lease, Standing};
use crate::metrics::Metrics;
use crate::objects::{
    ClaimRow, NodeRow, PodRow, PolicyRow, PoolRow, Row, SandboxRow, ServiceRow, TemplateRow,
    VolumeClaimRow,
};
use crate::queue::{Next, Priority, Queue};
use crate::sandbox::Sandboxes;
use crate::store::{Queues, Store, Stored};
use crate::template::Templates;
use crate::trace::{About, Span, Tracer};
use crate::warm_pool::{Pools, Staleness};
use crate::watch::{Handle, Scope, Watch};

/// How long passes in progress may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the events that they left may take to be written.
const EVENTS_DRAIN: Duration = Duration::from_secs(2);

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

/// What an operator is made from.
#[derive(Debug)]
pub struct Builder {
    client: ClientHandle,
    more_writers: Vec<ClientHandle>,
    watcher: Option<ClientHandle>,
    config: Config,
    clock: Clock,
    host: String,
    traces: Option<Exporter>,
    metrics: agent_sandbox_service::metrics::Metrics,
    readiness: Readiness,
}

/// A client that prints as nothing but itself.
#[derive(Clone)]
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Builder {
    /// Watches through a client, and so a connection, of their own.
    #[must_use]
    pub fn watch_client(mut self, client: Client) -> Self {
        self.watcher = Some(ClientHandle(client));
        self
    }

    /// One more client, and so connection, for writes.
    #[must_use]
    pub fn write_client(mut self, client: Client) -> Self {
        self.more_writers.push(ClientHandle(client));
        self
    }

    /// Where the time comes from; the system's clock unless set.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What the API server is called in metrics.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Where spans go; nowhere unless set. The operator runs the exporter.
    #[must_use]
    pub fn traces(mut self, exporter: Exporter) -> Self {
        self.traces = Some(exporter);
        self
    }

    /// Where metrics are registered; a registry of its own unless set.
    #[must_use]
    pub fn metrics(mut self, metrics: &agent_sandbox_service::metrics::Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Where readiness is reported; nowhere unless set.
    #[must_use]
    pub fn readiness(mut self, readiness: &Readiness) -> Self {
        self.readiness = readiness.clone();
        self
    }

    /// The operator.
    ///
    /// # Errors
    /// When the metrics registry already belongs to another operator.
    pub fn build(self) -> Result<Controller, ControllerError> {
        let Self {
            client,
            more_writers,
            watcher,
            config,
            clock,
            host,
            traces,
            metrics: exposed,
            readiness,
        } = self;
        let metrics = Metrics::register(exposed.registry())?;
        let fence = if config.leader_election.is_some() {
            Fence::closed()
        } else {
            Fence::open()
        };
        let watcher = watcher.unwrap_or_else(|| client.clone()).0;
        let writers = std::iter::once(client)
            .chain(more_writers)
            .map(|handle| handle.0)
            .collect();
        let queues = Queues::default();
        let deadlines = Deadlines::new();
        let store = Store::new(queues.clone(), deadlines.clone());
        Metrics::register_computed(
            exposed.registry(),
            &store,
            queues.clone(),
            deadlines.clone(),
        )?;
        let (events, recorder) = Events::new(metrics.events_dropped.clone());
        let settings = api::Settings {
            fence: fence.clone(),
            limit: RateLimit::new(config.api_qps, config.api_burst),
            metrics: metrics.api.clone(),
            host,
            timeout: config.api_timeout,
        };
        let api = Api::new(writers, watcher, settings);
        let cx = Arc::new(Context {
            api,
            store,
            lanes: Lanes::new(config.background_writes, config.background_patience),
            clock,
            config: Arc::new(config),
            events,
            metrics,
            tracer: traces.clone().map_or_else(Tracer::default, Tracer::to),
        });
        Ok(Controller {
            cx,
            queues,
            deadlines,
            recorder,
            traces,
            caches: readiness.register("caches"),
            leadership: readiness.register("leadership"),
            fence,
        })
    }
}

impl Controller {
    /// An operator that talks through `client`.
    pub fn builder(client: Client, config: Config) -> Builder {
        Builder {
            client: ClientHandle(client),
            more_writers: Vec::new(),
            watcher: None,
            config,
            clock: Clock::system(),
            host: "in-process".to_owned(),
            traces: None,
            metrics: agent_sandbox_service::metrics::Metrics::new(),
            readiness: Readiness::new(),
        }
    }

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

/// The tasks that write events and send spans. They outlive the workers, so that the last ones are
/// written too.
#[derive(Debug)]
struct Recording {
    tasks: Tasks,
    end: Shutdown,
}

impl Recording {
    fn start(cx: &Context, recorder: Recorder, traces: Option<Exporter>) -> Self {
        let instance = cx.config.leader_election.as_ref().map_or_else(
            || "agent-sandbox-controller".to_owned(),
            |settings| settings.identity.clone(),
        );
        let (tasks, end) = (Tasks::new("controller-events"), Shutdown::new());
        let (api, lanes, clock) = (cx.api.clone(), cx.lanes.clone(), cx.clock.clone());
        tasks.spawn(
            "events",
            recorder.run(api, lanes, clock, instance, end.clone()),
        );
        if let Some(exporter) = traces {
            tasks.spawn("traces", exporter.run(end.clone()));
        }
        Self { tasks, end }
    }

    async fn end(self) {
        self.end.trigger();
        self.tasks.shutdown(EVENTS_DRAIN).await;
    }
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

/// Selects what the operator itself labels: a cluster has many more pods than sandboxes.
const TRACKED: &str = labels::SANDBOX_NAME_HASH;

/// Starts the watches and returns the handles of those whose freshness matters to a new leader.
fn start_watches(cx: &Arc<Context>, background: &Background) -> Vec<(&'static str, Handle)> {
    let plain = |resource| Scope {
        resource,
        selector: None,
        optional: false,
    };
    let tracked = |resource| Scope {
        selector: Some(TRACKED),
        ..plain(resource)
    };
    let mut handles = vec![
        start_watch::<SandboxRow>(cx, background, plain(&SANDBOXES)),
        start_watch::<PodRow>(cx, background, tracked(&PODS)),
        start_watch::<ServiceRow>(cx, background, tracked(&SERVICES)),
        start_watch::<VolumeClaimRow>(cx, background, tracked(&VOLUME_CLAIMS)),
    ];
    if cx.config.extensions {
        handles.push(start_watch::<ClaimRow>(cx, background, plain(&CLAIMS)));
        handles.push(start_watch::<TemplateRow>(
            cx,
            background,
            plain(&TEMPLATES),
        ));
        handles.push(start_watch::<PoolRow>(cx, background, plain(&POOLS)));
        handles.push(start_watch::<PolicyRow>(cx, background, plain(&POLICIES)));
        if cx.config.watch_nodes {
            let scope = Scope {
                optional: true,
                ..plain(&NODES)
            };
            start_watch::<NodeRow>(cx, background, scope);
        }
    }
    handles
}

fn start_watch<R: Stored>(
    cx: &Arc<Context>,
    background: &Background,
    scope: Scope,
) -> (&'static str, Handle) {
    let namespace = cx
        .config
        .namespace
        .clone()
        .filter(|_| R::KIND != NodeRow::KIND);
    let (watch, handle) = Watch::<R>::new(
        cx.api.clone(),
        cx.store.clone(),
        cx.metrics.clone(),
        scope,
        namespace,
    );
    background.spawn(R::KIND, watch.run());
    (R::KIND, handle)
}

fn start_timers(
    cx: &Arc<Context>,
    queues: &Queues,
    deadlines: &Deadlines,
    background: &Background,
) {
    for queue in [
        &queues.sandboxes,
        &queues.claims,
        &queues.templates,
        &queues.pools,
    ] {
        let queue = queue.clone();
        background.spawn("queue-timers", async move { queue.run_timers().await });
    }
    let (deadlines, clock, targets) = (deadlines.clone(), cx.clock.clone(), queues.clone());
    background.spawn("deadlines", async move {
        let fire = move |target| {
            let (queue, key) = match target {
                Target::Claim(key) => (&targets.claims, key),
                Target::Sandbox(key) => (&targets.sandboxes, key),
            };
            // It expires now, however often it failed before.
            queue.forgive(&key);
            queue.add(key, Priority::High);
        };
        deadlines.run(clock, fire).await;
    });
}

/// How often watches are asked whether they are alive.
const WATCH_CHECK: Duration = Duration::from_secs(5);
/// How long a watch may be without contact before the caches count as stale. Servers restart in less.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Waits for the first lists, and afterwards closes the gate while any watch has been without contact
/// for long: what such a replica knows is old.
async fn keep_watch(watches: &[(&'static str, Handle)], gate: &Gate, synced: &Notify) {
    wait_for_sync(watches, gate).await;
    synced.notify_one();
    loop {
        tokio::time::sleep(WATCH_CHECK).await;
        let stale = watches.iter().find_map(|(kind, watch)| {
            let silence = watch.silent_for()?;
            (silence >= STALE_AFTER).then_some((kind, silence))
        });
        match stale {
            Some((kind, silence)) => gate.set_not_ready(format!(
                "no list or watch of {kind} for {} s",
                silence.as_secs()
            )),
            None => gate.set_ready(),
        }
    }
}

async fn wait_for_sync(watches: &[(&'static str, Handle)], gate: &Gate) {
    for (kind, watch) in watches {
        gate.set_not_ready(format!("waiting for the first list of {kind}"));
        watch.synced().await;
    }
    gate.set_ready();
}

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

fn start_workers(cx: &Arc<Context>, queues: &Queues, tasks: &Tasks, stop: &Shutdown) {
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

    use prometheus::Registry;

    use super::*;

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
