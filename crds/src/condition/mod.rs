//! Conditions: their types, their reasons, and the text that the CRDs accept in them.
//!
//! The controller writes them and the schemas take their limits from here. Nothing here decides what a condition says.

pub mod reason;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The sandbox can be used.
pub const READY: &str = "Ready";
/// The sandbox has no pod because it is suspended.
pub const SUSPENDED: &str = "Suspended";
/// A copy of the pod's condition of the same name.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// The pod has run to its end.
pub const FINISHED: &str = "Finished";

/// The pod is not the one that the pod template describes by now. Absent when it is.
pub const POD_OUTDATED: &str = "PodOutdated";
/// The policy that a template calls for is in place, so that its pods may start. A Sandbox has it only
/// while that policy is lost.
pub const NETWORK_POLICY_READY: &str = "NetworkPolicyReady";

/// The longest message the CRDs accept, in characters.
pub const MAX_MESSAGE: usize = 32_768;
/// The longest reason the CRDs accept, in characters.
pub const MAX_REASON: usize = 1_024;

/// What to say instead of a reason and a message that the CRDs refuse; `None` when they accept both.
///
/// Conditions repeat what API servers and kubelets say, so their text may be anything, and one refused condition would
/// keep the whole status from being written. A message longer than [`MAX_MESSAGE`] is cut. A reason that is not a valid
/// one becomes [`reason::UNKNOWN`], with the original put in front of the message.
pub fn corrected(reason: &str, message: &str) -> Option<(String, String)> {
    if is_valid_reason(reason) {
        let message = cut(message, MAX_MESSAGE)?;
        return Some((reason.to_owned(), message));
    }
    let mut told = message.to_owned();
    if !reason.is_empty() {
        told = format!("{reason}: {message}");
    }
    let told = cut(&told, MAX_MESSAGE).unwrap_or(told);
    Some((reason::UNKNOWN.to_owned(), told))
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the CRDs accept this reason: a letter, then letters, digits, `_`, `,` and `:`, the last not being
/// punctuation, at most [`MAX_REASON`] characters.
fn is_valid_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.len() <= MAX_REASON
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'))
}

/// The first `max` characters, the last of them a mark that there were more; `None` when there are not.
fn cut(text: &str, max: usize) -> Option<String> {
    const MARK: char = '…';
    // Bytes first: counting characters is for the few texts that may be too long.
    if text.len() <= max || text.chars().count() <= max {
        return None;
    }
    Some(text.chars().take(max - 1).chain([MARK]).collect())
}

#[cfg(test)]
mod tests;
