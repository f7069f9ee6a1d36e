//! HTTP/2 connections to sandboxes, each shared by all requests to one port of one pod.
//!
//! Requests that come at once dial once: the others wait for their turn, and find a connection. A
//! connection that no request has used for [`IDLE`] is let go of; hyper closes it when its last stream has
//! ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pool::Key;
use crate::forward::body::RequestBody;
use crate::metrics::RouterMetrics;

/// How long a connection is kept that nobody uses.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// The shared connections of one listener.
#[derive(Debug)]
pub(super) struct Shared {
    /// Connections at most.
    limit: usize,
    by_key: Mutex<HashMap<Key, Entry, RandomState>>,
    dialling: Mutex<HashMap<Key, Weak<Turn>, RandomState>>,
    /// How many there have been.
    made: AtomicU64,
    metrics: RouterMetrics,
}

/// Held by whoever dials.
type Turn = tokio::sync::Mutex<()>;

/// A connection, or a clone of it: the same number means the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) requests: SendRequest<RequestBody>,
    number: u64,
}

#[derive(Debug)]
struct Entry {
    sender: Sender,
    used: Instant,
}

impl Shared {
    pub(super) fn new(limit: usize, metrics: RouterMetrics) -> Self {
        Self {
            limit,
            by_key: Mutex::default(),
            dialling: Mutex::default(),
            made: AtomicU64::new(0),
            metrics,
        }
    }

    /// A connection that is open.
    pub(super) fn get(&self, key: &Key) -> Option<Sender> {
        let mut by_key = self.by_key.lock();
        let entry = by_key.get_mut(key)?;
        if entry.sender.requests.is_closed() {
            return None;
        }
        entry.used = Instant::now();
        Some(entry.sender.clone())
    }

    /// The right to dial, and to look first whether somebody has.
    pub(super) fn turn(&self, key: &Key) -> Arc<Turn> {
        let mut dialling = self.dialling.lock();
        if let Some(turn) = dialling.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        dialling.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    /// Keeps a connection for others. The one that was used least recently goes when there are too
    /// many.
    pub(super) fn insert(&self, key: Key, requests: SendRequest<RequestBody>) -> Sender {
        let sender = Sender {
            requests,
            number: self.made.fetch_add(1, Ordering::Relaxed),
        };
        let mut by_key = self.by_key.lock();
        let before = by_key.len();
        let used = Instant::now();
        let entry = Entry {
            sender: sender.clone(),
            used,
        };
        by_key.insert(key, entry);
        if by_key.len() > self.limit {
            let oldest = by_key.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                by_key.remove(&key);
            }
        }
        self.count(before, by_key.len());
        sender
    }

    /// Forgets a connection that failed, unless it has been replaced.
    pub(super) fn remove(&self, key: &Key, failed: &Sender) {
        let mut by_key = self.by_key.lock();
        let before = by_key.len();
        if by_key
            .get(key)
            .is_some_and(|entry| entry.sender.number == failed.number)
        {
            by_key.remove(key);
        }
        self.count(before, by_key.len());
    }

    /// Lets go of connections that ended or that nobody uses.
    pub(super) fn sweep(&self) {
        let mut by_key = self.by_key.lock();
        let before = by_key.len();
        by_key.retain(|_, entry| !entry.sender.requests.is_closed() && entry.used.elapsed() < IDLE);
        self.count(before, by_key.len());
        drop(by_key);
        let mut dialling = self.dialling.lock();
        dialling.retain(|_, turn| turn.strong_count() > 0);
    }

    /// Adds the difference: the listeners of a router count together.
    fn count(&self, before: usize, after: usize) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let gauge = self.metrics.shared();
        gauge.add(number(after) - number(before));
    }
}
