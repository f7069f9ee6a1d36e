//! Conditions: types, reasons, and the one way to set them.
//!
//! Pure: the caller passes the time. A condition's `lastTransitionTime` moves only when its status does, and every
//! condition that is set here passes the CRD's validation, whatever text it was made from.

pub mod reason;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The sandbox can be used.
pub const READY: &str = "Ready";
/// The sandbox has no pod because it is suspended.
pub const SUSPENDED: &str = "Suspended";
/// A copy of the pod's condition of the same name.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// The pod has run to its end.
pub const FINISHED: &str = "Finished";

/// The longest message the CRDs accept, in characters.
pub const MAX_MESSAGE: usize = 32_768;
/// The longest reason the CRDs accept, in characters.
pub const MAX_REASON: usize = 1_024;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// A condition as a controller computed it, before it has a transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCondition {
    pub type_: &'static str,
    pub status: ConditionStatus,
    pub reason: String,
    pub message: String,
    /// `metadata.generation` of the object the condition was computed from.
    pub observed_generation: Option<i64>,
}

/// Sets a condition, keeping the transition time unless the status changes. New ones are appended.
///
/// A message longer than [`MAX_MESSAGE`] is cut; a reason that is not a valid one becomes [`reason::UNKNOWN`], with
/// the original put in front of the message. Answers whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, desired: DesiredCondition, now: Timestamp) -> bool {
    let (reason, message) = if is_valid_reason(&desired.reason) {
        (desired.reason, desired.message)
    } else {
        let message = format!("{}: {}", desired.reason, desired.message);
        (reason::UNKNOWN.to_owned(), message)
    };
    let mut next = Condition {
        type_: desired.type_.to_owned(),
        status: desired.status.as_str().to_owned(),
        reason,
        message: cut(message, MAX_MESSAGE),
        observed_generation: desired.observed_generation,
        last_transition_time: Time(to_second(now)),
    };
    let Some(current) = conditions.iter_mut().find(|c| c.type_ == next.type_) else {
        conditions.push(next);
        return true;
    };
    if current.status == next.status {
        next.last_transition_time = current.last_transition_time.clone();
    }
    let changed = *current != next;
    *current = next;
    changed
}

/// Puts a condition of another object in place as it is, transition time included. Answers whether anything changed.
pub fn put(conditions: &mut Vec<Condition>, next: Condition) -> bool {
    let Some(current) = conditions.iter_mut().find(|c| c.type_ == next.type_) else {
        conditions.push(next);
        return true;
    };
    let changed = *current != next;
    *current = next;
    changed
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type exists and is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the condition of this type exists and has this reason.
pub fn has_reason(conditions: &[Condition], type_: &str, reason: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.reason == reason)
}

/// Removes the condition of this type. Answers whether there was one.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}

/// Sorts by type, the order in which claims publish their conditions.
pub fn sort(conditions: &mut [Condition]) {
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// Whether the CRDs accept this reason: a letter, then letters, digits, `_`, `,` and `:`, the last not being
/// punctuation, at most [`MAX_REASON`] characters.
pub fn is_valid_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.len() <= MAX_REASON
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'))
}

/// Kubernetes publishes times in whole seconds; keeping the fraction would make an unchanged condition look changed.
fn to_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn cut(text: String, max: usize) -> String {
    const MARK: char = '…';
    if text.len() <= max || text.chars().count() <= max {
        return text;
    }
    text.chars().take(max - 1).chain([MARK]).collect()
}

#[cfg(test)]
mod tests;
