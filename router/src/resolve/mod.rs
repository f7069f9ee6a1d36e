//! From a [`Target`] to the address of the live pod.
//!
//! [`Resolver`] is what requests use: it applies the policy for the client's address hint, waits a
//! bounded time for a sandbox the watch has not delivered yet, falls back to DNS where the operator
//! asked for that, and leaves addresses alone that did not answer. What is known comes from a
//! [`Resolve`]: the watch-fed [`table::Table`], or a fixed one in tests.
//!
//! Nothing here dials. An address leaves this module only if the table agrees that it belongs to
//! the sandbox named, unless the operator chose to trust callers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::config::{PodIpPolicy, Resolution};
use crate::error::Error;
use crate::target::{AddressClass, NameForm, Target, TargetError};

pub mod fixed;
pub(crate) mod kube;
mod object;
pub mod table;

use self::table::{Row, Subscription};

/// What is known of sandboxes.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// What is known of the target now. Called for every request: takes no lock and does not wait.
    ///
    /// # Errors
    /// Why there is no route.
    fn lookup(&self, target: &Target) -> Result<Found, Absence>;

    /// Wakes when [`Self::lookup`] may answer differently; `None` when it never will.
    fn subscribe(&self, target: &Target) -> Option<Subscription>;
}

/// A sandbox that can be reached.
#[derive(Clone, Debug)]
pub struct Found {
    /// The sandbox.
    pub row: Arc<Row>,
    /// What it was found by.
    pub source: Source,
}

/// Why there is no route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Absence {
    /// No such sandbox.
    Unknown,
    /// No such sandbox, and the name is none a DNS name could be made of.
    UnknownSubdomain,
    /// The namespace is not watched; the one that is.
    OutOfScope(Arc<str>),
    /// The first list has not arrived.
    Loading,
    /// Not ready.
    Starting,
    /// Suspended.
    Suspended,
    /// Deleted, expired or finished.
    Gone,
    /// The address did not answer a moment ago.
    Unreachable,
    /// The client's address is of a class that its sandbox does not have.
    ForbiddenAddress,
}

/// What a route was found by; the tag in logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The client's own address, trusted.
    PodIp,
    /// The UID.
    Uid,
    /// The name.
    Name,
    /// A DNS name made from namespace and name.
    Dns,
}

impl Source {
    /// The tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodIp => "pod-ip",
            Self::Uid => "cache",
            Self::Name => "cache-name",
            Self::Dns => "dns",
        }
    }
}

/// Where to dial.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// An address from the table, or one that was trusted.
    Ip(SocketAddr),
    /// A name to resolve at every dial, and a port.
    Name(Arc<str>, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The way to a sandbox.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where to dial.
    pub address: Address,
    /// What it was found by.
    pub source: Source,
    /// The row it came from, if it came from a table.
    pub row: Option<Arc<Row>>,
}

impl Route {
    /// Tells pods apart that had the same address one after the other.
    pub fn incarnation(&self) -> u64 {
        self.row.as_ref().map_or(0, |row| row.incarnation)
    }
}

/// What became of a client's address hint, for a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hint {
    /// The table agrees.
    Agreed,
    /// The table knows another address, which is used.
    Stale,
    /// There is no table to ask.
    Unverified,
}

/// Finds the way to a sandbox.
#[derive(Debug)]
pub struct Resolver {
    source: Option<Arc<dyn Resolve>>,
    policy: Resolution,
    waiting: AtomicUsize,
    epoch: Instant,
}

impl Resolver {
    /// A resolver over `source`, or over DNS alone.
    pub fn new(source: Option<Arc<dyn Resolve>>, policy: Resolution) -> Self {
        Self {
            source,
            policy,
            waiting: AtomicUsize::new(0),
            epoch: Instant::now(),
        }
    }

