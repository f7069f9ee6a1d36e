//! What to run: arguments, environment and working directory, in the form the kernel takes.

use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A command to start. The face that builds it has already confined the directory.
#[derive(Clone, Debug)]
pub struct Command {
    arguments: Vec<CString>,
    directory: Arc<OwnedFd>,
    variables: Vec<(OsString, OsString)>,
}

impl Command {
    /// A command from its argument list, program first. An empty list is refused at the start.
    ///
    /// # Errors
    /// An argument with a NUL byte, which no program can receive.
    pub fn new<I>(arguments: I, directory: Arc<OwnedFd>) -> Result<Self, NulError>
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        Ok(Self {
            arguments: arguments
                .into_iter()
                .map(CString::new)
                .collect::<Result<_, _>>()?,
            directory,
            variables: Vec::new(),
        })
    }

    /// Adds a variable to the environment, replacing one of the same name.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The argument list, program first.
    pub fn arguments(&self) -> impl Iterator<Item = &CStr> {
        self.arguments.iter().map(CString::as_c_str)
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    pub(super) fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }
}

/// The environment every command starts from, made once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    assignments: Vec<CString>,
}

impl Environment {
    /// From names and values. Pairs that cannot be an assignment (a NUL byte, an empty name, a `=`
    /// in a name) are left out: no process can hold them.
    pub fn new<I>(variables: I) -> Self
    where
        I: IntoIterator<Item = (OsString, OsString)>,
    {
        let assignments = variables
            .into_iter()
            .filter_map(|(name, value)| assignment(&name, &value))
            .collect();
        Self { assignments }
    }

    /// The value of a variable.
    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.assignments.iter().find_map(|assignment| {
            let value = assignment.to_bytes().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=").map(OsStr::from_bytes)
        })
    }

    /// This environment with `variables` over it, the last of equal names winning.
    pub(super) fn with(&self, variables: &[(OsString, OsString)]) -> Self {
        let mut assignments = self.assignments.clone();
        for (name, value) in variables {
            let Some(new) = assignment(name, value) else {
                continue;
            };
            assignments.retain(|old| !names(old, name.as_bytes()));
            assignments.push(new);
        }
        Self { assignments }
    }

    /// This environment without one variable.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.assignments.retain(|old| !names(old, name.as_bytes()));
        self
    }

    pub(super) fn assignments(&self) -> impl Iterator<Item = &CStr> {
        self.assignments.iter().map(CString::as_c_str)
    }
}

fn names(assignment: &CStr, name: &[u8]) -> bool {
    assignment
        .to_bytes()
        .strip_prefix(name)
        .is_some_and(|rest| rest.starts_with(b"="))
}

fn assignment(name: &OsStr, value: &OsStr) -> Option<CString> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return None;
    }
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn overlays_replace_exactly_the_variable_they_name() {
        let base = environment(&[("PATH", "/bin"), ("PATHS", "x"), ("EMPTY", "")]);
        let over = base.with(&[("PATH".into(), "/a".into()), ("PATH".into(), "/b".into())]);
        assert_eq!(over.value("PATH"), Some(OsStr::new("/b")));
        assert_eq!(over.value("PATHS"), Some(OsStr::new("x")));
        assert_eq!(over.value("EMPTY"), Some(OsStr::new("")));
        assert_eq!(over.value("PAT"), None);
        assert_eq!(over.assignments().count(), 3);
        assert_eq!(base.value("PATH"), Some(OsStr::new("/bin")));
    }

    #[test]
    fn impossible_assignments_are_left_out() {
        let odd = environment(&[("", "x"), ("A=B", "x"), ("NUL", "a\0b"), ("OK", "1")]);
        assert_eq!(odd.assignments().count(), 1);
    }
}
