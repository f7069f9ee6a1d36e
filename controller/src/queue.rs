//! A work queue of keys: each key is queued at most once, runs at most once at a time, runs again if
//! it was added while running, waits when asked to, and backs off when it fails. Two priorities: what
//! somebody waits for goes before housekeeping, which still gets every ninth turn. In memory only;
//! after a restart every object is added once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ident::Key;

/// How soon a key should run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Housekeeping.
    Low,
    /// Somebody waits for it.
    High,
}

/// What becomes of a key after it ran.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing more to do; earlier failures are forgotten.
    Done,
    /// Run again after this long; earlier failures are forgotten.
    After(Duration),
    /// Run again, later with every failure in a row.
    Retry,
    /// Run again after this long at the earliest, and count a failure.
    RetryAfter(Duration),
}

/// Delay after the first failure; it doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// The longest delay. Objects blocked by something nobody watches (a foreign pod holding a name)
/// recover within this time.
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// After this many high-priority turns in a row a low-priority key gets one.
const HIGH_TURNS: u32 = 8;

/// The queue. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Signals workers that a key is ready.
    ready: Notify,
    /// Signals the timer that the earliest delay changed.
    delayed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What waits, by the number of its ticket.
    high: BTreeMap<u64, Key>,
    low: BTreeMap<u64, Key>,
    /// The number of the next ticket.
    ticket: u64,
    entries: BTreeMap<Key, Entry>,
    /// What is being worked on, and since when.
    running: BTreeMap<Key, Instant>,
    timers: BTreeSet<(Instant, Key)>,
    high_turns: u32,
    added: u64,
    retries: u64,
}

#[derive(Debug, Default)]
struct Entry {
    queued: Option<Ticket>,
    running: bool,
    /// Added while running.
    again: Option<Priority>,
    /// The priority it ran with last, kept over a delay.
    level: Option<Priority>,
    due: Option<Instant>,
    failures: u32,
}

/// A key's place in the queue.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    priority: Priority,
    number: u64,
    since: Instant,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.queued.is_none() && !self.running && self.due.is_none() && self.failures == 0
    }
}

