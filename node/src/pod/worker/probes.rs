//! Probes of running containers: asked one after the other, answers turned into consequences.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::super::phase::{self, Current};
use super::super::probe::ask::Question;
use super::super::probe::{self, Answer, Prober, Purpose, Verdict};
use super::{Done, Worker, spec_of};
use crate::events::Severity;

/// A probe of a running container.
#[derive(Debug)]
pub(super) struct Armed {
    prober: Prober,
    question: Arc<Result<Question, String>>,
    timeout: Duration,
    /// Grace period for a container that this probe condemns.
    grace: Option<SignedDuration>,
}

impl Worker {
    /// The post-start hook has succeeded or there is none: a startup probe decides next, if there
    /// is one.
    pub(super) fn hooks_done(&mut self, index: usize) {
        let now = self.context.clock.now();
        let ip = self.pod_ip().unwrap_or(self.context.host_ip);
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let Some((_, container)) = phase::containers(spec).into_iter().nth(index) else {
            return;
        };
        let armed: Vec<Armed> = probe::of(container)
            .map(|(purpose, probe)| Armed {
                prober: Prober::new(purpose, probe, now),
                question: Arc::new(Question::of_probe(probe, container, ip)),
                timeout: Duration::from_secs(
                    probe
                        .timeout_seconds
                        .and_then(|seconds| u64::try_from(seconds).ok())
                        .filter(|seconds| *seconds > 0)
                        .unwrap_or(1),
                ),
                grace: probe
                    .termination_grace_period_seconds
                    .map(|seconds| SignedDuration::from_secs(seconds.max(0))),
            })
            .collect();
        let startup = armed
            .iter()
            .position(|armed| armed.prober.purpose() == Purpose::Startup);
        if let Some(live) = self.live.get_mut(index).and_then(Option::as_mut) {
            live.probes = armed;
        }
        match startup {
            Some(slot) => self.ask_later(index, slot),
            None => self.has_started(index),
        }
    }

    /// A container counts as started: readiness and liveness probes begin.
    fn has_started(&mut self, index: usize) {
        let purposes: Vec<Purpose> = self
            .live
            .get(index)
            .and_then(Option::as_ref)
            .into_iter()
            .flat_map(|live| live.probes.iter().map(|armed| armed.prober.purpose()))
            .collect();
        let ready = !purposes.contains(&Purpose::Readiness);
        if let Some(Current::Running(running)) = self
            .containers
            .get_mut(index)
            .map(|state| &mut state.current)
        {
            running.started = true;
            running.ready = ready;
        }
        self.publisher.touch();
        for (slot, purpose) in purposes.into_iter().enumerate() {
            if purpose != Purpose::Startup {
                self.ask_later(index, slot);
            }
        }
    }

    /// Asks when the probe's pause is over.
    fn ask_later(&mut self, index: usize, slot: usize) {
        let now = self.context.clock.now();
        let Some(live) = self.live.get(index).and_then(Option::as_ref) else {
            return;
        };
        let Some(armed) = live.probes.get(slot) else {
            return;
        };
        let pause = armed.prober.pause(now);
        let (question, timeout) = (armed.question.clone(), armed.timeout);
        let (run, container, process) = (live.run, live.container.clone(), live.process.clone());
        let context = self.context.clone();
        self.work.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let answer = match question.as_ref() {
                Ok(question) => {
                    let asked = context.asker.ask(question, timeout, &container, &process);
                    Box::pin(asked).await
                }
                Err(message) => Answer::Failure(message.clone()),
            };
            Done::Answered(index, run, slot, answer)
        }));
    }

    /// A probe has been answered.
    pub(super) fn answered(&mut self, index: usize, run: u64, slot: usize, answer: &Answer) {
        if !self.is_run(index, run) {
            return;
        }
        let now = self.context.clock.now();
        let armed = self
            .live
            .get_mut(index)
            .and_then(Option::as_mut)
            .and_then(|live| live.probes.get_mut(slot));
        // No probes are left when the container is being stopped.
        let Some(armed) = armed else { return };
        let verdict = armed.prober.observe(answer, now);
        let purpose = armed.prober.purpose();
        let grace = armed.grace;
        let report = armed.prober.reports_failures(now);
        if let (Answer::Failure(why), true) = (answer, report) {
            let message = format!("{} probe failed: {why}", purpose.title());
            self.record(Severity::Warning, "Unhealthy", Some(index), message);
        }
        match (purpose, verdict) {
            (Purpose::Startup, Verdict::Passed) => {
                // Its work is done; it is not asked again.
                self.has_started(index);
                return;
            }
            (Purpose::Readiness, Verdict::Passed) => self.set_ready(index, true),
            (Purpose::Readiness, Verdict::Failed) => self.set_ready(index, false),
            (Purpose::Startup | Purpose::Liveness, Verdict::Failed) => {
                let name = self.container_name(index);
                let kind = purpose.title().to_lowercase();
                let why = format!("Container {name} failed {kind} probe, will be restarted");
                self.stop(index, &why, grace);
                return;
            }
            (_, Verdict::Unchanged) | (Purpose::Liveness, Verdict::Passed) => {}
        }
        self.ask_later(index, slot);
    }

    fn set_ready(&mut self, index: usize, ready: bool) {
        let state = self
            .containers
            .get_mut(index)
            .map(|state| &mut state.current);
        if let Some(Current::Running(running)) = state
            && running.ready != ready
        {
            running.ready = ready;
            self.publisher.touch();
        }
    }
}
