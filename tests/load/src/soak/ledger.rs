//! What became of every request: counted by kind and outcome, each request once, and every violation
//! kept with what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// How many violations are kept in words.
const KEPT: usize = 50;
/// What precedes the number in the id of a request.
const PREFIX: &str = "soak-";

/// The books of one run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: AtomicU64,
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
    /// By number of the request: see [`State`].
    requests: Mutex<Vec<State>>,
    violations: Mutex<Violations>,
    lines: AtomicU64,
    complaints: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Violations {
    count: u64,
    texts: Vec<String>,
}

/// What is known of one request.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The head of an answer came, which the router counts as one request.
    answered: bool,
    /// How often it is in the access log.
    logged: u8,
}

/// How the counts of client, log and metrics compare.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Accounts {
    /// Requests that clients sent, some in vain.
    pub sent: u64,
    /// Requests of which clients saw the head of an answer.
    pub answered: u64,
    /// Lines of the access log.
    pub logged: u64,
    /// Answered requests that the access log lacks.
    pub missing: u64,
    /// Requests that are in the access log more than once.
    pub doubled: u64,
}

impl Ledger {
    /// The number of a new request, and the id that says so.
    pub(super) fn open(&self) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, format!("{PREFIX}{number}"))
    }

    /// The head of an answer came.
    pub(super) fn answered(&self, number: u64) {
        self.at(number, |state| state.answered = true);
    }

    fn at(&self, number: u64, change: impl FnOnce(&mut State)) {
        let Ok(index) = usize::try_from(number) else {
            return;
        };
        let mut requests = self.requests.lock();
        if requests.len() <= index {
            requests.resize(index + 1, State::default());
        }
        if let Some(state) = requests.get_mut(index) {
            change(state);
        }
    }

    pub(super) fn count(&self, kind: &'static str, outcome: impl Into<String>) {
        *self
            .counts
            .lock()
            .entry((kind, outcome.into()))
            .or_default() += 1;
    }

    pub(super) fn violation(&self, text: impl fmt::Display) {
        let mut violations = self.violations.lock();
        violations.count += 1;
        if violations.texts.len() < KEPT {
            violations.texts.push(text.to_string());
        }
    }

    /// Takes a line of the router's log.
    pub(super) fn line(&self, line: &str) {
        if line.starts_with('{') && line.contains("\"sandbox-router.access\"") {
            self.lines.fetch_add(1, Ordering::Relaxed);
            match number(line) {
                Some(number) => self.at(number, |state| {
                    state.logged = state.logged.saturating_add(1);
                }),
                None => self.violation(format_args!("no request of ours: {line}")),
            }
        } else if line.contains("panicked") || line.contains(" ERROR ") {
            self.violation(format_args!("the router's log: {line}"));
        } else if line.contains(" WARN ") {
            // Without what differs from line to line.
            let text: String = line.split(" WARN ").nth(1).unwrap_or(line).to_owned();
            let text = text.split(['=', '"']).next().unwrap_or_default().to_owned();
            *self.complaints.lock().entry(text).or_default() += 1;
        }
    }

    /// Requests of which clients saw the head of an answer, and lines of the access log.
    pub(super) fn accounts(&self) -> Accounts {
        let requests = self.requests.lock();
        let count =
            |holds: fn(&State) -> bool| requests.iter().filter(|state| holds(state)).count() as u64;
        Accounts {
            sent: self.next.load(Ordering::Relaxed),
            answered: count(|state| state.answered),
            logged: self.lines.load(Ordering::Relaxed),
            missing: count(|state| state.answered && state.logged == 0),
            doubled: count(|state| state.logged > 1),
        }
    }

    /// Outcomes by kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
        let mut by_kind: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
        for ((kind, outcome), count) in &*self.counts.lock() {
            by_kind
                .entry(kind)
                .or_default()
                .insert(outcome.clone(), *count);
        }
        by_kind
    }

    /// Warnings of the router, by text.
    pub(super) fn complaints(&self) -> BTreeMap<String, u64> {
        self.complaints.lock().clone()
    }

    /// How many violations there were, and the first of them.
    pub(super) fn violations(&self) -> (u64, Vec<String>) {
        let violations = self.violations.lock();
        (violations.count, violations.texts.clone())
    }
}

/// Which request a line of the access log is about.
fn number(line: &str) -> Option<u64> {
    let (_, id) = line.split_once(&format!("\"request_id\":\"{PREFIX}"))?;
    let (number, _) = id.split_once('"')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_accounted_once() {
        let ledger = Ledger::default();
        let line = |id: &str| {
            ledger.line(&format!(
                "{{\"logger\":\"sandbox-router.access\",\"request_id\":\"{id}\"}}"
            ));
        };
        for _ in 0..4 {
            let (number, id) = ledger.open();
            // The last was sent in vain, the first is logged twice, the second is not.
            if number < 3 {
                ledger.answered(number);
            }
            if number != 1 {
                line(&id);
            }
        }
        line("soak-0");
        let accounts = ledger.accounts();
        assert_eq!((accounts.sent, accounts.answered), (4, 3));
        assert_eq!(
            (accounts.logged, accounts.missing, accounts.doubled),
            (4, 1, 1)
        );
        assert_eq!(ledger.violations().0, 0);
        line("other");
        ledger.line("2026-01-01T00:00:00Z ERROR tasks: task panicked");
        assert_eq!(ledger.violations().0, 2);
        ledger.line("2026-01-01T00:00:00Z  WARN router: upstream connect failure sandbox=a");
        ledger.line("2026-01-01T00:00:00Z  WARN router: upstream connect failure sandbox=b");
        let complaints: Vec<u64> = ledger.complaints().into_values().collect();
        assert_eq!(complaints, [2]);
    }
}
