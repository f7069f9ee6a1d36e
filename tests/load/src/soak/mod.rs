//! The soak: clients of every kind at one router, while the pods behind it are replaced and their
//! addresses given to others.
//!
//! * [`world`] gives sandboxes their fates, [`cluster`] tells the router, [`named`] knows who may answer.
//! * [`work`] is what clients do, [`ledger`] what became of it.
//!
//! The run is cut into rounds. After each of them everybody stops, and the router must let go of
//! everything: what it still holds then is a leak, not load.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::Instant;

use self::ledger::{Accounts, Ledger};
use self::named::Named;
use self::work::Client;
use self::world::World;
use crate::programs::{eventually, raise_descriptors};
use crate::router::Router;

mod cluster;
mod ledger;
mod named;
mod work;
mod world;

/// How long, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often everything stops; at least 2.
    pub rounds: u32,
    /// How long it goes on in between.
    pub round: Duration,
    /// Clients at once.
    pub clients: u32,
    /// Sandboxes.
    pub sandboxes: u8,
    /// What differs between runs.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What distinguishes the run.
    pub seed: u64,
    /// How long it went on, in seconds.
    pub seconds: u64,
    /// Pods replaced.
    pub replaced: u64,
    /// The router before, and after each round.
    pub quiet: Vec<Quiet>,
    /// The most memory in use while clients were at work, in bytes.
    pub peak_memory: u64,
    /// The most descriptors open while clients were at work.
    pub peak_descriptors: usize,
    /// Outcomes by kind of request.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// How the router's books compare with the clients'.
    pub accounts: Accounts,
    /// Requests by the router's metrics.
    pub counted: u64,
    /// Lines that the access log dropped.
    pub dropped: u64,
    /// The router's warnings.
    pub complaints: BTreeMap<String, u64>,
    /// What must not happen, and did.
    pub violations: Vec<String>,
}

/// The router while nobody uses it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quiet {
    /// Its memory in bytes.
    pub memory: u64,
    /// Its open descriptors.
    pub descriptors: usize,
}

/// How long the router may take to let go of everything.
const QUIET: Duration = Duration::from_secs(60);
/// Descriptors that come and go with the watches.
const SLACK: usize = 8;
/// How much more memory the last round may leave behind than the first: what an allocator keeps
/// differs from round to round.
const GROWTH: f64 = 0.15;
/// The same for a router that uses little.
const GROWTH_BYTES: u64 = 3 * 1024 * 1024;
/// How often it is looked at.
const SAMPLE: Duration = Duration::from_millis(250);
/// What must be zero when nobody uses the router.
const GAUGES: [&str; 6] = [
    "sandbox_router_inflight_requests",
    "sandbox_router_upgraded_connections",
    "sandbox_router_client_connections",
    "sandbox_router_parked_connections",
    "sandbox_router_idle_upstream_connections",
    "sandbox_router_waiting_requests",
];

/// Runs it, and fails with the first violations if there are any.
///
/// # Errors
/// When anything cannot be started, does not come to rest, or breaks a promise.
pub async fn run(plan: Plan, progress: impl Fn(&str)) -> Result<Report> {
    ensure!(plan.rounds >= 2, "growth shows between two rounds at least");
    raise_descriptors()?;
    let ledger = Arc::new(Ledger::default());
    let mut world = World::start(plan.sandboxes, ledger.clone(), plan.seed)?;
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let kubeconfig = world.cluster.kubeconfig(directory.path())?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        // So that idle connections to sandboxes are gone soon after a round, and a probe for a
        // sandbox without a pod is answered soon.
        "--upstream-idle-timeout=1s".to_owned(),
        "--resolve-wait=100ms".to_owned(),
    ];
    let lines = ledger.clone();
    let mut router = Router::start(arguments, move |line| lines.line(line)).await?;
    world.routed_by(router.address());
    world.settle().await?;
    let started = Instant::now();
    let mut soak = Soak {
        plan,
        ledger,
        sandboxes: world.sandboxes().into(),
        baseline: 0,
        peak: Quiet {
            memory: 0,
            descriptors: 0,
        },
    };
    let mut quiet = vec![soak.quiet(&router).await?];
    soak.baseline = quiet.first().map_or(0, |it| it.descriptors);
    progress(&format!("before: {}", soak.said(&quiet, &world)));
    for round in 1..=plan.rounds {
        soak.round(round, &mut world, &mut router).await?;
        quiet.push(soak.quiet(&router).await?);
        progress(&format!("round {round}: {}", soak.said(&quiet, &world)));
    }
    let seconds = started.elapsed().as_secs();
    let metrics = router.metrics().await?;
    router.stop().await?;
    let report = soak.report(seconds, &world, quiet, &metrics);
    Ok(report)
}