    /// How many requests wait for the watch.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The way to the target, as far as it is known now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lookup(&self, target: &Target) -> Result<(Route, Option<Hint>), Absence> {
        if let (PodIpPolicy::Trust { loopback }, Some(hint)) = (self.policy.pod_ip, target.pod_ip) {
            if hint.class == AddressClass::Loopback && !loopback {
                return Err(Absence::ForbiddenAddress);
            }
            let route = Route {
                address: Address::Ip(SocketAddr::new(hint.address, target.port)),
                source: Source::PodIp,
                row: None,
            };
            return Ok((route, None));
        }
        let Some(source) = &self.source else {
            return self.by_dns(target);
        };
        match source.lookup(target) {
            Ok(found) if found.row.is_unreachable(|| self.now()) => Err(Absence::Unreachable),
            Ok(Found { row, source }) => {
                let (ip, hint) = choose(&row, target)?;
                let route = Route {
                    address: Address::Ip(SocketAddr::new(ip, target.port)),
                    source,
                    row: Some(row),
                };
                Ok((route, hint))
            }
            Err(Absence::Unknown | Absence::OutOfScope(_) | Absence::Loading)
                if self.policy.dns.is_some() =>
            {
                self.by_dns(target)
            }
            Err(absence) => Err(absence),
        }
    }

    /// The way to the target, waiting for the watch when there is none yet, until `deadline` at
    /// the latest.
    ///
    /// # Errors
    /// The answer for the client.
    pub async fn resolve(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> Result<(Route, Option<Hint>), Error> {
        match self.lookup(target) {
            Ok(found) => Ok(found),
            Err(absence) if !absence.may_pass() => Err(absence.into_error(target)),
            // Boxed, because hardly any request waits.
            Err(absence) => Box::pin(self.wait(target, absence, deadline)).await,
        }
    }

    async fn wait(
        &self,
        target: &Target,
        absence: Absence,
        deadline: Instant,
    ) -> Result<(Route, Option<Hint>), Error> {
        let Some(place) = Place::take(&self.waiting, self.policy.max_waiting) else {
            return Err(Error::Overloaded(
                "Too many requests are waiting for sandboxes that are not ready; try again.",
            ));
        };
        let Some(subscription) = self
            .source
            .as_ref()
            .and_then(|source| source.subscribe(target))
        else {
            return Err(absence.into_error(target));
        };
        let deadline = deadline.min(Instant::now() + self.policy.wait);
        let deadline = tokio::time::sleep_until(deadline);
        tokio::pin!(deadline);
        let outcome = loop {
            let absence = match self.lookup(target) {
                Ok(found) => break Ok(found),
                Err(absence) if !absence.may_pass() => break Err(absence.into_error(target)),
                Err(absence) => absence,
            };
            tokio::select! {
                () = subscription.changed() => {}
                () = &mut deadline => break Err(absence.into_error(target)),
            }
        };
        drop(place);
        outcome
    }

    /// Leaves the address of a route alone for a while. True when that is news.
    pub fn set_unreachable(&self, route: &Route) -> bool {
        let Some(row) = &route.row else {
            return false;
        };
        let now = self.now();
        let quarantine = u64::try_from(self.policy.quarantine.as_millis()).unwrap_or(u64::MAX);
        row.set_unreachable(now, now.saturating_add(quarantine))
    }

    fn by_dns(&self, target: &Target) -> Result<(Route, Option<Hint>), Absence> {
        let Some(domain) = &self.policy.dns else {
            return Err(Absence::Unknown);
        };
        if target.id.form() == NameForm::Subdomain {
            return Err(Absence::UnknownSubdomain);
        }
        let host = format!("{}.{}.svc.{domain}", target.id, target.namespace);
        let route = Route {
            address: Address::Name(host.into(), target.port),
            source: Source::Dns,
            row: None,
        };
        Ok((route, target.pod_ip.map(|_| Hint::Unverified)))
    }

    /// Milliseconds since the resolver was made, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }
}

/// The address to dial: the client's if the pod has it, else the pod's own.
fn choose(row: &Row, target: &Target) -> Result<(IpAddr, Option<Hint>), Absence> {
    let primary = row.addresses.primary().ok_or(Absence::Starting)?;
    match target.pod_ip {
        None => Ok((primary, None)),
        Some(hint) if row.addresses.contains(hint.address) => {
            Ok((hint.address, Some(Hint::Agreed)))
        }
        // A loopback address is believable only where pods have loopback addresses.
        Some(hint)
            if hint.class == AddressClass::Loopback
                && AddressClass::of(primary) != AddressClass::Loopback =>
        {
            Err(Absence::ForbiddenAddress)
        }
        Some(_) => Ok((primary, Some(Hint::Stale))),
    }
}

impl Absence {
    /// Whether the watch may have better news soon.
    fn may_pass(&self) -> bool {
        !matches!(self, Self::ForbiddenAddress | Self::OutOfScope(_))
    }

    fn into_error(self, target: &Target) -> Error {
        let id = || target.id.as_str().to_owned();
        let namespace = || target.namespace.as_str().to_owned();
        match self {
            Self::Unknown => Error::Unknown {
                namespace: namespace(),
                id: id(),
            },
            Self::UnknownSubdomain => TargetError::Id.into(),
            Self::OutOfScope(served) => Error::OutOfScope {
                namespace: namespace(),
                served: served.to_string(),
            },
            Self::Loading => Error::Loading,
            Self::Starting => Error::NotReady { id: id() },
            Self::Suspended => Error::Suspended { id: id() },
            Self::Gone => Error::Gone { id: id() },
            Self::Unreachable => Error::Unreachable { id: id() },
            Self::ForbiddenAddress => TargetError::PodIp.into(),
        }
    }
}

/// One of a bounded number of places, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize, places: usize) -> Option<Self> {
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < places).then_some(taken + 1)
            })
            .ok()
            .map(|_| Self(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
