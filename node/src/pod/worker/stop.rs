//! The end of a container that is asked for: hook, signal, grace period, kill.
//!
//! An end that has begun is never begun again, but can be made to come sooner. That a container has
//! ended is noticed elsewhere, whatever the cause.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::super::phase::{self, Role};
use super::super::probe::Answer;
use super::hooks::{Hook, run_hook};
use super::{Done, Worker, spec_of};
use crate::context::Context;
use crate::events::Severity;
use crate::process::container::Container;
use crate::process::init::message::Process;

/// Time a container has to end when a hook has used up its grace period.
const MINIMUM_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// An end that has begun.
#[derive(Debug)]
pub(super) struct Stop {
    deadline: Timestamp,
    signal: Signal,
    /// Ends the waiting when the container has ended or must end sooner.
    pub(super) over: CancellationToken,
}

/// How a container is to be ended.
struct Order {
    hook: Option<Result<Hook, String>>,
    signal: Signal,
    deadline: Timestamp,
}

impl Worker {
    /// Ends a container: hook, signal, grace period, kill. Does nothing when that has begun.
    pub(super) fn stop(&mut self, index: usize, why: &str, grace: Option<SignedDuration>) {
        let now = self.context.clock.now();
        let grace = grace.unwrap_or_else(|| self.grace());
        let after_grace = now.saturating_add(grace).unwrap_or(Timestamp::MAX);
        let deadline = match self.ending_deadline {
            // What waited for others still gets a moment of its own.
            Some(end) if self.is_sidecar(index) && grace > MINIMUM_GRACE => {
                let moment = now.saturating_add(MINIMUM_GRACE).unwrap_or(end);
                end.max(moment)
            }
            Some(end) => end,
            None => after_grace,
        };
        let stopping = self.live.get(index).and_then(Option::as_ref);
        let Some(live) = stopping.filter(|live| live.stop.is_none()) else {
            return;
        };
        tracing::debug!(pod = %self.id, container = index, why, "stopping a container");
        let container = live.container.clone();
        let process = live.process.clone();
        self.record(Severity::Normal, "Killing", Some(index), why.to_owned());
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let found = phase::containers(spec).into_iter().nth(index);
        let lifecycle = found.and_then(|(_, spec)| Some((spec, spec.lifecycle.as_ref()?)));
        let hook = lifecycle.and_then(|(spec, lifecycle)| {
            Some(Hook::of(lifecycle.pre_stop.as_ref()?, spec, self.pod_ip()))
        });
        let signal = lifecycle
            .and_then(|(_, lifecycle)| lifecycle.stop_signal.as_deref())
            .and_then(signal_named)
            .unwrap_or(Signal::TERM);
        let order = Order {
            hook,
            signal,
            deadline,
        };
        self.order_stop(index, container, process, order);
    }

    fn order_stop(
        &mut self,
        index: usize,
        container: Arc<Container>,
        process: Arc<Process>,
        order: Order,
    ) {
        let over = CancellationToken::new();
        let context = self.context.clone();
        let token = over.clone();
        let (deadline, signal) = (order.deadline, order.signal);
        self.work.push(Box::pin(async move {
            let stopping = carry_out_stop(&context, &container, &process, order);
            token.run_until_cancelled(stopping).await;
            Done::Stopped
        }));
        if let Some(live) = self.live.get_mut(index).and_then(Option::as_mut) {
            live.stop = Some(Stop {
                deadline,
                signal,
                over,
            });
            live.probes.clear();
        }
    }

    /// Makes ends that have begun come by this deadline, unless they come sooner anyway.
    pub(super) fn hasten(&mut self, deadline: Timestamp) {
        for index in 0..self.live.len() {
            let Some(live) = self.live.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            let Some(stop) = live.stop.as_ref().filter(|stop| deadline < stop.deadline) else {
                continue;
            };
            stop.over.cancel();
            let (container, process) = (live.container.clone(), live.process.clone());
            let order = Order {
                hook: None,
                signal: stop.signal,
                deadline,
            };
            self.order_stop(index, container, process, order);
        }
    }

    fn is_sidecar(&self, index: usize) -> bool {
        self.containers
            .get(index)
            .is_some_and(|c| c.role == Role::Sidecar)
    }
}

async fn carry_out_stop(context: &Context, container: &Container, process: &Process, order: Order) {
    let left = |deadline: Timestamp| {
        let left = deadline.duration_since(context.clock.now());
        left.max(SignedDuration::ZERO)
    };
    let mut deadline = order.deadline;
    let mut grace = left(deadline);
    if let Some(hook) = order.hook.filter(|_| !grace.is_zero()) {
        let limit = Some(grace.unsigned_abs());
        let answer = run_hook(context, hook, container, process, limit).await;
        if let Answer::Failure(why) = answer {
            tracing::debug!(why, "a pre-stop hook failed");
        }
        // A hook that took all the time leaves the program a moment to notice the signal.
        let now = context.clock.now();
        deadline = deadline.max(now.saturating_add(MINIMUM_GRACE).unwrap_or(deadline));
        grace = left(deadline);
    }
    if !grace.is_zero() {
        container.signal(order.signal);
        tokio::time::sleep(grace.unsigned_abs()).await;
    }
    container.kill();
}

/// A signal by its name in the API.
fn signal_named(name: &str) -> Option<Signal> {
    Some(match name {
        "SIGHUP" => Signal::HUP,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGTERM" => Signal::TERM,
        "SIGKILL" => Signal::KILL,
        "SIGWINCH" => Signal::WINCH,
        "SIGABRT" => Signal::ABORT,
        "SIGALRM" => Signal::ALARM,
        "SIGCONT" => Signal::CONT,
        _ => return None,
    })
}
