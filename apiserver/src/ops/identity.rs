//! UIDs and generated names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A source of UIDs and of the random ends of generated names. Clones share it.
#[derive(Clone)]
pub struct Ids(Arc<dyn Fn() -> u128 + Send + Sync>);

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::random()
    }
}

/// Letters and digits without vowels and look-alikes, as Kubernetes draws them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters at the end of a generated name.
const SUFFIX: usize = 5;
/// A generated name keeps at most this much of its prefix, to stay within a DNS label.
const MAX_PREFIX: usize = 63 - SUFFIX;

impl Ids {
    /// Version 4 UUIDs.
    pub fn random() -> Self {
        Self(Arc::new(|| Uuid::new_v4().as_u128()))
    }

    /// UIDs that count up, for reproducible tests.
    pub fn sequence() -> Self {
        let next = AtomicU64::new(1);
        Self(Arc::new(move || {
            u128::from(next.fetch_add(1, Ordering::Relaxed))
        }))
    }

    /// A new UID in text form.
    pub fn uid(&self) -> String {
        Uuid::from_u128((self.0)()).hyphenated().to_string()
    }

    /// A name that starts with `prefix`.
    pub fn name(&self, prefix: &str) -> String {
        let mut name: String = prefix.chars().take(MAX_PREFIX).collect();
        let mut number = (self.0)();
        let base = ALPHABET.len() as u128;
        for _ in 0..SUFFIX {
            let letter = usize::try_from(number % base)
                .ok()
                .and_then(|at| ALPHABET.get(at));
            name.extend(letter.map(|byte| char::from(*byte)));
            number /= base;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_their_prefix_and_fit_a_label() {
        let ids = Ids::random();
        let name = ids.name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_ne!(name, ids.name("web-"));
        assert_eq!(ids.name(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn a_sequence_is_reproducible() {
        let uid = "00000000-0000-0000-0000-000000000001";
        assert_eq!(Ids::sequence().uid(), uid);
        assert_eq!(Ids::sequence().name("a"), Ids::sequence().name("a"));
    }
}
