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

use crate::api::{Api, ApiError, Fields, LEASES, Part};
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
    leads: bool,
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
    pub fn new(api: &Api, settings: LeaderElection, fence: Fence, clock: Clock) -> Self {
        Self {
            // So many calls that hang fit between two renewals.
            api: api.unhindered(settings.renew_deadline / 4),
            settings,
            fence,
            clock,
            seen: None,
            leads: false,
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
            let lease = self.new_lease();
            let namespace = &self.settings.namespace;
            return match self
                .api
                .create::<Object>(&LEASES, namespace, &lease, Fields::Lenient)
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
        let patch = patch_of(&found, &self.claim_on(&found));
        let patched = self.api.patch(&LEASES, &key, Part::Object, &patch).await;
        match patched {
            Ok(Object { .. }) => Ok(self.lead(asked)),
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
        let fence = self.fence.clone();
        loop {
            let renewed = async {
                self.pause().await;
                self.try_once().await
            };
            let renewed = tokio::select! {
                biased;
                renewed = renewed => renewed,
                // A call that hangs must not outlast the lease.
                () = fence.closed_or_over() => break,
            };
            match renewed {
                Ok(Standing::Standby) if self.is_held_by_another() => break,
                Ok(Standing::Leader | Standing::Standby) => {}
                Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            }
        }
        self.fence.close();
        self.leads = false;
    }

    /// Gives the lease back, if it is held, so that another replica need not wait for it to run out.
    pub async fn release(&mut self) {
        self.fence.close();
        if !std::mem::take(&mut self.leads) {
            return;
        }
        let key = self.key();
        let found: Option<Object> = self.api.get(&LEASES, &key).await.ok().flatten();
        let ours = found.filter(|lease| {
            lease.spec.holder_identity.as_deref() == Some(self.settings.identity.as_str())
        });
        let Some(found) = ours else {
            return;
        };
        let spec = json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": self.time(),
        });
        let patch = patch_of(&found, &spec);
        let patched: Result<Object, _> = self.api.patch(&LEASES, &key, Part::Object, &patch).await;
        if let Err(error) = patched {
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
        self.leads = true;
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

    fn time(&self) -> String {
        micro_time(&self.clock.now().to_string())
    }

    /// The first lease of this name.
    fn new_lease(&self) -> Value {
        let now = self.time();
        json!({
            "apiVersion": LEASES.api_version(),
            "kind": LEASES.kind,
            "metadata": {"name": self.settings.name, "namespace": self.settings.namespace},
            "spec": {
                "holderIdentity": self.settings.identity,
                "leaseDurationSeconds": self.settings.duration.as_secs(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        })
    }

    /// What changes in a lease that is renewed or taken.
    fn claim_on(&self, found: &Object) -> Value {
        let now = self.time();
        let mut spec = json!({
            "holderIdentity": self.settings.identity,
            "leaseDurationSeconds": self.settings.duration.as_secs(),
            "renewTime": now,
        });
        let was_ours = found.spec.holder_identity.as_deref() == Some(&*self.settings.identity);
        if let (false, Some(members)) = (was_ours, spec.as_object_mut()) {
            let transitions = found.spec.lease_transitions.unwrap_or(0);
            members.insert("acquireTime".to_owned(), json!(now));
            members.insert("leaseTransitions".to_owned(), json!(transitions + 1));
        }
        spec
    }
}

/// A patch that holds only for the lease as it was found, and leaves alone what is not ours: labels,
/// annotations, and members of the spec that are newer than this program.
fn patch_of(found: &Object, spec: &Value) -> Value {
    json!({
        "metadata": {"resourceVersion": found.metadata.resource_version},
        "spec": spec,
    })
}
