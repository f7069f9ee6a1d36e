//! What is remembered of claims between passes, and no longer than it matters: when one was first
//! seen, since when its passes have been failing, and what is still to be noted on it. In memory only;
//! what a restart loses here is a measurement, never a binding. It makes no calls.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ident::{Key, Text, Uid};
use crate::objects::ClaimRow;

/// The memory of all claims.
#[derive(Debug, Default)]
pub struct Memory {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

/// What is remembered of one claim.
#[derive(Debug)]
struct Entry {
    uid: Uid,
    /// When it was first seen; taken when it becomes Ready for the first time.
    first_seen: Option<Timestamp>,
    /// Since when every pass has failed.
    failing: Option<Instant>,
    note: Option<Note>,
}

impl Entry {
    fn new(uid: Uid) -> Self {
        Self {
            uid,
            first_seen: None,
            failing: None,
            note: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.first_seen.is_none() && self.failing.is_none() && self.note.is_none()
    }
}

/// Annotations that wait for a quiet moment to be written on a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// When the claim was Ready for the first time; `None` when nobody measured it.
    pub first_ready: Option<Timestamp>,
    /// When it was first seen.
    pub first_seen: Option<Timestamp>,
    /// The warm sandbox it was given.
    pub sandbox: Option<Text>,
    /// Since when the note waits.
    pub since: Instant,
}

impl Memory {
    /// Remembers when a claim was first seen.
    ///
    /// Only one whose status nobody has written yet is new. Any other was seen before, by us or by a
    /// controller before us, and may have been Ready already; to measure it from here would be wrong.
    pub fn see(&self, claim: &ClaimRow, now: Timestamp) {
        if claim.conditions.is_empty() {
            self.edit(claim, |entry| {
                entry.first_seen.get_or_insert(now);
            });
        }
    }

    /// When the claim was first seen; answers once.
    pub fn take_first_seen(&self, claim: &ClaimRow) -> Option<Timestamp> {
        self.edit(claim, |entry| entry.first_seen.take())
    }

    /// Takes note that a pass failed, and says for how long all of them have.
    pub fn fail(&self, claim: &ClaimRow) -> Duration {
        self.edit(claim, |entry| {
            entry.failing.get_or_insert_with(Instant::now).elapsed()
        })
    }

    /// Takes note that a pass did not fail.
    pub fn recover(&self, claim: &ClaimRow) {
        self.edit(claim, |entry| entry.failing = None);
    }

    /// Keeps a note until it is written. One that already waits was the first and stays.
    pub fn keep(&self, claim: &ClaimRow, note: Note) {
        self.edit(claim, |entry| {
            entry.note.get_or_insert(note);
        });
    }

    /// The note that waits to be written.
    pub fn note(&self, claim: &ClaimRow) -> Option<Note> {
        self.edit(claim, |entry| entry.note.clone())
    }

    /// The note was written, or never will be.
    pub fn drop_note(&self, claim: &ClaimRow) {
        self.edit(claim, |entry| entry.note = None);
    }

    /// The claim is gone.
    pub fn forget(&self, key: &Key) {
        self.entries.lock().remove(key);
    }

    /// How many claims something is remembered of.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.entries.lock().len()
    }

    /// A claim made anew under an old name inherits nothing.
    fn edit<T>(&self, claim: &ClaimRow, edit: impl FnOnce(&mut Entry) -> T) -> T {
        let (key, uid) = (&claim.head.key, claim.head.uid);
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(key).filter(|entry| entry.uid == uid) {
            let result = edit(entry);
            if entry.is_empty() {
                entries.remove(key);
            }
            return result;
        }
        let mut entry = Entry::new(uid);
        let result = edit(&mut entry);
        if entry.is_empty() {
            entries.remove(key);
        } else {
            entries.insert(key.clone(), entry);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{at, condition, row, uid};

    fn claim(n: u64, conditions: serde_json::Value) -> std::sync::Arc<ClaimRow> {
        row(json!({
            "metadata": {"name": "c", "uid": uid(n)},
            "spec": {"warmPoolRef": {"name": "p"}},
            "status": {"conditions": conditions},
        }))
    }

    #[test]
    fn a_claim_is_seen_for_the_first_time_once() {
        let memory = Memory::default();
        let new = claim(1, json!([]));
        memory.see(&new, at("2026-01-01T00:00:01Z"));
        memory.see(&new, at("2026-01-01T00:00:02Z"));
        let first = Some(at("2026-01-01T00:00:01Z"));
        assert_eq!(memory.take_first_seen(&new), first);
        assert_eq!(memory.take_first_seen(&new), None);
        // Whoever published a status saw it before.
        let known = claim(1, json!([condition("Ready", "False", "WarmPoolNotFound")]));
        memory.see(&known, at("2026-01-01T00:00:03Z"));
        assert_eq!(memory.take_first_seen(&known), None);
        assert_eq!(
            memory.count(),
            0,
            "nothing is kept of a claim that was Ready"
        );
    }

    #[test]
    fn a_namesake_starts_afresh_and_the_dead_are_forgotten() {
        let memory = Memory::default();
        let (old, new) = (claim(1, json!([])), claim(2, json!([])));
        memory.see(&old, at("2026-01-01T00:00:01Z"));
        memory.see(&new, at("2026-01-01T00:00:05Z"));
        let second = Some(at("2026-01-01T00:00:05Z"));
        assert_eq!(memory.take_first_seen(&new), second);
        memory.see(&old, at("2026-01-01T00:00:06Z"));
        memory.forget(&old.head.key);
        assert_eq!((memory.count(), memory.take_first_seen(&old)), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_timed_from_the_first_of_a_row() {
        let memory = Memory::default();
        let claim = claim(1, json!([]));
        assert_eq!(memory.fail(&claim), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(memory.fail(&claim), Duration::from_secs(3));
        memory.recover(&claim);
        assert_eq!(memory.count(), 0);
        assert_eq!(memory.fail(&claim), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_note_stays_until_it_is_dropped() {
        let memory = Memory::default();
        let claim = claim(1, json!([]));
        let note = |first_ready| Note {
            first_ready,
            first_seen: None,
            sandbox: None,
            since: Instant::now(),
        };
        let measured = note(Some(at("2026-01-01T00:00:01Z")));
        memory.keep(&claim, measured.clone());
        memory.keep(&claim, note(None));
        assert_eq!(memory.note(&claim), Some(measured));
        memory.drop_note(&claim);
        assert_eq!((memory.note(&claim), memory.count()), (None, 0));
    }
}