/// A run under way.
struct Soak {
    plan: Plan,
    ledger: Arc<Ledger>,
    sandboxes: Arc<[Arc<Named>]>,
    baseline: usize,
    peak: Quiet,
}

impl Soak {
    async fn round(&mut self, round: u32, world: &mut World, router: &mut Router) -> Result<()> {
        let stop = Shutdown::new();
        let clients = Tasks::new("clients");
        let addresses: Arc<[_]> = world.addresses().into();
        for client in 0..self.plan.clients {
            let seed = self.plan.seed ^ (u64::from(round) << 32 | u64::from(client));
            let client = Client::new(
                router.address(),
                self.sandboxes.clone(),
                addresses.clone(),
                self.ledger.clone(),
                seed,
            );
            clients.spawn("client", client.work(stop.clone()));
        }
        let watch = async {
            let end = Instant::now() + self.plan.round;
            while Instant::now() < end {
                router.check()?;
                let memory = router.program().memory()?;
                let descriptors = router.program().descriptors()?;
                self.peak.memory = self.peak.memory.max(memory);
                self.peak.descriptors = self.peak.descriptors.max(descriptors);
                tokio::time::sleep(SAMPLE).await;
            }
            stop.trigger();
            anyhow::Ok(())
        };
        let (watched, turned) = tokio::join!(watch, world.turn(&stop));
        stop.trigger();
        watched?;
        turned?;
        let late = clients.shutdown(QUIET).await;
        if late > 0 {
            self.ledger
                .violation(format_args!("{late} clients do not come to an end"));
        }
        Ok(())
    }

    /// Waits until the router has let go of everything.
    async fn quiet(&self, router: &Router) -> Result<Quiet> {
        let what = "the router lets go of everything that nobody uses";
        let waited = eventually(what, QUIET, async || {
            let metrics = router.metrics().await?;
            let idle = GAUGES.iter().all(|gauge| metrics.sum(gauge) < 0.5);
            let descriptors = router.program().descriptors()?;
            // One connection is kept to each sandbox that was called by gRPC.
            let most = self.baseline + usize::from(self.plan.sandboxes) + SLACK;
            Ok(idle && (self.baseline == 0 || descriptors <= most))
        })
        .await;
        if let Err(error) = waited {
            let metrics = router.metrics().await?;
            let held: Vec<String> = GAUGES
                .iter()
                .map(|gauge| format!("{gauge} {}", metrics.sum(gauge)))
                .collect();
            let descriptors = router.program().descriptors()?;
            self.ledger.violation(format_args!(
                "{error:#}: {held:?}, {descriptors} descriptors after {}",
                self.baseline
            ));
        }
        Ok(Quiet {
            memory: router.program().memory()?,
            descriptors: router.program().descriptors()?,
        })
    }

