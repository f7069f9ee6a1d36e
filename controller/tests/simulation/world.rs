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
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep};

use agent_sandbox_service::clock::Clock;

use crate::cluster;
use crate::faults::{Fate, Faults, Journey, LONGER_MOMENT, Rates};
use crate::invariants::{Checker, Commit};
use crate::kube_model::{Answer, Body, Failure, Id, Request, State, failure, respond};
use crate::processes::{Pid, Process};
use crate::trace::{Actor, Trace, describe};

/// The moment at which every run begins.
pub(crate) const START: &str = "2026-01-01T00:00:00Z";
/// The namespace everything is in.
pub(crate) const NAMESPACE: &str = "n";
/// How soon an answer comes that nobody stops waiting for.
const MOMENTS: Duration = Duration::from_secs(1);
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
    pub(crate) processes: Vec<Process>,
    crash: Option<Crash>,
    calls: u64,
    writes: u64,
    /// The pools' definition knows no allocation record.
    prunes: bool,
    violation: Option<Violation>,
}

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
                prunes: false,
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

    /// What kind of world it is, before anything happens.
    pub(crate) fn set_out(&self, elects: bool, replicas: usize, prunes: bool) {
        let mut inner = self.lock();
        inner.checker.active = if elects { 1 } else { replicas };
        if inner.checker.active > 1 {
            inner.faults.moment = LONGER_MOMENT;
        }
        inner.prunes = prunes;
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm(&self) {
        let mut inner = self.lock();
        inner.faults.on = false;
        inner.crash = None;
        inner.prunes = false;
        for process in &mut inner.processes {
            process.calm();
        }
    }

    pub(crate) async fn serve(
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

    /// What awaits a call, and whether its sender dies of it; `None` when it is never sent.
    fn departs(&self, pid: Pid, request: &Request) -> Option<(Journey, Option<Crash>)> {
        let mut inner = self.lock();
        if !inner.processes[pid].is_alive() {
            return None;
        }
        inner.calls += 1;
        if inner.calls > MOST_CALLS {
            let detail = format!("{} calls: {}", inner.calls, describe(request, true));
            drop(inner);
            self.violate("work ends", detail);
            return None;
        }
        let mut crash = None;
        if is_write(request) && is_counted(request) {
            inner.writes += 1;
            let due = inner.writes;
            crash = inner.crash.take_if(|crash| crash.at_write <= due);
        }
        let mut journey = inner.faults.journey(request);
        if request.resource == "leases" && inner.processes[pid].is_cut_off_from_lease() {
            journey.fate = Fate::NeverArrives;
        }
        Some((journey, crash))
    }

    /// The way of a call to the server and back; `None` when the caller never hears of it.
    async fn travel(
        &self,
        pid: Pid,
        request: Request,
    ) -> Option<Result<Response<Body>, std::io::Error>> {
        let sent = Instant::now();
        let (journey, crash) = self.departs(pid, &request)?;
        if crash.is_some_and(|crash| !crash.after) {
            self.kill(pid);
            return None;
        }
        sleep(journey.there).await;
        // A call of a process that was paused before it left its host leaves afterwards; one of a
        // process that is dead by now was under way.
        let alive = self.awake(pid).await;
        // Whoever waits for this may not learn of it in time.
        let in_time =
            alive && sent.elapsed() + journey.back < MOMENTS && matches!(journey.fate, Fate::Serve);
        if request.resource == "sandboxes"
            && match request.verb {
                // Of one that was made and nobody heard of, its maker asks.
                "create" => !alive || sent.elapsed() > MOMENTS,
                "get" => !in_time,
                _ => false,
            }
        {
            self.lock().checker.count_unsure();
        }
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
            "patch" if inner.prunes && request.resource == "sandboxwarmpools" => {
                inner.state.answer(&without_record(request))
            }
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

/// What the server makes of a pool's status that its definition knows nothing of.
fn without_record(request: &Request) -> Request {
    let mut request = request.clone();
    if let Some(status) = request.body["status"].as_object_mut() {
        for member in ["allocations", "retiring", "settledResourceVersion"] {
            status.remove(member);
        }
    }
    request
}

pub(crate) fn is_write(request: &Request) -> bool {
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
