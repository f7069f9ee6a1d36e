//! The global revision and its text form, `resourceVersion`.

use std::fmt;
use std::str::FromStr;

/// A point in the store's history. 0 is before the first commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A `resourceVersion` that this server never issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax")]
pub struct ParseRevisionError {
    text: String,
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ParseRevisionError {
                text: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn only_plain_decimal_numbers_are_revisions() {
        assert_eq!("17".parse(), Ok(Revision::new(17)));
        assert_eq!("0".parse(), Ok(Revision::ZERO));
        for text in ["", "+1", "-1", "1.0", "abc", " 1", "99999999999999999999"] {
            assert!(text.parse::<Revision>().is_err(), "{text:?}");
        }
        assert_eq!(Revision::new(7).next().to_string(), "8");
    }
}
