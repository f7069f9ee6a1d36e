//! One pod's life, from the moment it is bound to this node until nothing of it is left.
//!
//! A worker is one task. Everything that takes time (starting a container, a probe, a write) is a
//! future inside it whose end is a [`Done`]; after each end, and after each change of the pod, the
//! worker plans again and carries out what is new. Dropping the worker drops the futures, and with
//! them every process.
//!
//! ```text
//! admitted -> prepared (address, volumes) -> init containers -> containers -> finished
//!        `------------ asked to end: hooks, signals, grace, kill -------------^
//! ```

mod containers;
mod hooks;
mod prepare;
mod probes;
mod publish;
mod restore;
mod stop;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec};
use tokio::sync::watch;

use self::containers::{Launched, Live};
use self::prepare::{Material, Preparation};
use self::publish::Publisher;
use super::PodId;
use super::phase::{self, ContainerState, Current, PodPhase, Reason, Retry};
use super::plan::{Plan, Situation, plan};
use super::probe::Answer;
use super::restart::RestartPolicy;
use super::{fields, security};
use crate::address::PodAddress;
use crate::context::Context;
use crate::events::{Component, Record, Severity};
use crate::roster::Entry;
use crate::volume::VolumeError;

/// What the API says about a pod.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    /// It exists.
    Present(Arc<Pod>),
    /// It does not exist any more.
    Gone,
}

/// Why a pod is being ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Somebody deleted it; processes may take until the deadline.
    Deleted,
    /// It ran longer than it may.
    DeadlineExceeded,
    /// It has vanished from the API.
    Gone,
    /// The node stops.
    NodeStops,
}

/// The end of something that took time.
enum Done {
    Prepared(Box<Material>, Result<(), VolumeError>),
    Launched(usize, u64, Box<Launched>),
    PostStarted(usize, u64, Answer),
    Exited(usize, u64, u8),
    Answered(usize, u64, usize, Answer),
    Stopped,
    Published(Result<(), kube::Error>),
    Deleted(Result<(), kube::Error>),
}

type Work = FuturesUnordered<BoxFuture<'static, Done>>;

/// The worker of one pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    id: PodId,
    pod: Arc<Pod>,
    updates: watch::Receiver<Update>,
    entry: Arc<Entry>,
    policy: RestartPolicy,
    containers: Vec<ContainerState>,
    /// The process of each container, in the same order.
    live: Vec<Option<Live>>,
    /// How often each container was started here.
    runs: Vec<u64>,
    work: Work,
    preparation: Preparation,
    address: Option<PodAddress>,
    initialized: bool,
    ending: Option<Ending>,
    /// When everything must have ended.
    ending_deadline: Option<Timestamp>,
    /// Found finished: there is nothing to run.
    dormant: bool,
    finished: bool,
    verdict: Option<(&'static str, &'static str)>,
    started: Timestamp,
    publisher: Publisher,
    wake: Option<Timestamp>,
}

impl Worker {
    /// A worker for a pod that is bound to this node.
    pub(crate) fn new(
        context: Arc<Context>,
        id: PodId,
        pod: Arc<Pod>,
        updates: watch::Receiver<Update>,
    ) -> Self {
        let spec = spec_of(&pod);
        let containers: Vec<ContainerState> = phase::containers(spec)
            .into_iter()
            .map(|(role, container)| ContainerState::new(&container.name, role))
            .collect();
        let count = containers.len();
        let now = context.clock.now();
        let known = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let mut worker = Self {
            entry: context.roster.add(pod.clone()),
            policy: RestartPolicy::parse(spec.restart_policy.as_deref()),
            containers,
            live: (0..count).map(|_| None).collect(),
            runs: vec![0; count],
            work: Work::new(),
            preparation: Preparation::Idle,
            address: None,
            initialized: false,
            ending: None,
            ending_deadline: None,
            dormant: false,
            finished: false,
            verdict: None,
            started: known.map_or(now, |time| time.0),
            publisher: Publisher::new(pod.status.as_ref(), context.settle),
            wake: None,
            context,
            id,
            pod,
            updates,
        };
        worker.restore();
        worker
    }

    /// Lives the pod's life.
    pub(crate) async fn run(mut self) {
        self.note_without_effect();
        self.follow_pod();
        loop {
            self.step();
            if self.is_done() {
                break;
            }
            self.wait().await;
        }
        self.clean_up().await;
    }

