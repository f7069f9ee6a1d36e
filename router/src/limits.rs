//! How much at once: requests and upgraded connections, in all, per sandbox and per client.
//!
//! A permit is taken before anything is dialled and given back when the exchange is over, however
//! it ends. Refusing is cheap and answers 503 with `Retry-After`, so that load is shed instead of
//! queued.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::config;
use crate::error::Error;
use crate::resolve::Route;
use crate::resolve::table::Load;
use crate::target::Target;

/// What one router allows, and what it counts.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    limits: config::Limits,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    load: Load,
    clients: Mutex<HashMap<IpAddr, u32>>,
    /// Sandboxes that no table holds, by `namespace/name`.
    unlisted: Mutex<HashMap<Box<str>, Weak<Load>>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Use {
    /// An ordinary request.
    Request,
    /// A connection that switches protocols.
    Upgrade,
}

/// One unit of something limited, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Held);

#[derive(Debug)]
enum Held {
    Total(Arc<Counts>, Use),
    Sandbox(Arc<Load>, Use),
    Client(Arc<Counts>, IpAddr),
}

impl Limits {
    pub(crate) fn new(limits: config::Limits) -> Self {
        Self {
            limits,
            counts: Arc::default(),
        }
    }

    /// Other limits on the same counters.
    pub(crate) fn adjusted(&self, limits: config::Limits) -> Self {
        Self {
            limits,
            counts: self.counts.clone(),
        }
    }

    /// A unit of the whole router's capacity.
    pub(crate) fn enter(&self, r#use: Use) -> Result<Permit, Error> {
        let limits = &self.limits;
        let (limit, full) = match r#use {
            Use::Request => (limits.requests, "Too many requests in flight; try again."),
            Use::Upgrade => (limits.upgrades, "Too many upgraded connections; try again."),
        };
        take(self.counts.load.of(r#use), limit).ok_or(Error::Overloaded(full))?;
        Ok(Permit(Held::Total(self.counts.clone(), r#use)))
    }

    /// A unit of one sandbox's share.
    pub(crate) fn enter_sandbox(
        &self,
        r#use: Use,
        target: &Target,
        route: &Route,
    ) -> Result<Option<Permit>, Error> {
        let limits = &self.limits;
        let (limit, full) = match r#use {
            Use::Request => (
                limits.requests_per_sandbox,
                "Too many requests in flight to this sandbox; try again.",
            ),
            Use::Upgrade => (
                limits.upgrades_per_sandbox,
                "Too many upgraded connections to this sandbox; try again.",
            ),
        };
        if limit.is_none() {
            return Ok(None);
        }
        let load = match &route.row {
            Some(row) => row.load.clone(),
            None => self.unlisted(target),
        };
        take(load.of(r#use), limit).ok_or(Error::Overloaded(full))?;
        Ok(Some(Permit(Held::Sandbox(load, r#use))))
    }

    /// A unit of one client's share of upgraded connections.
    pub(crate) fn enter_client(&self, client: IpAddr) -> Result<Option<Permit>, Error> {
        let Some(limit) = self.limits.upgrades_per_client else {
            return Ok(None);
        };
        let mut clients = self.counts.clients.lock();
        let count = clients.entry(client).or_insert(0);
        if *count >= limit {
            return Err(Error::Overloaded(
                "Too many upgraded connections of this client; try again.",
            ));
        }
        *count += 1;
        Ok(Some(Permit(Held::Client(self.counts.clone(), client))))
    }

    fn unlisted(&self, target: &Target) -> Arc<Load> {
        let key = format!("{}/{}", target.namespace, target.id);
        let mut unlisted = self.counts.unlisted.lock();
        if let Some(load) = unlisted.get(key.as_str()).and_then(Weak::upgrade) {
            return load;
        }
        unlisted.retain(|_, load| load.strong_count() > 0);
        let load = Arc::<Load>::default();
        unlisted.insert(key.into(), Arc::downgrade(&load));
        load
    }
}

impl Load {
    fn of(&self, r#use: Use) -> &AtomicU32 {
        match r#use {
            Use::Request => &self.requests,
            Use::Upgrade => &self.upgrades,
        }
    }
}

fn take(count: &AtomicU32, limit: Option<u32>) -> Option<()> {
    let before = count.fetch_add(1, Ordering::Relaxed);
    if limit.is_some_and(|limit| before >= limit) {
        count.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    Some(())
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &self.0 {
            Held::Total(counts, r#use) => {
                counts.load.of(*r#use).fetch_sub(1, Ordering::Relaxed);
            }
            Held::Sandbox(load, r#use) => {
                load.of(*r#use).fetch_sub(1, Ordering::Relaxed);
            }
            Held::Client(counts, client) => {
                let mut clients = counts.clients.lock();
                if let Some(count) = clients.get_mut(client) {
                    *count -= 1;
                    if *count == 0 {
                        clients.remove(client);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_given_back() {
        let limits = Limits::new(config::Limits {
            requests: Some(1),
            upgrades_per_client: Some(1),
            ..config::Limits::default()
        });
        let first = limits.enter(Use::Request).unwrap();
        assert!(matches!(
            limits.enter(Use::Request),
            Err(Error::Overloaded(_))
        ));
        drop(first);
        assert!(limits.enter(Use::Request).is_ok());

        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let held = limits.enter_client(client).unwrap();
        assert!(limits.enter_client(client).is_err());
        assert!(limits.enter_client("192.0.2.2".parse().unwrap()).is_ok());
        drop(held);
        assert!(limits.enter_client(client).is_ok());
        assert!(limits.counts.clients.lock().is_empty());
    }
}