    fn said(&self, quiet: &[Quiet], world: &World) -> String {
        let now = quiet.last().copied().unwrap_or(self.peak);
        let accounts = self.ledger.accounts();
        let (violations, first) = self.ledger.violations();
        let first = first.first().map(String::as_str).unwrap_or_default();
        format!(
            "{} requests, {} pods replaced, {:.1} MiB ({:.1} at most), {} descriptors ({} at most), {violations} violations {first}",
            accounts.sent,
            world.replaced(),
            mebibytes(now.memory),
            mebibytes(self.peak.memory),
            now.descriptors,
            self.peak.descriptors,
        )
    }

    fn report(
        &self,
        seconds: u64,
        world: &World,
        quiet: Vec<Quiet>,
        metrics: &crate::router::Metrics,
    ) -> Report {
        let accounts = self.ledger.accounts();
        let counted = whole(metrics.sum("sandbox_router_requests_total"));
        let dropped = whole(metrics.sum("sandbox_router_access_log_dropped_total"));
        // Before the first round, what every round needs is not there yet.
        if let (Some(first), Some(last)) = (quiet.get(1), quiet.last()) {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bytes of a process that runs"
            )]
            let growth = ((first.memory as f64 * GROWTH) as u64).max(GROWTH_BYTES);
            if last.memory > first.memory + growth {
                self.ledger.violation(format_args!(
                    "memory grew from {:.1} to {:.1} MiB between the first and the last round",
                    mebibytes(first.memory),
                    mebibytes(last.memory)
                ));
            }
        }
        if accounts.doubled > 0 || accounts.missing > dropped {
            self.ledger.violation(format_args!(
                "the access log is not the truth: {accounts:?}"
            ));
        }
        if counted != accounts.logged + dropped {
            self.ledger.violation(format_args!(
                "{counted} requests by metrics, {} lines of the access log and {dropped} dropped",
                accounts.logged
            ));
        }
        let (count, mut violations) = self.ledger.violations();
        if count > violations.len() as u64 {
            violations.push(format!("{count} in all"));
        }
        Report {
            seed: self.plan.seed,
            seconds,
            replaced: world.replaced(),
            quiet,
            peak_memory: self.peak.memory,
            peak_descriptors: self.peak.descriptors,
            outcomes: self.ledger.counts(),
            accounts,
            counted,
            dropped,
            complaints: self.ledger.complaints(),
            violations,
        }
    }
}

/// A number of bytes for people.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// The value of a counter.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Accounts {
            sent,
            answered,
            logged,
            missing,
            doubled,
        } = &self.accounts;
        writeln!(
            f,
            "soak of {} s with seed {}: {sent} requests, {} pods replaced",
            self.seconds, self.seed, self.replaced
        )?;
        for (index, quiet) in self.quiet.iter().enumerate() {
            let when = if index == 0 {
                "before".to_owned()
            } else {
                format!("after round {index}")
            };
            writeln!(
                f,
                "  {when}: {:.2} MiB, {} descriptors",
                mebibytes(quiet.memory),
                quiet.descriptors
            )?;
        }
        writeln!(
            f,
            "  at most {:.2} MiB, {} descriptors",
            mebibytes(self.peak_memory),
            self.peak_descriptors
        )?;
        writeln!(
            f,
            "  {answered} answered, {} counted by metrics, {logged} logged, {} dropped from the log, {missing} missing, {doubled} doubled",
            self.counted, self.dropped
        )?;
        for (kind, outcomes) in &self.outcomes {
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|(outcome, count)| format!("{outcome} {count}"))
                .collect();
            writeln!(f, "  {kind}: {}", outcomes.join(", "))?;
        }
        for (text, count) in &self.complaints {
            writeln!(f, "  the router warned {count} times: {text}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        Ok(())
    }
}

impl Report {
    /// Fails when anything happened that must not.
    ///
    /// # Errors
    /// Says what.
    pub fn verdict(&self) -> Result<()> {
        ensure!(
            self.violations.is_empty(),
            "the soak with seed {} found:\n{}",
            self.seed,
            self.violations.join("\n")
        );
        Ok(())
    }
}
