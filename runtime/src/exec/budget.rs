//! One amount of memory that many commands share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left of the amount. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    left: Arc<AtomicUsize>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(bytes)),
        }
    }

    /// A share that is empty at first.
    pub(super) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            taken: 0,
        }
    }
}

/// What one command took; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    taken: usize,
}

impl Share {
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Takes `bytes` more; `false`, and nothing, when that much is not left.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let left = &self.budget.left;
        let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        });
        if took.is_ok() {
            self.taken += bytes;
        }
        took.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_end_where_the_budget_does_and_are_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.take(6) && !other.take(5) && other.take(4) && !one.take(1));
        drop(one);
        assert!(other.take(6) && !other.take(1));
    }
}
