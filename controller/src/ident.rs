//! Identities as the operator stores them: UIDs as 128-bit numbers, revisions as integers, and
//! namespaced names over interned text. Everything that compares two objects or two states of one
//! object compares these; nothing here talks to the API server.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// Shared immutable text. Equal texts read from the API share one allocation, see
/// [`crate::intern::Interner`].
pub type Text = Arc<str>;

/// The UID of an object.
///
/// Kubernetes UIDs are lower-case RFC 4122 text. Anything else, which only a hand-written owner
/// reference can contain, becomes [`Uid::FOREIGN`] and equals no real object's UID.
/// Two halves, because a `u128` makes whatever holds it larger for the sake of its alignment.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid {
    high: u64,
    low: u64,
}

impl Uid {
    /// Stands for text that is no UID. It never matches: see [`Uid::is`].
    pub const FOREIGN: Self = Self {
        high: u64::MAX,
        low: u64::MAX,
    };

    /// Reads the canonical form; anything else is [`Uid::FOREIGN`].
    pub fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or(Self::FOREIGN)
    }

    /// Whether both name the same object; a foreign UID names none.
    pub fn is(self, other: Self) -> bool {
        self == other && self != Self::FOREIGN
    }

    fn try_parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let (mut high, mut low) = (0_u64, 0_u64);
        for (index, byte) in text.bytes().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            let half = if index < 18 { &mut high } else { &mut low };
            *half = (*half << 4) | u64::from(digit);
        }
        let uid = Self { high, low };
        (uid != Self::FOREIGN).then_some(uid)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::FOREIGN {
            return f.write_str("unknown");
        }
        let Self { high, low } = self;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::parse(&text))
    }
}

/// A `resourceVersion`. Kubernetes documents them as increasing integers that may be compared
/// within one resource (KEP-5504), which is what lets own writes be laid over a lagging watch.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

impl Revision {
    /// Reads the decimal form.
    ///
    /// # Errors
    /// When the server's revisions are no integers; such a server is not supported.
    pub fn parse(text: &str) -> Result<Self, std::num::ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Namespace and name of an object of a known kind.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: Text,
    /// The name.
    pub name: Text,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Another object in the same namespace.
    #[must_use]
    pub fn sibling(&self, name: impl Into<Text>) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_round_trip_in_canonical_form_only() {
        let text = "0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0";
        assert_eq!(Uid::parse(text).to_string(), text);
        for odd in [
            "",
            "0B54B5A6-2D3F-4C61-9E0B-00FF10A0B0C0",
            "0b54b5a62d3f4c619e0b00ff10a0b0c0",
            "{0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert_eq!(Uid::parse(odd), Uid::FOREIGN, "{odd}");
        }
    }

    #[test]
    fn a_foreign_uid_matches_nothing() {
        assert!(!Uid::FOREIGN.is(Uid::FOREIGN));
        let real = Uid::parse("0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0");
        assert!(real.is(real));
        assert!(!real.is(Uid::FOREIGN));
    }

    #[test]
    fn revisions_compare_as_numbers() {
        assert!(Revision::parse("99").unwrap() < Revision::parse("100").unwrap());
        assert!(Revision::parse("abc").is_err());
    }
}