/// Figures of a queue, for metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Depth {
    /// Keys waiting for a worker.
    pub ready: usize,
    /// Keys waiting for their time.
    pub delayed: usize,
    /// Keys being worked on.
    pub running: usize,
    /// How long they have been worked on, in sum.
    pub unfinished: Duration,
    /// How long the one that was begun first has been worked on.
    pub longest: Duration,
    /// Keys added since the start.
    pub added: u64,
    /// Retries since the start.
    pub retries: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues `key` now. A key that is waiting out a delay stops waiting; one that is running runs
    /// again; one that is queued moves up if `priority` is higher.
    pub fn add(&self, key: Key, priority: Priority) {
        let mut state = self.inner.state.lock();
        state.added += 1;
        if state.enqueue(key, priority) {
            drop(state);
            self.inner.ready.notify_one();
        }
    }

    /// Queues `key` after `delay` unless it is added earlier.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let mut state = self.inner.state.lock();
        state.delay(key, Instant::now() + delay);
        drop(state);
        self.inner.delayed.notify_one();
    }

    /// Takes the next key; the caller owes a [`Self::finish`] for it.
    pub async fn take(&self) -> Key {
        self.take_turn().await.0
    }

    /// Takes the next key and says how long it waited for a worker; the caller owes a
    /// [`Self::finish`] for it.
    pub async fn take_turn(&self) -> (Key, Duration) {
        loop {
            let notified = self.inner.ready.notified();
            {
                let mut state = self.inner.state.lock();
                if let Some(taken) = state.pop() {
                    let more = !state.high.is_empty() || !state.low.is_empty();
                    drop(state);
                    if more {
                        self.inner.ready.notify_one();
                    }
                    return taken;
                }
            }
            notified.await;
        }
    }

    /// Ends the turn of a key taken with [`Self::take`].
    pub fn finish(&self, key: &Key, next: Next) {
        let mut state = self.inner.state.lock();
        let State {
            entries,
            retries,
            running,
            ..
        } = &mut *state;
        running.remove(key);
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        let again = entry.again.take();
        let delay = match next {
            Next::Done => {
                entry.failures = 0;
                None
            }
            Next::After(delay) => {
                entry.failures = 0;
                Some(delay)
            }
            Next::Retry | Next::RetryAfter(_) => {
                *retries += 1;
                entry.failures = entry.failures.saturating_add(1);
                let delay = backoff(entry.failures);
                Some(match next {
                    Next::RetryAfter(least) => delay.max(least),
                    _ => delay,
                })
            }
        };
        if let Some(priority) = again {
            state.enqueue(key.clone(), priority);
            drop(state);
            self.inner.ready.notify_one();
            return;
        }
        if let Some(delay) = delay {
            state.delay(key.clone(), Instant::now() + delay);
            drop(state);
            self.inner.delayed.notify_one();
            return;
        }
        state.forget_if_idle(key);
    }

    /// Forgets earlier failures of `key`, so that its next failure is retried soon.
    pub fn forgive(&self, key: &Key) {
        let mut state = self.inner.state.lock();
        if let Some(entry) = state.entries.get_mut(key) {
            entry.failures = 0;
        }
        state.forget_if_idle(key);
    }

    /// Moves keys whose time has come; runs until dropped.
    pub async fn run_timers(&self) {
        loop {
            let changed = self.inner.delayed.notified();
            let next = {
                let mut state = self.inner.state.lock();
                let moved = state.fire(Instant::now());
                let next = state.timers.first().map(|(at, _)| *at);
                drop(state);
                for _ in 0..moved {
                    self.inner.ready.notify_one();
                }
                next
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Figures for metrics.
    pub fn depth(&self) -> Depth {
        let state = self.inner.state.lock();
        let ages = || state.running.values().map(Instant::elapsed);
        Depth {
            ready: state.high.len() + state.low.len(),
            delayed: state.timers.len(),
            running: state.running.len(),
            unfinished: ages().sum(),
            longest: ages().max().unwrap_or_default(),
            added: state.added,
            retries: state.retries,
        }
    }
}

impl State {
    /// Queues a key now; `true` when a worker should look.
    fn enqueue(&mut self, key: Key, priority: Priority) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        if let Some(due) = entry.due.take() {
            self.timers.remove(&(due, key.clone()));
        }
        if entry.running {
            entry.again = entry.again.max(Some(priority));
            return false;
        }
        let mut since = Instant::now();
        if let Some(ticket) = entry.queued {
            if ticket.priority >= priority {
                return false;
            }
            self.low.remove(&ticket.number);
            since = ticket.since;
        }
        let number = self.ticket;
        self.ticket += 1;
        entry.queued = Some(Ticket {
            priority,
            number,
            since,
        });
        match priority {
            Priority::High => self.high.insert(number, key),
            Priority::Low => self.low.insert(number, key),
        };
        true
    }

    fn delay(&mut self, key: Key, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.queued.is_some() || entry.again.is_some() {
            return;
        }
        if let Some(due) = entry.due {
            if due <= at {
                return;
            }
            self.timers.remove(&(due, key.clone()));
        }
        entry.due = Some(at);
        self.timers.insert((at, key));
    }

    /// Queues every key whose time has come and says how many.
    fn fire(&mut self, now: Instant) -> usize {
        let mut moved = 0;
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            if let Some((_, key)) = self.timers.pop_first() {
                let level = self.entries.get_mut(&key).and_then(|entry| {
                    entry.due = None;
                    entry.level
                });
                self.enqueue(key, level.unwrap_or(Priority::High));
                moved += 1;
            }
        }
        moved
    }

    fn pop(&mut self) -> Option<(Key, Duration)> {
        let low_turn = self.high_turns >= HIGH_TURNS && !self.low.is_empty();
        let next = if low_turn {
            self.low.pop_first()
        } else {
            self.high.pop_first().or_else(|| self.low.pop_first())
        };
        let (_, key) = next?;
        let now = Instant::now();
        let entry = self.entries.entry(key.clone()).or_default();
        let ticket = entry.queued.take();
        entry.level = ticket.map(|ticket| ticket.priority);
        entry.running = true;
        self.high_turns = match entry.level {
            Some(Priority::High) => self.high_turns + 1,
            _ => 0,
        };
        self.running.insert(key.clone(), now);
        let waited = ticket.map_or(Duration::ZERO, |ticket| now - ticket.since);
        Some((key, waited))
    }

    fn forget_if_idle(&mut self, key: &Key) {
        if self.entries.get(key).is_some_and(Entry::is_idle) {
            self.entries.remove(key);
        }
    }
}

