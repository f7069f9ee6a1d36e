//! A command's output as a bounded list of numbered entries.
//!
//! The driver appends, any number of followers read, each from a number of its choice. When the list
//! is full, the oldest entries make room, unless a *holding* follower still needs them: then the
//! driver waits, the pipe fills, and the command itself is held back. Memory never exceeds the limit.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Consecutive bytes of one stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Position in the journal, from 0, without gaps, in order of arrival over both streams.
    pub number: u64,
    /// Where the bytes were written.
    pub stream: Stream,
    /// Never empty.
    pub bytes: Bytes,
}

/// What a follower reads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    /// The next entry.
    Entry(Entry),
    /// Entries that made room before they were read; only for followers that do not hold.
    Missed {
        /// How many.
        entries: u64,
    },
}

/// The journal of one command. Shared by its driver and its followers.
#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
    grew: Notify,
    shrank: Notify,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    /// Number of the next entry to be appended.
    next: u64,
    bytes: usize,
    limit: usize,
    ended: bool,
    /// What each holding follower reads next, by follower.
    held: Vec<(u64, u64)>,
    followers: u64,
}

/// What an entry costs beyond its bytes, so that a million one-byte writes are bounded as well.
const ENTRY_COST: usize = 64;

impl Journal {
    /// An empty journal that keeps at most `limit` bytes (but always one entry).
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                next: 0,
                bytes: 0,
                limit,
                ended: false,
                held: Vec::new(),
                followers: 0,
            }),
            grew: Notify::new(),
            shrank: Notify::new(),
        }
    }

    /// Appends one entry, waiting for holding followers if there is no room. Bytes that arrive after
    /// the end belong to nobody and are discarded.
    pub(super) async fn append(&self, stream: Stream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        loop {
            let room = self.shrank.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.ended {
                    return;
                }
                if state.make_room(bytes.len()) {
                    let number = state.next;
                    state.next += 1;
                    state.bytes += bytes.len() + ENTRY_COST;
                    state.entries.push_back(Entry {
                        number,
                        stream,
                        bytes,
                    });
                    break;
                }
            }
            room.await;
        }
        self.grew.notify_waiters();
    }

    /// How many bytes of output are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let state = self.state.lock();
        state.bytes - state.entries.len() * ENTRY_COST
    }

    /// Says that nothing will follow. Followers read what is left and then see the end.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.grew.notify_waiters();
        self.shrank.notify_waiters();
    }

    /// Whether nothing will follow.
    pub fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// The number the next entry will get.
    pub fn next_number(&self) -> u64 {
        self.state.lock().next
    }

    /// Reads from entry `from` on and skips what has made room.
    pub fn follow(self: &Arc<Self>, from: u64) -> Follow {
        Follow {
            journal: self.clone(),
            next: from,
            hold: None,
        }
    }

    /// The number of the oldest entry that is still there, or of the next one if none is.
    pub fn oldest_number(&self) -> u64 {
        self.state.lock().oldest()
    }

    /// Reads from the oldest entry on and misses nothing: the command waits when this follower does.
    pub fn follow_holding(self: &Arc<Self>) -> Follow {
        self.follow_holding_from(0)
    }

    /// Reads from entry `from` on, where what has made room already is missed; from then on nothing is:
    /// the command waits when this follower does.
    pub fn follow_holding_from(self: &Arc<Self>, from: u64) -> Follow {
        let mut state = self.state.lock();
        // Nobody waits for entries that are not there yet to make room.
        let next = from.min(state.next);
        let next = if from == 0 { state.oldest() } else { next };
        let hold = state.followers;
        state.followers += 1;
        state.held.push((hold, next));
        drop(state);
        Follow {
            journal: self.clone(),
            next,
            hold: Some(hold),
        }
    }
}

impl State {
    fn oldest(&self) -> u64 {
        self.entries.front().map_or(self.next, |entry| entry.number)
    }

    /// Drops the oldest entries until `bytes` more fit; `false` when a follower holds them.
    fn make_room(&mut self, bytes: usize) -> bool {
        let needed = self.held.iter().map(|(_, next)| *next).min();
        while self.bytes + bytes + ENTRY_COST > self.limit {
            let Some(oldest) = self.entries.front() else {
                return true;
            };
            if needed.is_some_and(|needed| needed <= oldest.number) {
                return false;
            }
            self.bytes -= oldest.bytes.len() + ENTRY_COST;
            self.entries.pop_front();
        }
        true
    }

    /// What a follower at `next` reads: an item and where it continues.
    fn read(&self, next: u64) -> Option<(Item, u64)> {
        let oldest = self.oldest();
        if next < oldest {
            return Some((
                Item::Missed {
                    entries: oldest - next,
                },
                oldest,
            ));
        }
        let index = usize::try_from(next - oldest).ok()?;
        let entry = self.entries.get(index)?;
        Some((Item::Entry(entry.clone()), next + 1))
    }
}

/// One reader's place in a journal.
#[derive(Debug)]
pub struct Follow {
    journal: Arc<Journal>,
    next: u64,
    hold: Option<u64>,
}

impl Follow {
    /// The next item, as soon as there is one; `None` after the last. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            let journal = self.journal.clone();
            let grew = journal.grew.notified();
            tokio::pin!(grew);
            grew.as_mut().enable();
            // Looked at before the entries: those written before the end are still read.
            let ended = journal.has_ended();
            if let Some(item) = self.ready() {
                return Some(item);
            }
            if ended {
                return None;
            }
            grew.await;
        }
    }

    /// The next item, if it is there.
    pub fn ready(&mut self) -> Option<Item> {
        let mut state = self.journal.state.lock();
        let (item, next) = state.read(self.next)?;
        self.next = next;
        if let Some(hold) = self.hold {
            for (follower, position) in &mut state.held {
                if *follower == hold {
                    *position = next;
                }
            }
            drop(state);
            self.journal.shrank.notify_waiters();
        }
        Some(item)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(hold) = self.hold {
            let mut state = self.journal.state.lock();
            state.held.retain(|(follower, _)| *follower != hold);
            drop(state);
            self.journal.shrank.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
