//! One run: operators, users and faults for a while, then none of the latter two, and everything has
//! to come to rest. A run is determined by its [`Scenario`].

use std::time::Duration;

use agent_sandbox_controller::config::{LeaderElection, Workers};
use agent_sandbox_controller::{Config, Controller};
use agent_sandbox_service::shutdown::Shutdown;
use fastrand::Rng;
use tokio::time::sleep;

use crate::faults::Rates;
use crate::invariants::unsettled;
use crate::log::Log;
use crate::objects::{condition, shutdown_time, uid};
use crate::trace::Actor;
use crate::workload::Workload;
use crate::world::{Crash, NAMESPACE, Violation, World, id, spawn};

/// How long everything may take to come to rest: a pool waits five minutes for a member to become Ready.
const PATIENCE: Duration = Duration::from_secs(450);
/// How long operators may take to hear of everything again: a watch that has failed for long is tried again
/// after half a minute, and a lease has to run out before.
const LULL: Duration = Duration::from_secs(45);
const LULL_WITH_LEASE: Duration = Duration::from_secs(70);
/// How long it must look settled before it counts: the cluster takes its time, and what comes last (a
/// pool's counts, a policy of no more use) still may.
const CALM: Duration = Duration::from_secs(12);
const SECOND: Duration = Duration::from_secs(1);
/// How long nothing may happen afterwards; less where replicas keep renewing their lease, which takes
/// more calls than everything else in a run.
const REST: Duration = Duration::from_secs(600);
const REST_WITH_LEASE: Duration = Duration::from_secs(60);

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// How many things users do.
    pub(crate) actions: usize,
    pub(crate) rates: Rates,
    /// How many operators there are.
    pub(crate) replicas: usize,
    /// Whether they elect a leader; else all of them act, as two installations of the operator would.
    pub(crate) elects: bool,
    /// The pools' definition is that of an earlier version until the faults stop: the server drops what it does
    /// not know of their status.
    pub(crate) prunes: bool,
    /// An operator is killed at this write.
    pub(crate) crash: Option<Crash>,
    /// How many events of the trace are kept.
    pub(crate) keep: usize,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: String,
    pub(crate) hash: u64,
    pub(crate) events: usize,
    pub(crate) writes: u64,
}

impl Scenario {
    /// What a seed stands for.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(16));
        let (actions, rates) = (rng.usize(10..50), Rates::draw(&mut rng));
        let (replicas, elects) = match rng.u8(0..12) {
            0..=4 => (2, true),
            5 => (2, false),
            _ => (1, false),
        };
        Self {
            seed,
            actions,
            rates,
            replicas,
            elects,
            prunes: rng.u8(0..24) == 0,
            crash: None,
            keep: 0,
        }
    }

    /// Runs it on this thread.
    pub(crate) fn run(&self) -> Outcome {
        // What the operators themselves leave to chance.
        fastrand::seed(self.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(self.simulate())
    }

    async fn simulate(&self) -> Outcome {
        let world = World::new(self.seed, self.rates.clone(), self.keep);
        let _log = Log::listen(&world, self.keep > 0);
        if let Some(crash) = self.crash {
            world.crash_at(crash);
        }
        world.set_out(self.elects, self.replicas, self.prunes);
        let mut workload = Workload::new(&world, self.seed);
        workload.prepare();
        for slot in 0..self.replicas {
            let operator = operate(world.clone(), slot, self.clone());
            spawn(operator);
        }
        let violation = tokio::select! {
            biased;
            violation = world.broken() => Some(violation),
            result = self.script(&world, &mut workload) => result.err(),
        };
        let writes = world.writes();
        let inner = world.lock();
        Outcome {
            violation,
            trace: inner.trace.to_string(),
            hash: inner.trace.hash(),
            events: inner.trace.len(),
            writes,
        }
    }

    /// What happens from outside, and what has to come of it.
    async fn script(&self, world: &World, workload: &mut Workload) -> Result<(), Violation> {
        workload.run(self.actions).await;
        world.note(Actor::World, "faults stop".to_owned(), String::new());
        world.calm();
        workload.tidy();
        // Before anything is asked of the operators.
        sleep(if self.elects { LULL_WITH_LEASE } else { LULL }).await;
        workload.leave_deadlines();
        deadlines_are_kept(world).await?;
        self.comes_to_rest(world).await
    }

    async fn comes_to_rest(&self, world: &World) -> Result<(), Violation> {
        let violation = |invariant, detail| Err(Violation { invariant, detail });
        let (mut waited, mut calm) = (Duration::ZERO, Duration::ZERO);
        let mut looked_at = None;
        let mut left = None;
        while calm < CALM {
            let revision = world.lock().state.revision();
            if looked_at.replace(revision) != Some(revision) {
                left = unsettled(&world.lock());
            }
            match left.clone() {
                None => calm += SECOND,
                Some(left) if waited > PATIENCE => {
                    return violation("everything comes to rest", left);
                }
                Some(_) => calm = Duration::ZERO,
            }
            sleep(SECOND).await;
            waited += SECOND;
        }
        world.lock().checker.at_rest = true;
        world.note(Actor::World, "rest begins".to_owned(), String::new());
        sleep(if self.elects { REST_WITH_LEASE } else { REST }).await;
        match unsettled(&world.lock()) {
            Some(left) => violation("everything stays at rest", left),
            None => Ok(()),
        }
    }
}

