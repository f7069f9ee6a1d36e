//! The world the operators live in: the API server with everything that can go wrong on the way to
//! it, the processes that call it, and what is known about the run. One lock, held for one step.
//!
//! A call is a small journey of its own: once sent it arrives, or not, whatever becomes of its sender.
//! So a call of an operator that crashed, was paused or gave up takes effect late, as it would in a
//! cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::shutdown::Shutdown;

use crate::cluster;
use crate::faults::{Fate, Faults, Rates};
use crate::invariants::{Checker, Commit};
use crate::kube_model::{Answer, Body, Failure, Id, Request, State, failure, respond};
use crate::trace::{Actor, Trace, describe};

/// The moment at which every run begins.
pub(crate) const START: &str = "2026-01-01T00:00:00Z";
/// The namespace everything is in.
pub(crate) const NAMESPACE: &str = "n";
/// More calls than this are a loop.
const MOST_CALLS: u64 = 60_000;

/// The world. Clones share it.
#[derive(Clone)]
pub(crate) struct World {
    inner: Arc<Mutex<Inner>>,
    /// Wakes the watches of a kind, in the order in which they wait. (A `watch` channel wakes in an
    /// order of its own, which no seed determines.)
    pub(crate) changed: Arc<Mutex<BTreeMap<String, Arc<Notify>>>>,
    broken: watch::Sender<bool>,
    clock: Clock,
    began: Instant,
    /// The trace is to be read.
    in_detail: bool,
}

pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    pub(crate) checker: Checker,
    /// What the cluster around the operators draws from.
    pub(crate) rng: fastrand::Rng,
    processes: Vec<Process>,
    crash: Option<Crash>,
    calls: u64,
    writes: u64,
    violation: Option<Violation>,
}

/// One run of an operator.
struct Process {
    slot: usize,
    identity: String,
    alive: bool,
    /// What it sends, and what it is sent, is held until then.
    paused_until: Instant,
    stop: Option<(AbortHandle, Shutdown)>,
}

/// Names a process.
pub(crate) type Pid = usize;

/// An operator is to be killed at one of its writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// Counted over all operators, from 1.
    pub(crate) at_write: u64,
    /// After the write took effect, or before it was sent.
    pub(crate) after: bool,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