/// The delay after `failures` in a row, with a tenth of jitter so that many keys do not retry in step.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let delay = BACKOFF_BASE
        .saturating_mul(1_u32 << doublings)
        .min(BACKOFF_CAP);
    delay.mul_f64(1.0 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    async fn next(queue: &Queue) -> String {
        tokio::time::timeout(Duration::from_secs(1), queue.take())
            .await
            .map_or_else(|_| "-".to_owned(), |key| key.name.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_queued_once_and_high_goes_first() {
        let queue = Queue::new();
        queue.add(key("a"), Priority::Low);
        queue.add(key("a"), Priority::Low);
        queue.add(key("b"), Priority::High);
        assert_eq!(next(&queue).await, "b");
        assert_eq!(next(&queue).await, "a");
        assert_eq!(next(&queue).await, "-");
    }

    #[tokio::test(start_paused = true)]
    async fn a_queued_key_moves_up() {
        let queue = Queue::new();
        queue.add(key("a"), Priority::Low);
        queue.add(key("b"), Priority::Low);
        queue.add(key("b"), Priority::High);
        tokio::time::advance(Duration::from_secs(3)).await;
        let (key, waited) = queue.take_turn().await;
        assert_eq!((&*key.name, waited), ("b", Duration::from_secs(3)));
        assert_eq!(next(&queue).await, "a");
        assert_eq!(next(&queue).await, "-");
        let depth = queue.depth();
        assert_eq!((depth.ready, depth.running), (0, 2));
        assert_eq!(depth.longest, Duration::from_secs(1), "of waiting in vain");
        assert_eq!(depth.unfinished, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn low_priority_is_not_starved() {
        let queue = Queue::new();
        queue.add(key("low"), Priority::Low);
        for index in 0..20 {
            queue.add(key(&format!("high-{index}")), Priority::High);
        }
        let mut turns = Vec::new();
        for _ in 0..=HIGH_TURNS {
            turns.push(next(&queue).await);
        }
        assert_eq!(turns.last().map(String::as_str), Some("low"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_key_never_runs_twice_at_once_and_runs_again_after() {
        let queue = Queue::new();
        queue.add(key("a"), Priority::High);
        assert_eq!(next(&queue).await, "a");
        queue.add(key("a"), Priority::High);
        assert_eq!(next(&queue).await, "-");
        queue.finish(&key("a"), Next::Done);
        assert_eq!(next(&queue).await, "a");
        queue.finish(&key("a"), Next::Done);
        assert_eq!(next(&queue).await, "-");
        assert_eq!(queue.inner.state.lock().entries.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_end_by_time_or_by_an_addition() {
        let queue = Queue::new();
        let timers = queue.clone();
        let tasks = agent_sandbox_service::tasks::Tasks::new("test");
        tasks.spawn("timers", async move { timers.run_timers().await });
        queue.add_after(key("a"), Duration::from_secs(30));
        queue.add_after(key("b"), Duration::from_secs(30));
        assert_eq!(next(&queue).await, "-");
        queue.add(key("b"), Priority::High);
        assert_eq!(next(&queue).await, "b");
        queue.finish(&key("b"), Next::Done);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(next(&queue).await, "a");
        queue.finish(&key("a"), Next::Done);
        assert_eq!(next(&queue).await, "-");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_up_to_the_cap_and_are_forgiven() {
        assert!(backoff(1) < Duration::from_millis(6));
        assert!(backoff(2) >= Duration::from_millis(10));
        assert!(backoff(64) <= BACKOFF_CAP.mul_f64(1.1));
        let queue = Queue::new();
        queue.add(key("a"), Priority::High);
        for _ in 0..40 {
            assert_eq!(next(&queue).await, "a");
            queue.finish(&key("a"), Next::Retry);
            let due = queue.inner.state.lock().timers.first().cloned().unwrap().0;
            assert!(due - Instant::now() <= BACKOFF_CAP.mul_f64(1.1));
            queue.add(key("a"), Priority::High);
        }
        assert_eq!(queue.depth().retries, 40);
        assert_eq!(next(&queue).await, "a");
        queue.finish(&key("a"), Next::Done);
        assert_eq!(queue.inner.state.lock().entries.len(), 0);
    }
}