/// Everything whose time comes from now on says so, or is gone, within a second of it.
async fn deadlines_are_kept(world: &World) -> Result<(), Violation> {
    let mut due: Vec<_> = {
        let inner = world.lock();
        let now = inner.state.now;
        ["sandboxclaims", "sandboxes"]
            .into_iter()
            .flat_map(|resource| inner.state.list(resource).map(move |it| (resource, it)))
            .filter_map(|(resource, object)| {
                let at = shutdown_time(object).filter(|at| *at > now)?;
                let name = crate::objects::name(object).to_owned();
                Some((at, resource, name, uid(object).to_owned()))
            })
            .collect()
    };
    due.sort();
    for (at, resource, name, uid) in due {
        let limit = at + jiff::SignedDuration::from_secs(1);
        let left = Duration::try_from(limit.duration_since(world.now())).unwrap_or_default();
        sleep(left).await;
        let inner = world.lock();
        let late = inner.state.get(&id(resource, &name)).filter(|object| {
            let ready = condition(object, "Ready").map(|it| it["reason"].clone());
            let says_so = ready.is_some_and(|it| it == "ClaimExpired" || it == "SandboxExpired");
            crate::objects::uid(object) == uid
                && shutdown_time(object) == Some(at)
                && !says_so
                && !crate::kube_model::is_deleting(object)
        });
        if late.is_some() {
            return Err(Violation {
                invariant: "expiry comes within a second",
                detail: format!("{resource} {name} at {at}"),
            });
        }
    }
    Ok(())
}

/// Keeps an operator running, as a Deployment does.
#[allow(
    clippy::disallowed_methods,
    reason = "a process is killed by aborting its task, which a set of tasks does not offer"
)]
async fn operate(world: World, slot: usize, scenario: Scenario) {
    let stream = 8 + slot as u64;
    let mut rng = Rng::with_seed(scenario.seed.wrapping_mul(16).wrapping_add(stream));
    loop {
        let (pid, identity, client) = world.begin(slot);
        let config = scenario.config(&identity);
        let controller = Controller::builder(client, config)
            .clock(world.clock())
            .build()
            .expect("a registry of its own");
        let shutdown = Shutdown::new();
        let running = tokio::spawn(controller.run(shutdown.clone()));
        world.attach(pid, running.abort_handle(), shutdown);
        let how = match running.await {
            Ok(Ok(())) => "in peace",
            Ok(Err(_)) => "without the lease",
            Err(_) => "killed",
        };
        world.end(pid, how);
        sleep(Duration::from_millis(rng.u64(10..4_000))).await;
    }
}

impl Scenario {
    /// The settings of its operators: few workers, so that they get in each other's way, and what is
    /// off by default now and then.
    fn config(&self, identity: &str) -> Config {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(16).wrapping_add(7));
        let mut config = Config {
            workers: Workers {
                sandboxes: rng.usize(1..4),
                claims: rng.usize(1..4),
                templates: 1,
                pools: rng.usize(1..3),
            },
            api_timeout: Duration::from_secs(2),
            background_writes: rng.usize(1..4),
            ..Config::default()
        };
        config.claims.annotations = rng.u8(0..4) == 0;
        config.claims.adoption_events = rng.u8(0..4) == 0;
        if rng.u8(0..4) == 0 {
            config.write_behind = Duration::from_millis(500);
        }
        if rng.u8(0..6) == 0 {
            config.pools.max_refill_rate = 2.0;
        }
        if rng.u8(0..6) == 0 {
            config.pools.replenish_delay = Duration::from_secs(1);
        }
        if rng.u8(0..3) == 0 {
            config.pools.readiness_grace = Duration::from_secs(5);
        }
        config.pools.finished_grace = Duration::from_secs(rng.u64(1..30));
        if self.elects {
            config.leader_election = Some(LeaderElection::new(NAMESPACE, identity));
        }
        config
    }
}
