//! The deadline wheel: when which object expires. It is derived from the stored rows alone, so it is
//! complete after a restart, and it is independent of queues and their back-off: an object that fails
//! for other reasons still expires on time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ident::Key;

/// What a deadline belongs to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// A claim's `shutdownTime` or time to live.
    Claim(Key),
    /// A sandbox's `shutdownTime`.
    Sandbox(Key),
}

/// The longest the wheel sleeps while it holds deadlines. Wall clocks jump (a suspended machine, a
/// corrected clock); a jump is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// The wheel. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    wheel: Mutex<Wheel>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wheel {
    by_time: BTreeSet<(Timestamp, Target)>,
    by_target: BTreeMap<Target, Timestamp>,
}

impl Wheel {
    /// Sets or clears a deadline; `true` when the earliest one changed.
    fn set(&mut self, target: Target, at: Option<Timestamp>) -> bool {
        let first = self.by_time.first().map(|(at, _)| *at);
        let old = match at {
            Some(at) => self.by_target.insert(target.clone(), at),
            None => self.by_target.remove(&target),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, target.clone()));
        }
        if let Some(at) = at {
            self.by_time.insert((at, target));
        }
        first != self.by_time.first().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Timestamp) -> Vec<Target> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.by_time.first()
            && *at <= now
        {
            if let Some((_, target)) = self.by_time.pop_first() {
                self.by_target.remove(&target);
                due.push(target);
            }
        }
        due
    }
}

impl Deadlines {
    /// An empty wheel.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline of `target`, or clears it. A deadline that has fired is gone until set again.
    pub fn set(&self, target: Target, at: Option<Timestamp>) {
        if self.inner.wheel.lock().set(target, at) {
            self.inner.changed.notify_one();
        }
    }

    /// How many deadlines are armed.
    pub fn len(&self) -> usize {
        self.inner.wheel.lock().by_target.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `fire` with every target whose time has come; runs until dropped.
    pub async fn run(&self, clock: Clock, fire: impl Fn(Target)) {
        loop {
            let changed = self.inner.changed.notified();
            let now = clock.now();
            let (due, next) = {
                let mut wheel = self.inner.wheel.lock();
                let due = wheel.due(now);
                (due, wheel.by_time.first().map(|(at, _)| *at))
            };
            due.into_iter().for_each(&fire);
            match next {
                Some(at) => {
                    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    // A millisecond more, so that the timer's granularity never wakes us too early.
                    let sleep = (left + Duration::from_millis(1)).min(LONGEST_SLEEP);
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(sleep) => {}
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claim(name: &str) -> Target {
        Target::Claim(Key::new("n", name))
    }

    #[test]
    fn deadlines_move_and_fire_in_order() {
        let mut wheel = Wheel::default();
        assert!(wheel.set(claim("a"), Some(at(30))));
        assert!(wheel.set(claim("b"), Some(at(20))));
        assert!(!wheel.set(claim("c"), Some(at(40))));
        wheel.set(claim("a"), Some(at(10)));
        wheel.set(claim("c"), None);
        assert_eq!(wheel.due(at(9)), []);
        assert_eq!(wheel.due(at(20)), [claim("a"), claim("b")]);
        assert_eq!(wheel.due(at(99)), []);
        assert!(wheel.by_target.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_clock_is_noticed() {
        let (clock, hand) = Clock::manual(at(0));
        let wheel = Deadlines::new();
        wheel.set(claim("a"), Some(at(3600)));
        let fired = Arc::new(Mutex::new(Vec::new()));
        let seen = fired.clone();
        let run = wheel.run(clock, move |target| seen.lock().push(target));
        tokio::pin!(run);
        let pause = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        tokio::select! { () = run.as_mut() => {}, () = pause(5) => {} }
        assert!(fired.lock().is_empty());
        hand.advance(SignedDuration::from_secs(3600));
        tokio::select! { () = run.as_mut() => {}, () = pause(1) => {} }
        assert_eq!(*fired.lock(), [claim("a")]);
        assert!(wheel.is_empty());
    }
}
