//! Answers for a while, under a hash of the question.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Failure;

/// The least time a failure is remembered, so that an API server in trouble is left alone.
const MIN_FAILURE: Duration = Duration::from_secs(1);

/// A question, without the secret in it.
type Question = [u8; 32];

/// Each part is hashed with its length, so that no two questions look the same.
pub(super) fn hash(parts: &[&str]) -> Question {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// An answer.
pub(super) trait Verdict: Clone {
    /// Whether it speaks for the caller.
    fn is_good(&self) -> bool;
}

/// Answers for a while, and one caller at a time per question.
pub(super) struct Cache<T> {
    ttl: Duration,
    size: usize,
    slots: Mutex<IndexMap<Question, Slot<T>>>,
}

struct Slot<T> {
    answer: Arc<OnceCell<Result<T, Failure>>>,
    until: Instant,
    /// Whether the answer before was a good one.
    was_good: bool,
}

impl<T: Verdict> Slot<T> {
    /// Whether the last word about the caller was a good one.
    fn is_good(&self) -> bool {
        match self.answer.get() {
            Some(Ok(verdict)) => verdict.is_good(),
            Some(Err(_)) | None => self.was_good,
        }
    }

    /// Until when it is worth its place.
    fn counts_until(&self, ttl: Duration) -> Instant {
        // Who was known is likely to come again, and asks before strangers then.
        if self.is_good() {
            self.until + ttl
        } else {
            self.until
        }
    }
}

impl<T: Verdict> Cache<T> {
    pub(super) fn new(ttl: Duration, size: usize) -> Self {
        Self {
            ttl,
            size,
            slots: Mutex::default(),
        }
    }

    /// `ask` is told whether the answer before, which is kept no longer, was a good one.
    pub(super) async fn get<F>(
        &self,
        question: Question,
        ask: impl FnOnce(bool) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (answer, before) = self.slot(question);
        // If the one who asks goes away, the next in line asks again.
        let asked = || async {
            let outcome = ask(before).await;
            match outcome {
                Ok(_) => {}
                Err(Failure::Failed) => self.shorten(&question, &answer),
                Err(Failure::Busy) => self.forget(&question, &answer),
            }
            outcome
        };
        answer.get_or_init(asked).await.clone()
    }

    fn slot(&self, question: Question) -> (Arc<OnceCell<Result<T, Failure>>>, bool) {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&question)
            && now < slot.until
        {
            return (slot.answer.clone(), slot.was_good);
        }
        let before = slots.shift_remove(&question);
        let was_good = before.is_some_and(|slot| slot.is_good());
        if slots.len() >= self.size {
            slots.retain(|_, slot| now < slot.counts_until(self.ttl));
        }
        if slots.len() >= self.size {
            // Made-up tokens do not push out the answers that matter.
            let least = slots.values().position(|slot| !slot.is_good());
            slots.shift_remove_index(least.unwrap_or(0));
        }
        let answer = Arc::new(OnceCell::new());
        slots.insert(
            question,
            Slot {
                answer: answer.clone(),
                until: now + self.ttl,
                was_good,
            },
        );
        (answer, was_good)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// A failure is remembered for a shorter time than an answer.
    fn shorten(&self, question: &Question, answer: &Arc<OnceCell<Result<T, Failure>>>) {
        let until = Instant::now() + (self.ttl / 3).max(MIN_FAILURE);
        if let Some(slot) = self.slots.lock().get_mut(question)
            && Arc::ptr_eq(&slot.answer, answer)
        {
            slot.until = until;
        }
    }

    /// Nobody was asked, so the next in line is asked about anew.
    fn forget(&self, question: &Question, answer: &Arc<OnceCell<Result<T, Failure>>>) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(question)
            && Arc::ptr_eq(&slot.answer, answer)
        {
            if slot.was_good {
                slot.until = Instant::now();
            } else {
                slots.shift_remove(question);
            }
        }
    }
}
