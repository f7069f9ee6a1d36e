//! Conditions as kept and as written. Only `status`, `reason` and `message` say something new;
//! `lastTransitionTime` moves when `status` does and never otherwise. Whatever text a condition was
//! made from, what is in a list to be written passes the validation of the CRDs.

use agent_sandbox_crds::condition::corrected;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ident::Text;
use crate::intern::Interner;

/// A condition's status.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Truth {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    #[default]
    Unknown,
}

impl Truth {
    /// The form on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// Reads the form on the wire; anything else is `Unknown`.
    pub fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// One condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// The type.
    pub kind: Text,
    /// The status.
    pub status: Truth,
    /// The reason.
    pub reason: Text,
    /// The message.
    pub message: Text,
    /// The generation of the object this was computed for.
    pub observed_generation: i64,
    /// When `status` last changed, in whole seconds.
    pub since: Timestamp,
}

impl Condition {
    /// Whether both say the same, generation and time aside.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.status == other.status
            && self.reason == other.reason
            && self.message == other.message
    }

    /// The condition with a reason and a message that the CRDs accept.
    fn with_accepted_text(mut self) -> Self {
        if let Some((reason, message)) = corrected(&self.reason, &self.message) {
            self.reason = reason.into();
            self.message = message.into();
        }
        self
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "type": &*self.kind,
            "status": self.status.as_str(),
            "reason": &*self.reason,
            "message": &*self.message,
            "lastTransitionTime": wire_time(self.since),
        });
        if self.observed_generation > 0
            && let Some(members) = value.as_object_mut()
        {
            members.insert(
                "observedGeneration".to_owned(),
                self.observed_generation.into(),
            );
        }
        value
    }
}

/// A time as `metav1.Time` has it: UTC, whole seconds.
pub(crate) fn wire_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `time` without its fraction of a second, as it will be read back.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A list of conditions, at most one of each type.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions(Box<[Condition]>);

impl Conditions {
    /// The condition of a type.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| &*condition.kind == kind)
    }

    /// Whether the condition of a type is `True`.
    pub fn is_true(&self, kind: &str) -> bool {
        self.get(kind)
            .is_some_and(|condition| condition.status == Truth::True)
    }

    /// The reason of the condition of a type.
    pub fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind).map(|condition| &*condition.reason)
    }

    /// All conditions, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list with `condition` in it. A condition of the same type keeps its place, and its
    /// transition time when the status did not change.
    #[must_use]
    pub fn with(&self, mut condition: Condition) -> Self {
        condition.since = match self.get(&condition.kind) {
            Some(old) if old.status == condition.status => old.since,
            _ => whole_seconds(condition.since),
        };
        self.with_exactly(condition)
    }

    /// The list with `condition` in it, transition time included. A condition of the same type
    /// keeps its place.
    #[must_use]
    pub fn with_exactly(&self, condition: Condition) -> Self {
        let condition = condition.with_accepted_text();
        let mut list = self.0.to_vec();
        if let Some(old) = list.iter_mut().find(|old| old.kind == condition.kind) {
            *old = condition;
        } else {
            list.push(condition);
        }
        Self(list.into())
    }

    /// The list without the condition of a type.
    #[must_use]
    pub fn without(&self, kind: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|condition| &*condition.kind != kind)
                .cloned()
                .collect(),
        )
    }

    /// The list sorted by type.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| a.kind.cmp(&b.kind));
        self
    }

    /// Whether both lists say the same, generations aside.
    pub fn equal_but_generations(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(other.0.iter())
                .all(|(a, b)| a.says_the_same(b) && a.since == b.since)
    }

    /// The list as written.
    pub fn to_value(&self) -> Value {
        self.0.iter().map(Condition::to_value).collect()
    }
}

/// A condition on the wire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConditionWire {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    observed_generation: i64,
    last_transition_time: Option<Timestamp>,
}

