//! Entries of a pool's allocation record, `SandboxWarmPool.status`: which sandboxes belong to claims that they do
//! not name as their owners yet, and which are about to be deleted.
//!
//! Entries are texts. The API server defaults, prunes, validates and compares every member of every entry
//! at every write, and a record with a hundred entries that were objects cost it three times as much.

use std::fmt;

/// An object in the namespace of the pool, written `NAME/UID`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reference<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

/// A sandbox that belongs to a claim, written `CLAIM/UID=SANDBOX/UID`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Allocation<'a> {
    /// The claim.
    pub claim: Reference<'a>,
    /// The sandbox.
    pub sandbox: Reference<'a>,
}

impl<'a> Reference<'a> {
    /// Reads an entry of `status.retiring`; `None` when it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, uid) = text.split_once('/')?;
        let is_whole = !name.is_empty() && !uid.is_empty() && !uid.contains(['/', '=']);
        is_whole.then_some(Self { name, uid })
    }
}

impl<'a> Allocation<'a> {
    /// Reads an entry of `status.allocations`; `None` when it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (claim, sandbox) = text.split_once('=')?;
        Some(Self {
            claim: Reference::parse(claim)?,
            sandbox: Reference::parse(sandbox)?,
        })
    }
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.uid)
    }
}

impl fmt::Display for Allocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.claim, self.sandbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let text = "c.1/0a=p-x7k2m/0b";
        let entry = Allocation::parse(text).unwrap();
        assert_eq!((entry.claim.name, entry.claim.uid), ("c.1", "0a"));
        assert_eq!((entry.sandbox.name, entry.sandbox.uid), ("p-x7k2m", "0b"));
        assert_eq!(entry.to_string(), text);
        assert_eq!(Reference::parse("p/0b").map(|it| it.uid), Some("0b"));
    }

    #[test]
    fn what_is_not_whole_is_no_entry() {
        for text in [
            "",
            "c/0a",
            "c/0a=",
            "c=p",
            "c/0a=p",
            "/0a=p/0b",
            "c/=p/0b",
            "c/0a=p/0b=q/0c",
            "c/0a/1=p/0b",
        ] {
            assert_eq!(Allocation::parse(text), None, "{text}");
        }
        for text in ["", "p", "/0b", "p/", "p/0b/1"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
