//! What faces that start commands have in common: the working directory and the variables a client
//! names.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::files::{FileError, Root};

/// The directory a client names, beneath the root; absent or empty is the root itself.
///
/// # Errors
/// See [`FileError`]; a file is `NOTDIR`.
pub(crate) fn directory(root: &Root, path: Option<&str>) -> Result<Arc<OwnedFd>, FileError> {
    match path.filter(|path| !path.is_empty()) {
        None => root.handle(),
        Some(path) => {
            let path = root.parse_absolute(OsStr::new(path))?;
            root.directory(&path)
        }
    }
}

/// A variable that no process can have.
#[derive(Debug, thiserror::Error)]
#[error(
    "has the variable {0:?}; expected a name that is not empty and has no \"=\", and no NUL byte in \
     name or value"
)]
pub(crate) struct VariableError(String);

/// Refuses what no process can hold, instead of leaving it out.
///
/// # Errors
/// Names the variable, never its value, which may be a secret.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), VariableError> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(VariableError(name.to_owned()));
    }
    Ok(())
}
