//! Writing what a pod is: as little and as seldom as possible, and its deletion last of all.
//!
//! At most one write is under way, so changes that come while it is coalesce into the next. A pod
//! that is just starting is given a moment to settle, so that "running" and "ready" become one
//! write.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::time::Instant;

use super::super::phase::Current;
use super::super::status;
use super::{Done, Ending, Worker};

/// Pause after a write that failed.
const RETRY: (SignedDuration, SignedDuration) = (
    SignedDuration::from_millis(250),
    SignedDuration::from_secs(5),
);

/// Longest time for one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// What has been written, and what is on its way.
#[derive(Debug)]
pub(super) struct Publisher {
    written: PodStatus,
    /// The status on its way.
    sending: Option<PodStatus>,
    /// Something may differ from what was written.
    touched: bool,
    /// How long a start may keep its first status back.
    settle: Duration,
    settle_until: Instant,
    not_before: Option<Timestamp>,
    pause: SignedDuration,
    deletion: Deletion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    NotAsked,
    Asked,
    Accepted,
}

impl Publisher {
    /// A publisher for a pod whose status in the API is `found` and whose starts may take `settle`
    /// to be told at once.
    pub(super) fn new(found: Option<&PodStatus>, settle: Duration) -> Self {
        Self {
            written: status::own(found),
            sending: None,
            touched: true,
            settle,
            settle_until: Instant::now() + settle,
            not_before: None,
            pause: RETRY.0,
            deletion: Deletion::NotAsked,
        }
    }

    /// Something has changed.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// Something has changed, and more will follow in a moment.
    pub(super) fn touch_and_settle(&mut self) {
        self.touched = true;
        self.settle_until = Instant::now() + self.settle;
    }

    fn failed(&mut self, now: Timestamp) {
        self.not_before = now.saturating_add(self.pause).ok();
        self.pause = (self.pause * 2).min(RETRY.1);
        self.touched = true;
    }

    fn succeeded(&mut self) {
        self.not_before = None;
        self.pause = RETRY.0;
    }

    /// The deletion was answered.
    pub(super) fn deleted(&mut self, outcome: Result<(), kube::Error>, now: Timestamp) {
        match outcome {
            Ok(()) => self.deletion = Deletion::Accepted,
            Err(error) => {
                tracing::warn!(%error, "deleting a finished pod failed, will try again");
                self.deletion = Deletion::NotAsked;
                self.failed(now);
            }
        }
    }
}

impl Worker {
    /// Writes the status if it differs, then the deletion if it is time.
    pub(super) fn publish(&mut self, now: Timestamp) {
        if matches!(self.ending, Some(Ending::Gone | Ending::NodeStops)) {
            return;
        }
        if self.publisher.sending.is_some() {
            return;
        }
        if let Some(time) = self.publisher.not_before
            && time > now
        {
            self.wake_at(Some(time));
            return;
        }
        if self.publisher.touched && !self.dormant {
            let settle = self.publisher.settle_until;
            let instant = Instant::now();
            if settle > instant && !self.is_settled() {
                let left = SignedDuration::try_from(settle - instant).unwrap_or(RETRY.0);
                self.wake_at(now.saturating_add(left).ok());
                return;
            }
            self.publisher.touched = false;
            if self.send_status(now) {
                return;
            }
        }
        let deletable = self.ending == Some(Ending::Deleted) && (self.finished || self.dormant);
        if deletable && self.publisher.deletion == Deletion::NotAsked {
            self.publisher.deletion = Deletion::Asked;
            self.send_deletion();
        }
    }

    /// Whether nothing is expected to change in the next moment.
    fn is_settled(&self) -> bool {
        self.finished
            || self.ending.is_some()
            || self
                .containers
                .iter()
                .all(|container| match &container.current {
                    Current::Starting => false,
                    Current::Waiting(waiting) => {
                        waiting.reason.name().is_some() || !waiting.message.is_empty()
                    }
                    Current::Running(running) => running.ready,
                    Current::Ended(_) => true,
                })
    }

    /// Starts a write if there is something to write.
    fn send_status(&mut self, now: Timestamp) -> bool {
        let previous = self
            .publisher
            .written
            .conditions
            .clone()
            .unwrap_or_default();
        let wanted = status::pod_status(&status::Facts {
            pod: &self.pod,
            spec: self.spec(),
            containers: &self.containers,
            phase: self.phase(),
            verdict: self.verdict,
            initialized: self.initialized,
            started: self.started,
            host_ip: self.context.host_ip,
            pod_ip: self.shown_ip(),
            previous: &previous,
            now,
        });
        let Some(mut patch) = status::difference(&self.publisher.written, &wanted) else {
            return false;
        };
        // Refused if another pod has taken the name.
        if let Some(patch) = patch.as_object_mut() {
            patch.insert("metadata".into(), serde_json::json!({"uid": self.id.uid}));
        }
        self.publisher.sending = Some(wanted);
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.id.namespace);
        let name = self.id.name.clone();
        self.work.push(Box::pin(async move {
            let params = PatchParams::default();
            let patch = Patch::Strategic(patch);
            let write = api.patch_status(&name, &params, &patch);
            Done::Published(bounded(write).await.map(drop))
        }));
        true
    }

    /// The address that the status shows: that of a finished pod stays.
    fn shown_ip(&self) -> Option<std::net::IpAddr> {
        let written = self.publisher.written.pod_ip.as_deref();
        self.pod_ip()
            .or_else(|| written.filter(|_| self.finished)?.parse().ok())
    }

    /// A status write was answered.
    pub(super) fn published(&mut self, outcome: Result<(), kube::Error>) {
        let now = self.context.clock.now();
        let Some(sent) = self.publisher.sending.take() else {
            return;
        };
        match outcome {
            Ok(()) => {
                self.publisher.written = sent;
                self.publisher.succeeded();
            }
            // The pod is gone or replaced; the watch is going to say so.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.publisher.written = sent;
            }
            // The same again would be refused again; the next change is another attempt.
            Err(kube::Error::Api(status))
                if (400..500).contains(&status.code) && status.code != 429 =>
            {
                tracing::warn!(pod = %self.id, %status, "a pod's status was refused");
                self.publisher.written = sent;
            }
            Err(error) => {
                tracing::warn!(pod = %self.id, %error, "writing a pod's status failed, will try again");
                self.publisher.failed(now);
            }
        }
    }

    fn send_deletion(&mut self) {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.id.namespace);
        let name = self.id.name.clone();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.id.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.work.push(Box::pin(async move {
            let outcome = bounded(api.delete(&name, &params)).await.map(drop);
            Done::Deleted(match outcome {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                other => other,
            })
        }));
    }
}

/// Bounds a call in time.
async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(WRITE_DEADLINE, call).await {
        Ok(outcome) => outcome,
        Err(late) => Err(kube::Error::Service(late.into())),
    }
}