impl ConditionWire {
    /// Keeps a list of conditions. Old writers could leave one type twice; the first counts.
    pub(super) fn read(list: Vec<Self>, interner: &Interner) -> Conditions {
        let mut kept: Vec<Condition> = Vec::with_capacity(list.len());
        for wire in list {
            if kept.iter().any(|known| *known.kind == wire.kind) {
                continue;
            }
            kept.push(Condition {
                kind: interner.text(&wire.kind),
                status: Truth::parse(&wire.status),
                reason: interner.text(&wire.reason),
                message: interner.text(&wire.message),
                observed_generation: wire.observed_generation,
                since: wire.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH),
            });
        }
        Conditions(kept.into())
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self(conditions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use agent_sandbox_crds::condition::MAX_MESSAGE;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn ready(status: Truth, message: &str, generation: i64, since: i64) -> Condition {
        Condition {
            kind: "Ready".into(),
            status,
            reason: "Because".into(),
            message: message.into(),
            observed_generation: generation,
            since: at(since),
        }
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = Conditions::default().with(ready(Truth::False, "a", 1, 10));
        let second = first.with(ready(Truth::False, "b", 2, 20));
        let kept = second.get("Ready").unwrap();
        assert_eq!((kept.since, &*kept.message), (at(10), "b"));
        assert_eq!(kept.observed_generation, 2);
        let third = second.with(ready(Truth::True, "c", 2, 30));
        assert_eq!(third.get("Ready").unwrap().since, at(30));
        assert_eq!(third.iter().count(), 1);
    }

    #[test]
    fn fractions_of_a_second_are_dropped_as_the_wire_drops_them() {
        let now: Timestamp = "2026-01-01T00:00:00.75Z".parse().unwrap();
        let list = Conditions::default().with(Condition {
            since: now,
            ..ready(Truth::True, "a", 1, 0)
        });
        assert_eq!(
            list.to_value().to_string(),
            r#"[{"type":"Ready","status":"True","reason":"Because","message":"a","lastTransitionTime":"2026-01-01T00:00:00Z","observedGeneration":1}]"#
        );
        assert_eq!(
            list.get("Ready").unwrap().since.to_string(),
            "2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn text_that_the_definitions_refuse_is_made_acceptable() {
        let odd = Condition {
            reason: "0/3 nodes".into(),
            ..ready(Truth::False, "insufficient cpu", 1, 10)
        };
        let long = ready(Truth::False, &"x".repeat(MAX_MESSAGE + 1), 1, 10);
        for (list, reason) in [
            (Conditions::default().with(odd.clone()), "Unknown"),
            (Conditions::default().with_exactly(odd), "Unknown"),
            (Conditions::default().with(long), "Because"),
        ] {
            let kept = list.get("Ready").unwrap();
            assert_eq!(&*kept.reason, reason);
            assert!(kept.message.chars().count() <= MAX_MESSAGE);
            let again = list.with(kept.clone());
            assert_eq!(again, list, "what was corrected once stays as it is");
        }
    }

    #[test]
    fn duplicates_left_by_old_writers_collapse() {
        let wire: Vec<ConditionWire> = serde_json::from_str(
            r#"[{"type":"Ready","status":"True","reason":"A","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"},
                {"type":"Ready","status":"False","reason":"B","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]"#,
        )
        .unwrap();
        let kept = ConditionWire::read(wire, &Interner::default());
        assert_eq!(kept.iter().count(), 1);
        assert!(kept.is_true("Ready"));
    }

    #[test]
    fn generations_alone_are_no_news() {
        let old = Conditions::default().with(ready(Truth::True, "a", 1, 10));
        let new = old.with(ready(Truth::True, "a", 2, 20));
        assert_ne!(old, new);
        assert!(old.equal_but_generations(&new));
        assert!(!old.equal_but_generations(&new.with(ready(Truth::True, "b", 2, 20))));
    }
}
