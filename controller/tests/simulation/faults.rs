//! What goes wrong, drawn from the seed. Every seed has its own mix: most kinds of faults are absent
//! from most seeds, so that each gets to show what it does undisturbed by the others.

use std::time::Duration;

use fastrand::Rng;

use crate::kube_model::{Failure, Request};

/// How often each fault happens, from 0 to 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// Calls take longer than a moment.
    pub(crate) slow: f64,
    /// Somebody else changes the object first, or the server gives up on a change it could not order: 409.
    pub(crate) conflict: f64,
    /// 429 with Retry-After.
    pub(crate) busy: f64,
    /// 500 or 503 without effect.
    pub(crate) broken: f64,
    /// The call never arrives.
    pub(crate) lost_call: f64,
    /// The call takes effect, the answer never arrives or is an error.
    pub(crate) lost_answer: f64,
    /// The call takes effect after its caller gave up.
    pub(crate) late: f64,
    /// Watch events take longer than a moment.
    pub(crate) lag: f64,
    /// A watch says nothing for seconds.
    pub(crate) stall: f64,
    /// A watch breaks off.
    pub(crate) cut: f64,
    /// A watch event comes twice.
    pub(crate) twice: f64,
    /// Revisions and continue tokens are forgotten.
    pub(crate) expire: f64,
    /// Lists come in small pages.
    pub(crate) pages: bool,
}

/// The names of the faults, for leaving some out.
pub(crate) const NAMES: [&str; 13] = [
    "slow",
    "conflict",
    "busy",
    "broken",
    "lost-call",
    "lost-answer",
    "late",
    "lag",
    "stall",
    "cut",
    "twice",
    "expire",
    "pages",
];

impl Rates {
    /// A mix of faults.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut rate = |most: f64| match rng.u8(0..5) {
            0 => most,
            1 => most / 4.0,
            _ => 0.0,
        };
        Self {
            slow: rate(0.8),
            conflict: rate(0.2),
            busy: rate(0.1),
            broken: rate(0.15),
            lost_call: rate(0.06),
            lost_answer: rate(0.15),
            late: rate(0.25),
            lag: rate(0.8),
            stall: rate(0.05),
            cut: rate(0.1),
            twice: rate(0.3),
            expire: rate(0.3),
            pages: rng.bool(),
        }
    }

    /// The mix without one of the faults.
    pub(crate) fn leave_out(&mut self, name: &str) {
        let rate = match name {
            "slow" => &mut self.slow,
            "conflict" => &mut self.conflict,
            "busy" => &mut self.busy,
            "broken" => &mut self.broken,
            "lost-call" => &mut self.lost_call,
            "lost-answer" => &mut self.lost_answer,
            "late" => &mut self.late,
            "lag" => &mut self.lag,
            "stall" => &mut self.stall,
            "cut" => &mut self.cut,
            "twice" => &mut self.twice,
            "expire" => &mut self.expire,
            _ => {
                self.pages = false;
                return;
            }
        };
        *rate = 0.0;
    }
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Serve,
    /// It is answered with this and has no effect.
    Refuse(Failure),
    /// Somebody else's change of the object comes first.
    Overtaken,
    /// It never arrives, and nobody says so.
    NeverArrives,
    /// It takes effect, and nobody says so.
    AnswerLost,
    /// It takes effect, and the connection breaks.
    Reset,
    /// It takes effect, and the server reports an error.
    FailAfter,
}

/// A call's way to the server and back.
#[derive(Clone, Debug)]
pub(crate) struct Journey {
    pub(crate) there: Duration,
    pub(crate) fate: Fate,
    pub(crate) back: Duration,
}

/// Draws faults while they are on.
pub(crate) struct Faults {
    rates: Rates,
    rng: Rng,
    pub(crate) on: bool,
    /// How long calls take that nothing happens to.
    pub(crate) moment: Duration,
}

const MOMENT: Duration = Duration::from_millis(1);
/// How long calls take where several operators act at a time. Of two of which one has not heard yet what the
/// other goes by, each undoes what the other says until it has, once in a round trip, and thousands of rounds
/// show no more than some do.
pub(crate) const LONGER_MOMENT: Duration = Duration::from_millis(20);
/// The longest a watch stays silent, and the longest a call is on its way although its caller may
/// have given up.
pub(crate) const LONGEST_STALL: Duration = Duration::from_secs(8);

impl Faults {
    pub(crate) fn new(rates: Rates, rng: Rng) -> Self {
        Self {
            rates,
            rng,
            on: true,
            moment: MOMENT,
        }
    }

    fn hits(&mut self, rate: impl Fn(&Rates) -> f64) -> bool {
        let rate = rate(&self.rates);
        self.on && rate > 0.0 && self.rng.f64() < rate
    }

    fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least..=most))
    }

    /// What happens to a call.
    pub(crate) fn journey(&mut self, request: &Request) -> Journey {
        let mut journey = Journey {
            there: self.moment,
            fate: Fate::Serve,
            back: Duration::ZERO,
        };
        if !self.on {
            return journey;
        }
        if self.hits(|rates| rates.slow) {
            journey.there = self.between(1, 60);
            journey.back = self.between(1, 60);
        }
        let refuse = |code, reason, text: &str| {
            Fate::Refuse(Failure(code, reason, format!("simulated: {text}")))
        };
        let conditional = matches!(request.verb, "patch" | "update");
        if conditional && self.hits(|rates| rates.conflict) {
            // One that names a revision fails only if that is no longer the object's.
            journey.fate = if request.body["metadata"]["resourceVersion"].is_null() {
                refuse(409, "Conflict", "the object has been modified")
            } else {
                Fate::Overtaken
            };
        } else if self.hits(|rates| rates.busy) {
            journey.fate = refuse(429, "TooManyRequests", "slow down");
        } else if self.hits(|rates| rates.broken) {
            journey.fate = if self.rng.bool() {
                refuse(500, "InternalError", "broken")
            } else {
                refuse(503, "ServiceUnavailable", "not now")
            };
        } else if self.hits(|rates| rates.lost_call) {
            journey.fate = Fate::NeverArrives;
        } else if self.hits(|rates| rates.lost_answer) {
            journey.fate = match self.rng.u8(0..3) {
                0 => Fate::AnswerLost,
                1 => Fate::Reset,
                _ => Fate::FailAfter,
            };
        } else if self.hits(|rates| rates.late) {
            journey.there = self.between(1_500, 8_000);
        }
        journey
    }

    /// Whether a continue token, or the revision a watch is to begin at, counts as too old.
    pub(crate) fn expires(&mut self) -> bool {
        self.hits(|rates| rates.expire)
    }

    /// How many objects a page holds.
    pub(crate) fn page(&mut self) -> Option<u64> {
        (self.on && self.rates.pages).then(|| self.rng.u64(1..=4))
    }

    /// How long the next event of a watch takes.
    pub(crate) fn lag(&mut self) -> Duration {
        if self.hits(|rates| rates.stall) {
            return self.between(1_000, 8_000);
        }
        if self.hits(|rates| rates.lag) {
            return self.between(1, 300);
        }
        Duration::ZERO
    }

    /// Whether a watch ends here.
    pub(crate) fn cuts(&mut self) -> bool {
        self.hits(|rates| rates.cut)
    }

    /// Whether an event comes again.
    pub(crate) fn repeats(&mut self) -> bool {
        self.hits(|rates| rates.twice)
    }

    /// Whether the watch says how far it is.
    pub(crate) fn bookmarks(&mut self) -> bool {
        self.on && self.rng.u8(0..20) == 0
    }
}
