//! Leader election over a `coordination.k8s.io/v1` Lease.
//!
//! No two clocks are compared: a replica counts the lease's duration from the moment it saw the
//! lease change last, on its own monotonic clock. A leader opens the [`Fence`] for the renew deadline
//! only, counted from before the renewing call, so it has stopped writing before any other replica
//! can take over. What a late write of an old leader could still do is excluded by the preconditions
//! on the writes themselves.

use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Api, ApiError, LEASES};
use crate::config::LeaderElection;
use crate::events::micro_time;
use crate::fence::Fence;
use crate::ident::Key;

/// This replica's part in the election.
#[derive(Debug)]
pub struct Lease {
    api: Api,
    settings: LeaderElection,
    fence: Fence,
    clock: Clock,
    seen: Option<Seen>,
}

/// The lease as last seen, and when it last changed.
#[derive(Clone, Debug)]
struct Seen {
    holder: String,
    stamp: (String, String),
    duration: Duration,
    changed: Instant,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
}

/// How a try went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// This replica leads.
    Leader,
    /// Another one does, or might.
    Standby,
}

impl Lease {
    /// A replica that has not tried yet. `fence` is opened while it leads.
    pub fn new(api: Api, settings: LeaderElection, fence: Fence, clock: Clock) -> Self {
        Self {
            api,
            settings,
            fence,
            clock,
            seen: None,
        }
    }

    /// Tries once to take or renew the lease.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn try_once(&mut self) -> Result<Standing, ApiError> {
        let asked = Instant::now();
        let key = self.key();
        let Some(found): Option<Object> = self.api.get(&LEASES, &key).await? else {
            let lease = self.to_value(None);
            return match self
                .api
                .create_unfenced::<Object>(&LEASES, &self.settings.namespace, &lease)
                .await
            {
                Ok(_) => Ok(self.lead(asked)),
                Err(ApiError::AlreadyExists(_)) => Ok(Standing::Standby),
                Err(error) => Err(error),
            };
        };
        self.look(&found);
        if !self.may_take() {
            return Ok(Standing::Standby);
        }
        let lease = self.to_value(Some(&found));
        match self.api.replace::<Object>(&LEASES, &key, &lease).await {
            Ok(_) => Ok(self.lead(asked)),
            Err(ApiError::Conflict(_)) => Ok(Standing::Standby),
            Err(error) => Err(error),
        }
    }

    /// Tries until this replica leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_once().await {
                Ok(Standing::Leader) => return,
                Ok(Standing::Standby) => {}
                Err(error) => tracing::warn!(%error, "the lease could not be read or taken"),
            }
            self.pause().await;
        }
    }

    /// Renews until the lease is lost: taken by another replica, or not renewed in time.
    pub async fn hold(&mut self) {
        loop {
            self.pause().await;
            match self.try_once().await {
                Ok(Standing::Leader) => {}
                Ok(Standing::Standby) => {
                    if self.is_held_by_another() {
                        self.fence.close();
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            }
            if !self.fence.is_open() {
                return;
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait for it to run out.
    pub async fn release(&mut self) {
        self.fence.close();
        let key = self.key();
        let found: Option<Object> = self.api.get(&LEASES, &key).await.ok().flatten();
        let ours = found.filter(|lease| {
            lease.spec.holder_identity.as_deref() == Some(self.settings.identity.as_str())
        });
        let Some(found) = ours else {
            return;
        };
        let mut lease = self.to_value(Some(&found));
        if let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("holderIdentity".to_owned(), json!(""));
            spec.insert("leaseDurationSeconds".to_owned(), json!(1));
        }
        if let Err(error) = self.api.replace::<Object>(&LEASES, &key, &lease).await {
            tracing::info!(%error, "the lease was not given back; it runs out by itself");
        }
    }

    /// Who held the lease when it was last seen.
    pub fn holder(&self) -> Option<&str> {
        self.seen
            .as_ref()
            .map(|seen| seen.holder.as_str())
            .filter(|holder| !holder.is_empty())
    }

    fn key(&self) -> Key {
        Key::new(
            self.settings.namespace.as_str(),
            self.settings.name.as_str(),
        )
    }

    async fn pause(&self) {
        // A little spread, so that standbys do not try in step.
        let pause = self.settings.retry.mul_f64(1.0 + 0.2 * fastrand::f64());
        tokio::time::sleep(pause).await;
    }

    fn lead(&mut self, since: Instant) -> Standing {
        self.fence.open_until(since + self.settings.renew_deadline);
        self.seen = None;
        Standing::Leader
    }

    fn look(&mut self, found: &Object) {
        let spec = &found.spec;
        let stamp = (
            spec.renew_time.clone().unwrap_or_default(),
            found.metadata.resource_version.clone(),
        );
        if self.seen.as_ref().is_some_and(|seen| seen.stamp == stamp) {
            return;
        }
        let seconds = spec.lease_duration_seconds.unwrap_or(0);
        self.seen = Some(Seen {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            stamp,
            duration: Duration::from_secs(seconds),
            changed: Instant::now(),
        });
    }

    fn is_held_by_another(&self) -> bool {
        self.holder()
            .is_some_and(|holder| holder != self.settings.identity)
    }

    /// Whether the lease is free, ours, or has not been renewed for its whole duration.
    fn may_take(&self) -> bool {
        !self.is_held_by_another()
            || self
                .seen
                .as_ref()
                .is_none_or(|seen| seen.changed.elapsed() >= seen.duration)
    }

    fn to_value(&self, found: Option<&Object>) -> Value {
        let now = micro_time(&self.clock.now().to_string());
        let old = found.map(|lease| &lease.spec);
        let kept = old.filter(|spec| {
            spec.holder_identity.as_deref() == Some(self.settings.identity.as_str())
        });
        let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let mut metadata = json!({
            "name": self.settings.name,
            "namespace": self.settings.namespace,
        });
        if let (Some(found), Some(members)) = (found, metadata.as_object_mut()) {
            members.insert(
                "resourceVersion".to_owned(),
                json!(found.metadata.resource_version),
            );
        }
        json!({
            "apiVersion": LEASES.api_version(),
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.settings.identity,
                "leaseDurationSeconds": self.settings.duration.as_secs(),
                "acquireTime": kept
                    .and_then(|spec| spec.acquire_time.clone())
                    .unwrap_or_else(|| now.clone()),
                "renewTime": now,
                "leaseTransitions": if kept.is_some() || old.is_none() {
                    transitions
                } else {
                    transitions + 1
                },
            },
        })
    }
}
