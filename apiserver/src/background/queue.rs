//! A queue of work in which each item waits at most once.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Items are pushed by observers (under the store's lock) and taken by one worker.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<(VecDeque<T>, HashSet<T>)>,
    wake: Notify,
}

impl<T: Clone + Eq + Hash> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            items: Mutex::new((VecDeque::new(), HashSet::new())),
            wake: Notify::new(),
        }
    }

    /// Adds an item unless it waits already.
    pub(super) fn push(&self, item: T) {
        let mut items = self.items.lock();
        let (order, waiting) = &mut *items;
        if waiting.insert(item.clone()) {
            order.push_back(item);
            drop(items);
            self.wake.notify_one();
        }
    }

    /// The oldest item, as soon as there is one.
    pub(super) async fn next(&self) -> T {
        loop {
            let taken = {
                let mut items = self.items.lock();
                let (order, waiting) = &mut *items;
                let item = order.pop_front();
                if let Some(item) = &item {
                    waiting.remove(item);
                }
                item
            };
            match taken {
                Some(item) => return item,
                None => self.wake.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[tokio::test]
    async fn items_wait_once_and_in_order() {
        let queue = Queue::new();
        for item in [1, 2, 1, 3, 2] {
            queue.push(item);
        }
        assert_eq!((queue.next().await, queue.next().await), (1, 2));
        queue.push(1);
        assert_eq!((queue.next().await, queue.next().await), (3, 1));
    }
}
