//! What the table holds of one sandbox, as the data plane sees it: immutable once published, small,
//! and shared by reference count.
//!
//! A change in the cluster publishes a new row; requests under way keep the one they found. So a
//! verdict about an address ("did not answer") can only ever hit the row it was reached through,
//! never a newer one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The UID of an object. Kubernetes writes UUIDs, which fit sixteen bytes; anything else is kept
/// as text.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Uid {
    /// A UUID.
    Uuid(u128),
    /// Any other text.
    Text(Arc<str>),
}

impl Uid {
    /// Any non-empty text is a UID.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Some(match uuid::Uuid::try_parse(text) {
            // Only the canonical form: two spellings must not become one UID.
            Ok(uuid) if text.len() == 36 => Self::Uuid(uuid.as_u128()),
            _ => Self::Text(text.into()),
        })
    }
}

/// Whether requests can be sent to a sandbox, and if not, why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Its pod is ready.
    Ready,
    /// It should run, and its pod is not ready.
    Starting,
    /// It is suspended.
    Suspended,
    /// It is being deleted, has expired or has finished.
    Gone,
}

/// The addresses of a pod: one, or one per IP family, in the pod's order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Addresses([Option<IpAddr>; 2]);

impl Addresses {
    /// The first two addresses.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut addresses = addresses.into_iter().map(|ip| ip.to_canonical()).fuse();
        Self([addresses.next(), addresses.next()])
    }

    /// The pod's primary address.
    pub fn primary(&self) -> Option<IpAddr> {
        self.0.iter().flatten().next().copied()
    }

    /// Whether the pod has `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&Some(address))
    }

    /// Whether the pod has no address.
    pub fn is_empty(&self) -> bool {
        self.primary().is_none()
    }
}

/// One sandbox.
#[derive(Debug)]
pub struct Row {
    /// UID of the Sandbox.
    pub uid: Uid,
    /// Namespace of the Sandbox.
    pub namespace: Arc<str>,
    /// Name of the Sandbox.
    pub name: Arc<str>,
    /// Whether requests can be sent.
    pub state: State,
    /// Where to.
    pub addresses: Addresses,
    /// Differs between any two pods this router has ever seen, so that a connection made to one is
    /// never used for another that got the same address.
    pub incarnation: u64,
    /// What the sandbox is busy with; survives changes of the row.
    pub load: Arc<Load>,
    /// Until when the address counts as unreachable, in the resolver's milliseconds; 0 for never.
    unreachable_until: AtomicU64,
}

impl Row {
    pub(super) fn new(
        uid: Uid,
        (namespace, name): (Arc<str>, Arc<str>),
        state: State,
        (addresses, incarnation): (Addresses, u64),
        load: Arc<Load>,
    ) -> Self {
        Self {
            uid,
            namespace,
            name,
            state,
            addresses,
            incarnation,
            load,
            unreachable_until: AtomicU64::new(0),
        }
    }

    /// Whether the address did not answer and is still left alone. `now` is only asked for when
    /// there is anything to compare.
    pub(crate) fn is_unreachable(&self, now: impl FnOnce() -> u64) -> bool {
        match self.unreachable_until.load(Ordering::Relaxed) {
            0 => false,
            until => now() < until,
        }
    }

    /// Leaves the address alone until `until`. True for the first caller since it was last
    /// reachable.
    pub(crate) fn set_unreachable(&self, now: u64, until: u64) -> bool {
        let before = self.unreachable_until.swap(until, Ordering::Relaxed);
        before <= now
    }
}

/// What is in flight to one sandbox, for its limits.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests in flight.
    pub requests: AtomicU32,
    /// Upgraded connections.
    pub upgrades: AtomicU32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_compact_and_never_conflated() {
        let canonical = "0b5f7a52-93f5-4f0a-9c2b-6f3c0d2f1a11";
        assert!(matches!(Uid::parse(canonical), Some(Uid::Uuid(_))));
        for other in [
            "{0b5f7a52-93f5-4f0a-9c2b-6f3c0d2f1a11}",
            "0b5f7a5293f54f0a9c2b6f3c0d2f1a11",
            "made-up",
        ] {
            assert!(matches!(Uid::parse(other), Some(Uid::Text(_))), "{other}");
            assert_ne!(Uid::parse(other), Uid::parse(canonical));
        }
        assert_eq!(Uid::parse(""), None);
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 152, "{}", size_of::<Row>());
    }
}
