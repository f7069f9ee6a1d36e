//! Requests that came before the watch delivered their sandbox.
//!
//! A request subscribes, looks again, and sleeps until a row it could match is published. The
//! registry is empty almost always, and the writer then pays one atomic load.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Subscriptions by the hash of what they wait for. A collision only wakes somebody for nothing.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    count: AtomicUsize,
    by_hash: Mutex<HashMap<u64, Vec<Arc<Notify>>>>,
}

/// A place in the registry, given back when dropped.
#[derive(Debug)]
pub struct Subscription {
    notify: Arc<Notify>,
    waiters: Arc<Waiters>,
    name: u64,
    uid: Option<u64>,
}

impl Waiters {
    pub(super) fn subscribe(self: &Arc<Self>, name: u64, uid: Option<u64>) -> Subscription {
        let notify = Arc::new(Notify::new());
        let mut by_hash = self.by_hash.lock();
        for key in std::iter::once(name).chain(uid) {
            by_hash.entry(key).or_default().push(notify.clone());
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        Subscription {
            notify,
            waiters: self.clone(),
            name,
            uid,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    pub(super) fn wake_key(&self, key: u64) {
        if let Some(waiting) = self.by_hash.lock().get(&key) {
            for notify in waiting {
                notify.notify_one();
            }
        }
    }

    pub(super) fn wake_all(&self) {
        for notify in self.by_hash.lock().values().flatten() {
            notify.notify_one();
        }
    }
}

impl Subscription {
    /// Completes when the sandbox may have changed since the last call, or since the subscription.
    pub async fn changed(&self) {
        // `notify_one` leaves a permit when nobody waits yet, so a change between a lookup and this
        // call is not missed.
        self.notify.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut by_hash = self.waiters.by_hash.lock();
        for key in std::iter::once(self.name).chain(self.uid) {
            if let Some(waiting) = by_hash.get_mut(&key) {
                waiting.retain(|other| !Arc::ptr_eq(other, &self.notify));
                if waiting.is_empty() {
                    by_hash.remove(&key);
                }
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}
