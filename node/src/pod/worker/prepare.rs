//! Before the first container: an address and the volumes. Afterwards: keeping generated files
//! current.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::super::fields;
use super::super::launch;
use super::super::phase::{Current, Reason, Retry};
use super::super::references::{References, Snapshot};
use super::super::security;
use super::{Done, Worker};
use crate::context::Context;
use crate::events::Severity;
use crate::volume::{Ownership, PodVolumes, VolumeError};

/// First and longest pause between two attempts.
const RETRY: (SignedDuration, SignedDuration) = (
    SignedDuration::from_millis(250),
    SignedDuration::from_secs(10),
);

/// The volumes of a pod and what they are made from.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) volumes: PodVolumes,
    pub(super) references: References,
    pub(super) snapshot: Snapshot,
}

/// How far the preparation of a pod is.
#[derive(Debug)]
pub(super) enum Preparation {
    /// Nothing has been done, or everything has been given back.
    Idle,
    /// Something could not be done; again at this time, or when a referenced object changes.
    Waiting {
        material: Option<Box<Material>>,
        again: Timestamp,
        pause: SignedDuration,
    },
    /// It cannot be done.
    Refused,
    /// Being done. `ready` when containers run already and files are only being renewed.
    Working { ready: bool, pause: SignedDuration },
    /// Done. `stale` when files must be written again.
    Ready {
        material: Box<Material>,
        stale: bool,
    },
}

impl Preparation {
    /// Whether containers may be started.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Waits until an object that the pod refers to has changed.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::Waiting {
                material: Some(material),
                ..
            }
            | Self::Ready {
                material,
                stale: false,
            } if !material.references.is_empty() => material.references.changed().await,
            _ => std::future::pending().await,
        }
    }

    /// A referenced object has changed: try again, or write again.
    pub(super) fn mark_stale(&mut self) {
        match self {
            Self::Waiting { again, .. } => *again = Timestamp::MIN,
            Self::Ready { stale, .. } => *stale = true,
            Self::Idle | Self::Refused | Self::Working { .. } => {}
        }
    }

    /// The pod's own fields have changed.
    pub(super) fn mark_stale_if_following_pod(&mut self) {
        if let Self::Ready { material, stale } = self {
            *stale |= material.volumes.follows_pod();
        }
    }
}

impl Worker {
    /// Does what is due of the preparation.
    pub(super) fn prepare(&mut self, now: Timestamp) {
        match &self.preparation {
            Preparation::Idle => self.begin(now),
            Preparation::Waiting { again, .. } if *again > now => {
                let again = *again;
                self.wake_at(Some(again));
            }
            Preparation::Waiting { .. } => self.try_again(now),
            Preparation::Ready { material, stale } => {
                let due = material.volumes.renewal();
                if *stale || due.is_some_and(|due| due <= now) {
                    self.renew();
                } else {
                    self.wake_at(due);
                }
            }
            Preparation::Refused | Preparation::Working { .. } => {}
        }
    }

    fn begin(&mut self, now: Timestamp) {
        let owner = Ownership::within(self.context.id_base(), security::fs_group(self.spec()));
        let directory = self.directory().join("volumes");
        let volumes = match PodVolumes::parse(&self.pod, self.spec(), directory, owner) {
            Ok(volumes) => volumes,
            Err(error) => {
                self.preparation = Preparation::Refused;
                self.wait_all(&error.to_string(), Some(Reason::CreateContainerConfigError));
                self.record(Severity::Warning, "FailedMount", None, error.to_string());
                return;
            }
        };
        let references = References::of(self.spec(), &self.id.namespace, &self.context.objects);
        let material = Box::new(Material {
            volumes,
            references,
            snapshot: Snapshot::default(),
        });
        self.preparation = Preparation::Waiting {
            material: Some(material),
            again: now,
            pause: RETRY.0,
        };
        self.try_again(now);
    }

