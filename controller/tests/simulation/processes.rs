//! The operators' processes as the world sees them: when each began and ended, what is held of what it
//! sends and is sent, and what it may send at all.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_service::shutdown::Shutdown;

use crate::kube_model::Request;
use crate::trace::{Actor, describe};
use crate::world::{NAMESPACE, World, is_write};

/// One run of an operator.
pub(crate) struct Process {
    slot: usize,
    identity: String,
    alive: bool,
    /// What it sends, and what it is sent, is held until then.
    paused_until: Instant,
    /// Its calls for the lease never arrive until then.
    unheard_until: Instant,
    /// Until when its watches of a kind say nothing.
    deaf_until: BTreeMap<String, Instant>,
    /// When it last sent what may renew its lease.
    renewed: Option<Instant>,
    stop: Option<(AbortHandle, Shutdown)>,
}

/// Names a process.
pub(crate) type Pid = usize;

impl Process {
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(crate) fn is_cut_off_from_lease(&self) -> bool {
        self.unheard_until > Instant::now()
    }

    /// Nothing is held or lost any more.
    pub(crate) fn calm(&mut self) {
        self.paused_until = Instant::now();
        self.unheard_until = Instant::now();
        self.deaf_until.clear();
    }
}

impl World {
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
                paused_until: Instant::now(),
                unheard_until: Instant::now(),
                deaf_until: BTreeMap::new(),
                renewed: None,
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
        self.lock().processes[pid].paused_until = Instant::now() + time;
    }

    /// The process whose lease it is.
    pub(crate) fn leader(&self) -> Option<Pid> {
        let inner = self.lock();
        let holder = inner.state.list("leases").next()?["spec"]["holderIdentity"].clone();
        let leads = |process: &Process| process.alive && holder == *process.identity;
        inner.processes.iter().position(leads)
    }

    /// Loses what a process sends for its lease, and nothing else.
    pub(crate) fn cut_off_from_lease(&self, pid: Pid, time: Duration) {
        let what = format!("cannot reach its lease for {time:?}");
        self.note(self.actor(pid), what, String::new());
        self.lock().processes[pid].unheard_until = Instant::now() + time;
    }

    /// Holds what the watches of some kinds say to a process; its calls are served.
    pub(crate) fn deafen(&self, pid: Pid, kinds: &[&str], time: Duration) {
        let what = format!("hears nothing of {} for {time:?}", kinds.join(", "));
        self.note(self.actor(pid), what, String::new());
        let until = Instant::now() + time;
        let deaf = &mut self.lock().processes[pid].deaf_until;
        deaf.extend(kinds.iter().map(|kind| ((*kind).to_owned(), until)));
    }

    /// Waits while a process hears nothing of a kind.
    pub(crate) async fn hears(&self, pid: Pid, kind: &str) {
        loop {
            let until = self.lock().processes[pid].deaf_until.get(kind).copied();
            match until {
                Some(until) if until > Instant::now() => {
                    // In small steps: calm may come before its time.
                    sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
                }
                _ => return,
            }
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

    /// What must hold when a call leaves its process.
    pub(crate) fn sent(&self, pid: Pid, request: &Request) {
        let mut inner = self.lock();
        let process = &mut inner.processes[pid];
        if !process.alive || !is_write(request) {
            return;
        }
        if request.resource == "leases" {
            process.renewed = Some(Instant::now());
            return;
        }
        if let Some(since) = process.renewed.map(|at| at.elapsed())
            && since > LeaderElection::new(NAMESPACE, "").renew_deadline
        {
            let detail = format!(
                "{} sends {} {since:?} after it last renewed its lease",
                process.identity,
                describe(request, true)
            );
            drop(inner);
            self.violate("a leader writes while its lease lasts", detail);
            return;
        }
        let process = &inner.processes[pid];
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
}