    /// Waits for one thing to happen and takes it in.
    async fn wait(&mut self) {
        let now = self.context.clock.now();
        let pause = self.wake.map(|wake| {
            wake.duration_since(now)
                .max(SignedDuration::ZERO)
                .unsigned_abs()
        });
        let stopping = self.ending != Some(Ending::NodeStops);
        tokio::select! {
            changed = self.updates.changed() => match changed {
                Ok(()) => self.follow_pod(),
                // The node has let go of this pod.
                Err(_) => self.end(Ending::NodeStops),
            },
            Some(done) = self.work.next() => self.take(done),
            () = self.preparation.changed() => self.preparation.mark_stale(),
            () = sleep(pause) => {}
            () = self.context.stopping.triggered(), if stopping => self.end(Ending::NodeStops),
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Prepared(material, outcome) => self.prepared(*material, outcome),
            Done::Launched(index, run, launched) => self.launched(index, run, *launched),
            Done::PostStarted(index, run, answer) => self.post_started(index, run, &answer),
            Done::Exited(index, run, code) => self.exited(index, run, code),
            Done::Answered(index, run, slot, answer) => self.answered(index, run, slot, &answer),
            Done::Stopped => {}
            Done::Published(outcome) => self.published(outcome),
            Done::Deleted(outcome) => self.publisher.deleted(outcome, self.context.clock.now()),
        }
    }

    /// Takes in what the API says about the pod now.
    fn follow_pod(&mut self) {
        let update = self.updates.borrow_and_update().clone();
        let Update::Present(pod) = update else {
            self.end(Ending::Gone);
            return;
        };
        self.entry.set_pod(pod.clone());
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds;
        let meta = (&self.pod.metadata.labels, &self.pod.metadata.annotations);
        if meta != (&pod.metadata.labels, &pod.metadata.annotations) {
            self.preparation.mark_stale_if_following_pod();
        }
        let changed = self.pod.spec != pod.spec;
        self.pod = pod;
        self.publisher.touch();
        if changed {
            self.follow_images();
        }
        if deleted {
            let grace = SignedDuration::from_secs(grace.unwrap_or(30).max(0));
            let now = self.context.clock.now();
            let deadline = now.saturating_add(grace).unwrap_or(Timestamp::MAX);
            self.end_by(deadline);
            self.end(Ending::Deleted);
        }
    }

    /// A container whose image was changed is started again with the new one.
    fn follow_images(&mut self) {
        let images: Vec<Option<String>> = phase::containers(self.spec())
            .into_iter()
            .map(|(_, container)| container.image.clone())
            .collect();
        for (index, image) in images.into_iter().enumerate() {
            let live = self.live.get(index).and_then(Option::as_ref);
            match live {
                Some(live) if live.image != image => {
                    let name = self.container_name(index);
                    let why = format!("Container {name} definition changed, will be restarted");
                    self.stop(index, &why, None);
                }
                Some(_) => {}
                None => {
                    if let Some(Current::Waiting(waiting)) =
                        self.containers.get_mut(index).map(|c| &mut c.current)
                        && waiting.retry == Retry::Never
                    {
                        waiting.retry = Retry::Now;
                    }
                }
            }
        }
    }

    /// Plans and carries out.
    fn step(&mut self) {
        let now = self.context.clock.now();
        self.wake = None;
        self.check_deadline(now);
        if !self.dormant {
            let plan = plan(Situation {
                containers: &self.containers,
                policy: self.policy,
                ending: self.ending.is_some(),
                initialized: self.initialized,
                now,
            });
            self.carry_out(plan, now);
        }
        self.publish(now);
    }

    fn carry_out(&mut self, plan: Plan, now: Timestamp) {
        if plan.initialized && !self.initialized {
            self.initialized = true;
            self.publisher.touch();
        }
        self.wake_at(plan.wake);
        if plan.finished && !self.finished {
            self.finished = true;
            self.publisher.touch();
            // The pod keeps its address in the status; the address itself is free again.
            self.address = None;
            self.preparation = Preparation::Idle;
        }
        if !plan.finishing {
            self.prepare(now);
        }
        if self.preparation.is_ready() {
            for index in plan.start {
                self.start(index, now);
            }
        }
        for index in plan.stop {
            let name = self.container_name(index);
            self.stop(index, &format!("Stopping container {name}"), None);
        }
    }

