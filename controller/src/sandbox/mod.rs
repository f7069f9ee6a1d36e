//! Sandbox -> Pod, headless Service and volume claims.
//!
//! A pass is *observe -> plan -> act -> status*: [`observe`] reads the store, [`plan`] decides from
//! what was observed, [`act`] makes the calls, [`status`] says what came of it. The pass may run
//! again in place when a call revealed something (a name held by an object the watch does not
//! select). What cannot be read from objects is in [`memory`].

pub mod act;
pub mod desired;
mod memory;
mod observe;
pub mod plan;
pub mod policy;
mod report;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::{annotations, labels};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::act::{Created, Published};
use self::memory::Memory;
use self::observe::Learned;
use self::plan::{Converge, Holder, Observed, Plan, PodStep, ServiceStep, TearDown, VolumeStep};
use self::status::{Outcome, Urgency};
use crate::context::Context;
use crate::error::Fault;
use crate::events::Importance;
use crate::ident::Key;
use crate::lanes::Turn;
use crate::metrics;
use crate::objects::{OwnerKind, PodRow, SandboxRow, SandboxStatus, ServiceRow, VolumeClaimRow};
use crate::queue::{Next, Priority};
use crate::store::Work;
use crate::trace::{About, Span};

/// Details nobody waits for are collected this long before they are written.
const SETTLE: Duration = Duration::from_secs(1);
/// How soon to look again at what is in the way and not watched.
const RECHECK: Duration = Duration::from_secs(60);
/// In-place repetitions of a pass; each needs a new revelation.
const ROUNDS: usize = 4;

/// Reconciles sandboxes.
#[derive(Debug)]
pub struct Sandboxes {
    cx: Arc<Context>,
    memory: Mutex<BTreeMap<Key, Memory>>,
}

/// What a round of steps led to.
enum Round {
    /// Something was revealed: plan again.
    Again,
    /// All steps were taken.
    Settled {
        outcome: Outcome,
        wait: Option<Duration>,
    },
}

