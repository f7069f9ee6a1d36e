//! Conditions on the file that a write replaces: compare and swap.

use std::ffi::OsStr;

use cap_std::fs::Dir;

use super::error::FileError;
use super::stat::{look, version};
use super::temporary::Existing;

/// Some versions of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Versions {
    /// Whatever exists.
    Any,
    /// One of these, as in [`super::OpenFile::version`].
    Listed(Vec<String>),
}

/// What must hold of the file that is there, the moment it is replaced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Condition {
    /// It must be one of these.
    pub only: Option<Versions>,
    /// It must be none of these; [`Versions::Any`] means that nothing may be there.
    pub never: Option<Versions>,
}

impl Condition {
    /// Fails unless the condition holds of what has the name now.
    pub(super) fn check(&self, dir: &Dir, name: &OsStr) -> Result<(), FileError> {
        if *self == Self::default() {
            return Ok(());
        }
        let found = look(dir, name).map_err(|error| FileError::new("comparing the file", error))?;
        if self.holds(found.as_ref().map(version).as_deref()) {
            Ok(())
        } else {
            Err(FileError::Condition)
        }
    }

    fn holds(&self, found: Option<&str>) -> bool {
        let among = |versions: &Versions| match (versions, found) {
            (_, None) => false,
            (Versions::Any, Some(_)) => true,
            (Versions::Listed(listed), Some(found)) => listed.iter().any(|one| one == found),
        };
        self.only.as_ref().is_none_or(among) && !self.never.as_ref().is_some_and(among)
    }

    /// What nothing may be replaced for, the kernel sees to.
    pub(super) fn existing(&self) -> Existing {
        match self.never {
            Some(Versions::Any) => Existing::Keep,
            _ => Existing::Replace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_of_versions_and_of_nothing() {
        let listed = |versions: &[&str]| {
            let versions = versions.iter().map(|one| (*one).to_owned());
            Some(Versions::Listed(versions.collect()))
        };
        for (only, never, of_nothing, of_one, of_two) in [
            (None, None, true, true, true),
            (Some(Versions::Any), None, false, true, true),
            (None, Some(Versions::Any), true, false, false),
            (listed(&["1"]), None, false, true, false),
            (listed(&["1", "2"]), None, false, true, true),
            (listed(&[]), None, false, false, false),
            (None, listed(&["1"]), true, false, true),
            (listed(&["1", "2"]), listed(&["2"]), false, true, false),
        ] {
            let condition = Condition { only, never };
            assert_eq!(condition.holds(None), of_nothing, "{condition:?}");
            assert_eq!(condition.holds(Some("1")), of_one, "{condition:?}");
            assert_eq!(condition.holds(Some("2")), of_two, "{condition:?}");
        }
    }
}