impl World {
    pub(crate) fn new(seed: u64, rates: Rates, keep: usize) -> Self {
        let start: Timestamp = START.parse().unwrap();
        let mut state = State::new(start);
        state.kubelet = false;
        state.graceful = true;
        state.collects = false;
        let rng =
            |stream: u64| fastrand::Rng::with_seed(seed.wrapping_mul(16).wrapping_add(stream));
        Self {
            inner: Arc::new(Mutex::new(Inner {
                state,
                trace: Trace::new(keep),
                faults: Faults::new(rates, rng(1)),
                checker: Checker::default(),
                rng: rng(2),
                processes: Vec::new(),
                crash: None,
                calls: 0,
                writes: 0,
                violation: None,
            })),
            changed: Arc::default(),
            broken: watch::Sender::new(false),
            clock: Clock::with_runtime(start),
            began: Instant::now(),
            in_detail: keep > 0,
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The world as it is now.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // All of a run is on one thread: whoever finds the lock taken would wait for itself.
        let mut inner = self.inner.try_lock().expect("one step at a time");
        inner.state.now = self.clock.now();
        inner
    }

    /// Notes something in the trace.
    pub(crate) fn note(&self, actor: Actor, what: String, outcome: String) {
        let at = self.began.elapsed();
        self.lock().trace.push(at, actor, what, outcome);
    }

    /// Ends the run: an invariant does not hold.
    pub(crate) fn violate(&self, invariant: &'static str, detail: String) {
        let mut inner = self.lock();
        if inner.violation.is_none() {
            inner.violation = Some(Violation { invariant, detail });
            self.broken.send_replace(true);
        }
    }

    /// Completes when an invariant does not hold.
    pub(crate) async fn broken(&self) -> Violation {
        let mut broken = self.broken.subscribe();
        drop(broken.wait_for(|broken| *broken).await);
        self.lock().violation.clone().expect("a violation")
    }

    /// How many writes of operators took effect or were tried, leases and events aside.
    pub(crate) fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Kills an operator at one of its writes.
    pub(crate) fn crash_at(&self, crash: Crash) {
        self.lock().crash = Some(crash);
    }

    // ---- processes

    /// A new run of an operator, and the client it calls through.
    pub(crate) fn begin(&self, slot: usize) -> (Pid, String, Client) {
        let (pid, identity) = {
            let mut inner = self.lock();
            let pid = inner.processes.len();
            let identity = format!("replica-{slot}-{pid}");
            inner.processes.push(Process {
                slot,
                identity: identity.clone(),
                alive: true,
                paused_until: self.began,
                stop: None,
            });
            (pid, identity)
        };
        self.note(self.actor(pid), "starts".to_owned(), String::new());
        let world = self.clone();
        let service = tower::service_fn(move |request| {
            let world = world.clone();
            async move { world.serve(pid, request).await }
        });
        (pid, identity, Client::new(service, NAMESPACE))
    }

    /// How a process can be ended.
    pub(crate) fn attach(&self, pid: Pid, abort: AbortHandle, shutdown: Shutdown) {
        self.lock().processes[pid].stop = Some((abort, shutdown));
    }

    /// The process is over.
    pub(crate) fn end(&self, pid: Pid, how: &str) {
        self.lock().processes[pid].alive = false;
        self.note(self.actor(pid), "ends".to_owned(), how.to_owned());
    }

    pub(crate) fn running(&self) -> Vec<Pid> {
        let inner = self.lock();
        (0..inner.processes.len())
            .filter(|pid| inner.processes[*pid].alive)
            .collect()
    }

    /// Ends a process between two steps: nothing it does from now on has any effect.
    pub(crate) fn kill(&self, pid: Pid) {
        self.note(self.actor(pid), "is killed".to_owned(), String::new());
        let mut inner = self.lock();
        inner.processes[pid].alive = false;
        if let Some((abort, _)) = inner.processes[pid].stop.take() {
            abort.abort();
        }
        inner.checker.count_unsure();
    }

    /// Asks a process to end.
    pub(crate) fn stop(&self, pid: Pid) {
        self.note(self.actor(pid), "is told to stop".to_owned(), String::new());
        if let Some((_, shutdown)) = &self.lock().processes[pid].stop {
            shutdown.trigger();
        }
    }

    /// Holds what a process sends and is sent.
    pub(crate) fn pause(&self, pid: Pid, time: Duration) {
        self.note(
            self.actor(pid),
            format!("is paused for {time:?}"),
            String::new(),
        );
        let mut inner = self.lock();
        inner.processes[pid].paused_until = Instant::now() + time;
        inner.checker.count_unsure();
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm(&self) {
        let mut inner = self.lock();
        inner.faults.on = false;
        inner.crash = None;
        for process in &mut inner.processes {
            process.paused_until = self.began;
        }
    }

    pub(crate) fn actor(&self, pid: Pid) -> Actor {
        Actor::Operator(self.lock().processes[pid].slot, pid)
    }

    /// Waits while a process is paused; `false` when it is dead.
    pub(crate) async fn awake(&self, pid: Pid) -> bool {
        loop {
            let until = {
                let inner = self.lock();
                if !inner.processes[pid].alive {
                    return false;
                }
                inner.processes[pid].paused_until
            };
            if until <= Instant::now() {
                return true;
            }
            // In small steps: calm may come before its time.
            sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
        }
    }

    // ---- calls

    async fn serve(
        &self,
        pid: Pid,
        request: http::Request<kube::client::Body>,
    ) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let request = Request::read(&parts, &body);
        let verdict = {
            let mut inner = self.lock();
            let Inner { checker, state, .. } = &mut *inner;
            checker.asks(&request, state)
        };
        if let Err(Violation { invariant, detail }) = verdict {
            self.violate(invariant, detail);
        }
        if request.verb == "watch" {
            return self.watch(pid, request).await;
        }
        let (send, answer) = oneshot::channel();
        let world = self.clone();
        self.sent(pid, &request);
        spawn(async move {
            if let Some(outcome) = world.travel(pid, request).await {
                drop(send.send(outcome));
            }
        });
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    /// What must hold when a call leaves its process.
    fn sent(&self, pid: Pid, request: &Request) {
        let inner = self.lock();
        let process = &inner.processes[pid];
        if !process.alive || !is_write(request) || request.resource == "leases" {
            return;
        }
        let lease = inner.state.list("leases").next();
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str());
        if let Some(holder) = holder.filter(|it| !it.is_empty() && *it != process.identity) {
            let detail = format!(
                "{} sends {} while {holder} holds the lease",
                process.identity,
                describe(request, true)
            );
            drop(inner);
            self.violate("only the holder of the lease writes", detail);
        }
    }

    /// The way of a call to the server and back; `None` when the caller never hears of it.
    async fn travel(
        &self,
        pid: Pid,
        request: Request,
    ) -> Option<Result<Response<Body>, std::io::Error>> {
        let (journey, crash) = {
            let mut inner = self.lock();
            if !inner.processes[pid].alive {
                return None;
            }
            inner.calls += 1;
            let calls = inner.calls;
            let crash = (is_write(&request) && is_counted(&request))
                .then(|| {
                    inner.writes += 1;
                    let due = inner.writes;
                    inner.crash.take_if(|crash| crash.at_write <= due)
                })
                .flatten();
            let journey = inner.faults.journey(&request);
            if request.verb == "create" && journey.fate.is_unsure()
                || journey.there > Duration::from_secs(1)
            {
                inner.checker.count_unsure();
            }
            drop(inner);
            if calls > MOST_CALLS {
                self.violate(
                    "work ends",
                    format!("{calls} calls: {}", describe(&request, true)),
                );
                return None;
            }
            (journey, crash)
        };
        if crash.is_some_and(|crash| !crash.after) {
            self.kill(pid);
            return None;
        }
        sleep(journey.there).await;
        // A call of a process that was paused before it left its host leaves afterwards; one of a
        // process that is dead by now was under way.
        self.awake(pid).await;
        let actor = self.actor(pid);
        let what = describe(&request, self.in_detail);
        let outcome = match journey.fate {
            Fate::Refuse(error) => {
                self.note(actor, what, format!("refused: {}", error.0));
                Some(Ok(refusal(&error)))
            }
            Fate::NeverArrives => {
                self.note(actor, what, "never arrives".to_owned());
                None
            }
            fate => {
                if let Fate::Overtaken = &fate {
                    let what = format!("overtakes: {} {}", request.resource, request.name);
                    self.step(Actor::World, what, |state| state.touch(&request.id()));
                }
                let answer = self.apply(actor, &request);
                let lost = match &fate {
                    Fate::Serve | Fate::Overtaken => "",
                    Fate::AnswerLost => ", nobody hears of it",
                    Fate::Reset => ", connection reset",
                    _ => ", answered 504",
                };
                let said = match &answer {
                    Ok(object) => {
                        let at = object["metadata"]["resourceVersion"].as_str();
                        format!("ok {}", at.unwrap_or_default())
                    }
                    Err(Failure(code, reason, _)) => format!("{code} {reason}"),
                };
                self.note(actor, what, format!("{said}{lost}"));
                match fate {
                    Fate::Serve | Fate::Overtaken => Some(Ok(match answer {
                        Ok(object) => respond(StatusCode::OK, &object),
                        Err(error) => failure(&error),
                    })),
                    Fate::AnswerLost => None,
                    Fate::Reset => Some(Err(std::io::Error::other("connection reset"))),
                    _ => Some(Ok(refusal(&Failure(
                        504,
                        "Timeout",
                        "simulated: the answer was lost".to_owned(),
                    )))),
                }
            }
        };
        if crash.is_some() {
            self.kill(pid);
            return None;
        }
        if !journey.back.is_zero() {
            sleep(journey.back).await;
        }
        self.awake(pid).await.then_some(outcome).flatten()
    }

    /// One call takes effect: the only way anything changes.
    pub(crate) fn apply(&self, actor: Actor, request: &Request) -> Answer {
        if request.resource == "events" {
            return Ok(Arc::new(request.body.clone()));
        }
        let mut inner = self.lock();
        let before = inner.state.revision();
        let answer = match request.verb {
            "list" => inner.list(request),
            "create" if request.resource == "pods" => match misspelt(request) {
                Some(error) => Err(error),
                None => inner.state.answer(request),
            },
            _ => inner.state.answer(request),
        };
        self.committed(&mut inner, actor, Some(request), before);
        answer
    }

    /// One step of somebody who is not an operator.
    pub(crate) fn step<T>(
        &self,
        actor: Actor,
        what: String,
        step: impl FnOnce(&mut State) -> T,
    ) -> T {
        self.note(actor, what, String::new());
        let mut inner = self.lock();
        let before = inner.state.revision();
        let result = step(&mut inner.state);
        self.committed(&mut inner, actor, None, before);
        result
    }

    /// Checks what changed, tells the watches, and lets the cluster react.
    fn committed(&self, inner: &mut Inner, actor: Actor, request: Option<&Request>, before: u64) {
        if inner.state.revision() == before {
            return;
        }
        let mut entries: Vec<_> = KINDS
            .iter()
            .flat_map(|kind| inner.state.log_after(kind, before).iter().cloned())
            .collect();
        entries.sort_by_key(|entry| entry.revision);
        for entry in &entries {
            let Inner { checker, state, .. } = &mut *inner;
            let commit = Commit {
                actor,
                request,
                entry,
                state,
            };
            if let Err(violation) = checker.check(&commit)
                && inner.violation.is_none()
            {
                inner.violation = Some(violation);
                self.broken.send_replace(true);
            }
            cluster::react(self, &mut inner.rng, entry);
            if let Some(watchers) = self.changed.lock().get(&entry.id.resource) {
                watchers.notify_waiters();
            }
        }
    }
}

impl Inner {
    /// A page of a list: how many objects it holds, and for how long its token is good, is up to the
    /// server.
    fn list(&mut self, request: &Request) -> Answer {
        if request.query.contains_key("continue") && self.faults.expires() {
            return Err(Failure(410, "Expired", "simulated: too old".to_owned()));
        }
        let Some(page) = self.faults.page() else {
            return self.state.answer(request);
        };
        let mut request = request.clone();
        request.query.insert("limit".to_owned(), page.to_string());
        self.state.answer(&request)
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<&Arc<Value>> {
        self.state.get(&id(resource, name))
    }
}

/// The kinds that are watched by somebody.
pub(crate) const KINDS: [&str; 10] = [
    "sandboxes",
    "sandboxclaims",
    "sandboxtemplates",
    "sandboxwarmpools",
    "pods",
    "services",
    "persistentvolumeclaims",
    "networkpolicies",
    "nodes",
    "leases",
];

pub(crate) fn id(resource: &str, name: &str) -> Id {
    let namespace = if resource == "nodes" { "" } else { NAMESPACE };
    Id::new(resource, namespace, name)
}

#[allow(
    clippy::disallowed_methods,
    reason = "calls and the cluster's reactions go on whoever is gone; the runtime ends them with the run"
)]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

fn is_write(request: &Request) -> bool {
    !matches!(request.verb, "get" | "list" | "watch")
}

fn is_counted(request: &Request) -> bool {
    !matches!(request.resource.as_str(), "leases" | "events")
}

/// A member of a pod that Kubernetes does not know, as people misspell them.
pub(crate) const MISSPELT: &str = "imagee";

fn misspelt(request: &Request) -> Option<Failure> {
    let containers = request.body["spec"]["containers"].as_array()?;
    let wrong = containers.iter().any(|it| it.get(MISSPELT).is_some());
    wrong.then(|| {
        let message =
            format!("strict decoding error: unknown field \"spec.containers[0].{MISSPELT}\"");
        Failure(400, "BadRequest", message)
    })
}

pub(crate) fn refusal(error: &Failure) -> Response<Body> {
    let mut response = failure(error);
    if error.0 == 429 {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