impl Sandboxes {
    /// A reconciler with an empty memory.
    pub fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            memory: Mutex::default(),
        }
    }

    /// What traces say of a sandbox.
    pub fn traced_as(&self, key: &Key) -> Option<About> {
        let row = self.cx.store.read(|state| state.sandbox(key))?;
        let creator = row.labels.get(labels::CREATED_BY).map(|text| &**text);
        Some(About {
            context: row.annotations.get(annotations::TRACE_CONTEXT).cloned(),
            creator: Some(labels::normalised_creator(creator.unwrap_or_default())),
        })
    }

    /// Brings one sandbox to its desired state, as far as possible now.
    pub async fn reconcile(&self, key: &Key, span: &Span) -> Next {
        let mut learned = Learned::default();
        for _ in 0..ROUNDS {
            let Some(observed) = self.observe(key, &learned) else {
                self.forget(key);
                return Next::Done;
            };
            if let Some(delay) = self.yields(&observed.sandbox) {
                return Next::After(delay);
            }
            let now = self.cx.clock.now();
            let by = work(&observed.sandbox);
            match plan::plan(&observed, now) {
                Plan::Leave => return Next::Done,
                Plan::MarkExpired => {
                    let status = status::marked_expired(&observed.sandbox, now);
                    match self.publish(&by, &observed.sandbox, &status).await {
                        Ok(Published::Done) => self.announce_expiry(&observed.sandbox),
                        Ok(Published::Gone) => return Next::Done,
                        Err(fault) => return next_after(&[fault]),
                    }
                }
                Plan::LookUp(name) => {
                    let uid = observed.sandbox.head.uid;
                    match act::look_up::<PodRow>(&self.cx, &by, uid, &name).await {
                        Ok(holder) => learned.pod_name = Some(holder),
                        Err(fault) => return next_after(&[fault]),
                    }
                }
                Plan::TearDown(steps) => {
                    return self.tear_down(&by, &observed.sandbox, steps).await;
                }
                Plan::Converge(steps) => {
                    match self
                        .converge(&by, &observed, steps, &mut learned, span)
                        .await
                    {
                        Round::Again => {}
                        Round::Settled { outcome, wait } => {
                            return self.settle(key, &by, &learned, outcome, wait).await;
                        }
                    }
                }
            }
        }
        Next::Retry
    }

    /// Takes the steps of a normal pass, one after the other; a failure does not stop the later ones.
    async fn converge(
        &self,
        by: &Work,
        observed: &Observed,
        steps: Converge,
        learned: &mut Learned,
        span: &Span,
    ) -> Round {
        let cx = &*self.cx;
        let row = &*observed.sandbox;
        let key = &row.head.key;
        let mut outcome = Outcome::default();
        let mut wait = None;
        let mut revealed = false;
        let mut turn = cx.lanes.turn();
        if is_unclaimed_member(row) && !steps.is_empty() {
            turn.take().await;
        }

        let part = span.child("reconcilePVCs");
        for step in steps.volumes {
            match self.volume_step(by, row, step, learned).await {
                Ok(done) => revealed |= done == VolumeDone::Revealed,
                Err(fault) => outcome.faults.push(fault),
            }
        }
        if revealed {
            // Whose a volume is must be known before a pod mounts it.
            return Round::Again;
        }

        drop(part);

        let mut part = span.child("reconcilePod");
        for pod in &observed.pods {
            part.event("ExistingPodStatusObserved", || pod_marks(pod));
        }
        let mut pod_is_in_line = false;
        let step = self.pod_step(by, row, steps.pod, learned, &mut turn).await;
        if observed.pods.is_empty() {
            for pod in cx
                .store
                .read(|state| state.pods_of(row.head.uid).cloned().collect::<Vec<_>>())
            {
                part.event("NewPodStatusObserved", || pod_marks(&pod));
            }
        }
        if step.is_err() {
            part.fail("the pod's step failed");
        }
        drop(part);
        match step {
            Ok(PodDone::Settled { wait: longer }) => {
                wait = longer;
                pod_is_in_line = longer.is_none();
            }
            Ok(PodDone::Revealed) => revealed = true,
            Ok(PodDone::TooMany(count)) => outcome.too_many_pods = Some(count),
            Err(fault) => {
                outcome.pod_failed = true;
                outcome.faults.push(fault);
            }
        }
        if steps.forget_pod_name
            && let Err(fault) = act::forget_pod_name(cx, by, row).await
        {
            outcome.faults.push(fault);
        }

        let held = steps.service_follows_pod && !pod_is_in_line;
        let service = if held {
            ServiceStep::None
        } else {
            steps.service
        };
        let done = match service {
            ServiceStep::None => Ok(()),
            ServiceStep::Create(service) => {
                let uid = row.head.uid;
                match act::create::<ServiceRow>(cx, by, uid, key, &service).await {
                    Ok(Created::Done) => Ok(()),
                    Ok(Created::Taken(holder)) => {
                        learned.service = Some(holder);
                        revealed = true;
                        Ok(())
                    }
                    Err(fault) => Err(fault),
                }
            }
            ServiceStep::Patch(name, patch) => {
                act::patch::<ServiceRow>(cx, by, &name, &patch).await
            }
            ServiceStep::Delete(name, uid) => act::delete_service(cx, by, &name, uid).await,
            ServiceStep::Fail(fault) => Err(fault),
        };
        if let Err(fault) = done {
            self.note_rejection(row, &fault, |rejected| &mut rejected.service);
            outcome.faults.push(fault);
        }

        if revealed && outcome.faults.is_empty() {
            Round::Again
        } else {
            Round::Settled { outcome, wait }
        }
    }

    async fn volume_step(
        &self,
        by: &Work,
        row: &SandboxRow,
        step: VolumeStep,
        learned: &mut Learned,
    ) -> Result<VolumeDone, Fault> {
        let cx = &*self.cx;
        let done = match step {
            VolumeStep::Create(name, claim) => {
                let uid = row.head.uid;
                match act::create::<VolumeClaimRow>(cx, by, uid, &name, &claim).await {
                    Ok(Created::Done) => Ok(VolumeDone::Settled),
                    Ok(Created::Taken(holder)) => {
                        learned.volume_claims.insert(name.name.to_string(), holder);
                        Ok(VolumeDone::Revealed)
                    }
                    Err(fault) => Err(fault),
                }
            }
            VolumeStep::Adopt(name, patch) | VolumeStep::Release(name, patch) => {
                act::patch::<VolumeClaimRow>(cx, by, &name, &patch)
                    .await
                    .map(|()| VolumeDone::Settled)
            }
            // The plan's own judgement is made anew with every pass.
            VolumeStep::Fail(fault) => return Err(fault),
        };
        if let Err(fault) = &done {
            self.note_rejection(row, fault, |rejected| &mut rejected.volumes);
        }
        done
    }

    async fn pod_step(
        &self,
        by: &Work,
        row: &SandboxRow,
        step: PodStep,
        learned: &mut Learned,
        turn: &mut Turn<'_>,
    ) -> Result<PodDone, Fault> {
        let cx = &*self.cx;
        let key = &row.head.key;
        let settled = PodDone::Settled { wait: None };
        let patches_metadata = matches!(&step, PodStep::Patch { adopts: false, .. });
        if !patches_metadata {
            self.remember(row, |memory| memory.metadata_waits = None);
        }
        match step {
            PodStep::None | PodStep::AwaitPolicy | PodStep::AwaitVolumes => Ok(settled),
            PodStep::Blocked => Ok(PodDone::Settled {
                wait: Some(RECHECK),
            }),
            PodStep::Multiple(count) => Ok(PodDone::TooMany(count)),
            PodStep::Fail(fault) => {
                if let Some(Holder::Nobody) = learned.pod_name {
                    learned.pod_name = None;
                }
                Err(fault)
            }
            PodStep::LookUp(name) => {
                let uid = row.head.uid;
                learned.pod_name = Some(act::look_up::<PodRow>(cx, by, uid, &name).await?);
                Ok(PodDone::Revealed)
            }
            PodStep::Create(pod) => match act::create(cx, by, row.head.uid, key, &pod).await {
                Ok(Created::Done) => {
                    self.pod_was_created(row);
                    self.announce(
                        row,
                        Importance::Normal,
                        "SandboxPodCreated",
                        "PodCreation",
                        || format!("Created Pod {:?}", &*key.name),
                    );
                    Ok(settled)
                }
                Ok(Created::Taken(holder)) => {
                    learned.pod_name = Some(holder);
                    Ok(PodDone::Revealed)
                }
                Err(fault) => {
                    if self.is_news(row, &fault) {
                        self.announce(
                            row,
                            Importance::Warning,
                            "SandboxPodCreateFailed",
                            "PodCreation",
                            || fault.to_string(),
                        );
                    }
                    self.note_rejection(row, &fault, |rejected| &mut rejected.pod);
                    Err(fault)
                }
            },
            PodStep::Patch {
                key: name,
                patch,
                adopts,
            } => {
                if !adopts && let Some(left) = self.write_behind(row) {
                    return Ok(PodDone::Settled { wait: Some(left) });
                }
                let began = Instant::now();
                if !adopts {
                    turn.take_within(self.metadata_may_wait(row)).await;
                }
                act::patch::<PodRow>(cx, by, &name, &patch).await?;
                if !adopts && !is_unclaimed_member(row) {
                    let steps = &cx.metrics.steps;
                    steps.took(metrics::Step::PodRelabel, began.elapsed());
                }
                self.remember(row, |memory| memory.metadata_waits = None);
                if adopts {
                    // From here on it is watched: what was learned of it is out of date.
                    learned.pod_name = None;
                    return Ok(PodDone::Revealed);
                }
                Ok(settled)
            }
            PodStep::Delete(name, uid) => {
                act::delete_pod(cx, by, &name, uid).await?;
                learned.pod_name = None;
                Ok(settled)
            }
        }
    }

    /// Computes the status after the steps, and writes it now, later, or not at all.
    async fn settle(
        &self,
        key: &Key,
        by: &Work,
        learned: &Learned,
        outcome: Outcome,
        wait: Option<Duration>,
    ) -> Next {
        let Some(after) = self.observe(key, learned) else {
            return Next::Done;
        };
        let row = &*after.sandbox;
        let now = self.cx.clock.now();
        if plan::is_expired(row, now) {
            // It expired during the pass; the next one says so.
            return Next::After(Duration::ZERO);
        }
        let new = status::converged(&after, &outcome, now, &self.cx.config.cluster_domain);
        let mut faults = outcome.faults.clone();
        let mut wait = wait;
        match status::urgency(row, &new) {
            Urgency::None => self.remember(row, |memory| memory.status_waits = None),
            Urgency::Later => {
                let left = self.remember(row, |memory| {
                    let since = *memory.status_waits.get_or_insert_with(Instant::now);
                    SETTLE.saturating_sub(since.elapsed())
                });
                if left.is_zero() {
                    faults.extend(self.publish(by, row, &new).await.err());
                } else {
                    wait = Some(wait.map_or(left, |wait| wait.min(left)));
                }
            }
            Urgency::Now => {
                let published = self.publish(by, row, &new).await;
                if published == Ok(Published::Done) {
                    self.announce_changes(row, &new, &outcome);
                }
                faults.extend(published.err());
            }
        }
        if faults.iter().any(Fault::is_retried) {
            return next_after(&faults);
        }
        wait.map_or(Next::Done, Next::After)
    }

    async fn publish(
        &self,
        by: &Work,
        row: &SandboxRow,
        new: &SandboxStatus,
    ) -> Result<Published, Fault> {
        self.remember(row, |memory| memory.status_waits = None);
        let Some(patch) = status::patch(row, new) else {
            return Ok(Published::Done);
        };
        act::publish(&self.cx, by, &row.head.key, &patch).await
    }

    /// Takes down an expired sandbox: children first, then, as the policy says, the sandbox itself or
    /// all of its status but the conditions.
    async fn tear_down(&self, by: &Work, row: &SandboxRow, steps: TearDown) -> Next {
        let cx = &*self.cx;
        let mut faults = Vec::new();
        for (pod, uid) in &steps.pods {
            faults.extend(act::delete_pod(cx, by, pod, *uid).await.err());
        }
        if let Some((service, uid)) = &steps.service {
            faults.extend(act::delete_service(cx, by, service, *uid).await.err());
        }
        if steps.sandbox {
            // Garbage collection finishes what failed above.
            faults.clear();
            faults.extend(act::delete_sandbox(cx, by, row).await.err());
        } else if faults.is_empty() {
            let status = status::torn_down(row, cx.clock.now());
            faults.extend(self.publish(by, row, &status).await.err());
        }
        if faults.is_empty() {
            Next::Done
        } else {
            next_after(&faults)
        }
    }
}

/// What became of a volume claim's step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum VolumeDone {
    Settled,
    Revealed,
}

/// What traces say about a pod.
fn pod_marks(pod: &PodRow) -> Vec<(&'static str, String)> {
    vec![
        ("pod.Name", pod.head.key.name.to_string()),
        ("pod.Phase", format!("{:?}", pod.phase)),
    ]
}

/// What became of the pod's step.
enum PodDone {
    Settled { wait: Option<Duration> },
    Revealed,
    TooMany(usize),
}

fn next_after(faults: &[Fault]) -> Next {
    match faults.iter().filter_map(Fault::retry_after).max() {
        Some(delay) => Next::RetryAfter(delay),
        None => Next::Retry,
    }
}

fn work(row: &SandboxRow) -> Work {
    let priority = if is_unclaimed_member(row) {
        Priority::Low
    } else {
        Priority::High
    };
    Work::Sandbox(row.head.key.clone(), priority)
}

fn is_unclaimed_member(row: &SandboxRow) -> bool {
    row.head
        .owner
        .as_ref()
        .is_some_and(|owner| owner.kind == OwnerKind::Pool)
}

#[cfg(test)]
mod tests;
