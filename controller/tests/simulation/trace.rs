//! What happened, in order: for people when something went wrong, and as one number by which two runs
//! of a seed are compared.

use std::collections::VecDeque;
use std::fmt::{self, Display, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::Value;

use crate::kube_model::Request;

/// Who did something.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Actor {
    /// A run of an operator: its slot, and how many ran before in the simulation.
    Operator(usize, usize),
    User,
    /// Scheduler, kubelet and nodes.
    Node,
    Collector,
    /// The simulation itself.
    World,
}

impl Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(slot, run) => f.pad(&format!("operator {}#{run}", letter(*slot))),
            Self::User => f.pad("user"),
            Self::Node => f.pad("node"),
            Self::Collector => f.pad("collector"),
            Self::World => f.pad("world"),
        }
    }
}

fn letter(slot: usize) -> char {
    char::from(b'a' + u8::try_from(slot).unwrap_or(25))
}

struct Event {
    at: Duration,
    actor: Actor,
    what: String,
    outcome: String,
}

/// The trace of one run. It keeps the last events only.
pub(crate) struct Trace {
    events: VecDeque<Event>,
    keep: usize,
    total: usize,
    hasher: DefaultHasher,
}

impl Trace {
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            events: VecDeque::new(),
            keep,
            total: 0,
            hasher: DefaultHasher::new(),
        }
    }

    pub(crate) fn push(&mut self, at: Duration, actor: Actor, what: String, outcome: String) {
        (at, actor, &what, &outcome).hash(&mut self.hasher);
        self.total += 1;
        if self.events.len() == self.keep {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            at,
            actor,
            what,
            outcome,
        });
    }

    /// One number for everything that happened.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// How many events there were.
    pub(crate) fn len(&self) -> usize {
        self.total
    }
}

impl Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.total - self.events.len();
        if left_out > 0 {
            writeln!(f, "  ({left_out} earlier events)")?;
        }
        for event in &self.events {
            let Event {
                at,
                actor,
                what,
                outcome,
            } = event;
            let seconds = at.as_secs_f64();
            writeln!(f, "{seconds:>9.3}  {actor:<12}  {what}  {outcome}")?;
        }
        Ok(())
    }
}

/// A call in few words: with its body only where somebody will look at it, because that takes longer than the
/// model takes to answer.
pub(crate) fn describe(request: &Request, in_detail: bool) -> String {
    let Request {
        verb,
        resource,
        name,
        status,
        body,
        ..
    } = request;
    let name = match body["metadata"]["name"].as_str() {
        Some(new) if *verb == "create" => new,
        _ => name,
    };
    let part = if *status { "/status" } else { "" };
    let detail = match *verb {
        "patch" | "update" | "delete" if in_detail => format!(" {}", short(body)),
        _ => String::new(),
    };
    format!("{verb} {resource}{part} {name}{detail}")
}

/// How much of a body the trace shows.
const SHORT: usize = 260;

/// Takes so much of a text, and no more of the work of making it.
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = text.len().min(SHORT - self.0.len());
        let Some(part) = (0..=left).rev().find_map(|end| text.get(..end)) else {
            return Err(fmt::Error);
        };
        self.0.push_str(part);
        if part.len() == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// A body in few words.
fn short(body: &Value) -> String {
    let mut text = Short(String::new());
    if write!(text, "{body}").is_err() {
        text.0.push('…');
    }
    text.0
}
