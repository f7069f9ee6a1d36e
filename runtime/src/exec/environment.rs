//! The variables of commands, in the form the kernel takes.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

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