    fn try_again(&mut self, now: Timestamp) {
        if let Err(error) = self.take_address() {
            let Preparation::Waiting { again, pause, .. } = &mut self.preparation else {
                return;
            };
            *again = now.saturating_add(*pause).unwrap_or(Timestamp::MAX);
            *pause = (*pause * 2).min(RETRY.1);
            let wake = *again;
            self.wake_at(Some(wake));
            self.wait_all(&error, None);
            let message = format!("Failed to create pod sandbox: {error}");
            self.record(Severity::Warning, "FailedCreatePodSandBox", None, message);
            return;
        }
        let Preparation::Waiting {
            material, pause, ..
        } = &mut self.preparation
        else {
            return;
        };
        let (material, pause) = (material.take(), *pause);
        if let Some(material) = material {
            self.preparation = Preparation::Working {
                ready: false,
                pause,
            };
            self.sync(material);
        }
    }

    fn renew(&mut self) {
        let working = Preparation::Working {
            ready: true,
            pause: RETRY.0,
        };
        match std::mem::replace(&mut self.preparation, working) {
            Preparation::Ready { material, .. } => self.sync(material),
            other => self.preparation = other,
        }
    }

    fn take_address(&mut self) -> Result<(), String> {
        if self.address.is_some() || self.spec().host_network == Some(true) {
            return Ok(());
        }
        let ports = launch::ports(self.spec(), &self.context.images);
        match self.context.addresses.allocate(&ports) {
            Ok(address) => {
                self.address = Some(address);
                self.publisher.touch();
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn sync(&mut self, mut material: Box<Material>) {
        let context = self.context.clone();
        let pod = self.pod.clone();
        let pod_ip = self.pod_ip();
        self.work.push(Box::pin(async move {
            let outcome = sync(&context, &pod, pod_ip, &mut material).await;
            Done::Prepared(material, outcome)
        }));
    }

    /// The volumes have been written, or not.
    pub(super) fn prepared(&mut self, material: Material, outcome: Result<(), VolumeError>) {
        let now = self.context.clock.now();
        let (ready, pause) = match &self.preparation {
            Preparation::Working { ready, pause } => (*ready, *pause),
            // The pod has finished meanwhile.
            _ => return,
        };
        let material = Box::new(material);
        let error = match outcome {
            Ok(()) => {
                self.preparation = Preparation::Ready {
                    material,
                    stale: false,
                };
                self.retry_configuration();
                return;
            }
            Err(error) => error,
        };
        let message = error.to_string();
        self.record(Severity::Warning, "FailedMount", None, message.clone());
        if ready {
            // Containers keep the files they have.
            self.preparation = Preparation::Ready {
                material,
                stale: false,
            };
            return;
        }
        if error.is_final() {
            self.preparation = Preparation::Refused;
            self.wait_all(&message, Some(Reason::CreateContainerConfigError));
            return;
        }
        self.wait_all(&message, None);
        self.preparation = Preparation::Waiting {
            material: Some(material),
            again: now.saturating_add(pause).unwrap_or(Timestamp::MAX),
            pause: (pause * 2).min(RETRY.1),
        };
    }

    /// An object that was missing may be there now.
    fn retry_configuration(&mut self) {
        for container in &mut self.containers {
            if let Current::Waiting(waiting) = &mut container.current
                && waiting.reason == Reason::CreateContainerConfigError
                && waiting.retry != Retry::Never
            {
                waiting.retry = Retry::Now;
            }
        }
    }

    /// Lets every container that has not run yet say what the pod waits for.
    fn wait_all(&mut self, message: &str, refused: Option<Reason>) {
        for index in 0..self.containers.len() {
            let waits = self.containers.get(index).is_some_and(|container| {
                matches!(container.current, Current::Waiting(_)) && container.last.is_none()
            });
            if waits {
                let (reason, retry) = match refused {
                    Some(reason) => (reason, Retry::Never),
                    None => (Reason::Creating, Retry::Now),
                };
                self.wait_because(index, reason, message.to_owned(), retry);
            }
        }
    }
}

async fn sync(
    context: &Arc<Context>,
    pod: &Pod,
    pod_ip: Option<std::net::IpAddr>,
    material: &mut Material,
) -> Result<(), VolumeError> {
    material.snapshot = material.references.snapshot().await;
    let facts = fields::Facts {
        pod,
        node_name: &context.node_name,
        host_ip: context.host_ip,
        pod_ip,
        allocatable: context.allocatable,
    };
    let now = context.clock.now();
    material
        .volumes
        .sync(
            &context.client,
            facts,
            &material.snapshot,
            &context.claims,
            now,
        )
        .await
}