    fn check_deadline(&mut self, now: Timestamp) {
        let Some(seconds) = self.spec().active_deadline_seconds else {
            return;
        };
        if self.ending.is_some() || self.finished || self.dormant {
            return;
        }
        let limit = SignedDuration::from_secs(seconds);
        let deadline = self.started.saturating_add(limit).unwrap_or(Timestamp::MAX);
        if deadline > now {
            self.wake_at(Some(deadline));
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.verdict = Some(("DeadlineExceeded", message));
        self.record(
            Severity::Normal,
            "DeadlineExceeded",
            None,
            message.to_owned(),
        );
        self.end(Ending::DeadlineExceeded);
    }

    fn wake_at(&mut self, time: Option<Timestamp>) {
        self.wake = match (self.wake, time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Begins the end, or takes note of a more urgent reason for it.
    fn end(&mut self, ending: Ending) {
        let now = self.context.clock.now();
        match (self.ending, ending) {
            // Nothing is more urgent than these, and nothing leads back from them.
            (
                Some(Ending::Gone | Ending::NodeStops),
                Ending::Deleted | Ending::DeadlineExceeded,
            ) => {
                return;
            }
            _ => self.ending = Some(ending),
        }
        let grace = match ending {
            Ending::Gone => Some(SignedDuration::ZERO),
            Ending::NodeStops => SignedDuration::try_from(self.context.stop_grace).ok(),
            Ending::DeadlineExceeded => Some(self.grace()),
            Ending::Deleted => None,
        };
        if let Some(grace) = grace {
            self.end_by(now.saturating_add(grace).unwrap_or(Timestamp::MAX));
        }
        self.publisher.touch();
    }

    /// Everything must have ended by then. A later word may only shorten the time that is left, and
    /// then also that of ends that have begun, whoever began them.
    fn end_by(&mut self, deadline: Timestamp) {
        if self.ending_deadline.is_none_or(|old| deadline < old) {
            self.ending_deadline = Some(deadline);
            self.hasten(deadline);
        }
    }

    /// How long containers may take to end by the pod's own wish.
    fn grace(&self) -> SignedDuration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(30);
        SignedDuration::from_secs(seconds.max(0))
    }

    fn is_done(&self) -> bool {
        let idle = self.finished || self.dormant;
        match self.ending {
            Some(Ending::Gone | Ending::NodeStops) => idle,
            _ => false,
        }
    }

    async fn clean_up(self) {
        let directory = self.directory();
        self.context.roster.remove(&self.entry);
        // Whatever still holds files of the pod goes first.
        drop(self);
        let removed =
            tokio::task::spawn_blocking(move || crate::state_dir::remove_tree(&directory)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "removing the directory of a pod failed");
        }
    }

    fn directory(&self) -> PathBuf {
        self.context.pods.join(&self.id.uid)
    }

    fn spec(&self) -> &PodSpec {
        spec_of(&self.pod)
    }

    fn container_name(&self, index: usize) -> String {
        let container = self.containers.get(index);
        container
            .map(|container| container.name.clone())
            .unwrap_or_default()
    }

    /// Facts about the pod for environments and volumes.
    fn facts(&self) -> fields::Facts<'_> {
        fields::Facts {
            pod: &self.pod,
            node_name: &self.context.node_name,
            host_ip: self.context.host_ip,
            pod_ip: self.pod_ip(),
            allocatable: self.context.allocatable,
        }
    }

    fn pod_ip(&self) -> Option<std::net::IpAddr> {
        if self.spec().host_network == Some(true) {
            return Some(self.context.host_ip);
        }
        self.address.as_ref().map(|address| address.ip().into())
    }

    fn phase(&self) -> PodPhase {
        if self.verdict.is_some() && self.finished {
            return PodPhase::Failed;
        }
        phase::phase(&self.containers, self.policy)
    }

    /// Says once which of the pod's wishes have no effect here.
    fn note_without_effect(&self) {
        let notes = security::without_effect(self.spec());
        if !notes.is_empty() && !self.dormant {
            let message = format!(
                "This node runs processes; without effect here: {}",
                notes.join(", ")
            );
            self.record(Severity::Warning, "FieldsWithoutEffect", None, message);
        }
    }

    /// Records an event about the pod or one of its containers.
    fn record(
        &self,
        severity: Severity,
        reason: &'static str,
        container: Option<usize>,
        message: String,
    ) {
        let field_path = container
            .and_then(|index| self.containers.get(index))
            .map(|container| {
                let list = match container.role {
                    phase::Role::App => "containers",
                    phase::Role::Init | phase::Role::Sidecar => "initContainers",
                };
                format!("spec.{list}{{{}}}", container.name)
            });
        self.context.recorder.record(Record {
            about: ObjectReference {
                field_path,
                ..self.id.reference(&self.pod)
            },
            component: Component::Kubelet,
            severity,
            reason,
            message,
        });
    }

    /// Makes a container wait for a reason.
    fn wait_because(&mut self, index: usize, reason: Reason, message: String, retry: Retry) {
        if let Some(container) = self.containers.get_mut(index) {
            container.current = Current::Waiting(phase::Waiting {
                reason,
                message,
                retry,
            });
            self.publisher.touch();
        }
    }
}

/// The spec of a pod; an API server never leaves it out.
fn spec_of(pod: &Pod) -> &PodSpec {
    static NONE: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NONE)
}

async fn sleep(pause: Option<std::time::Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
