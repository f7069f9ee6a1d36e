//! Removing files and directories. Links are removed, never followed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::resolve::resolve;
use super::root::Root;

/// How much may be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// A file, a link or an empty directory.
    Single,
    /// A directory with everything in it, too.
    Recursive,
}

impl Root {
    /// Removes what is at `path`. The root itself is never removed: `Recursive` empties it, `Single`
    /// is refused.
    ///
    /// # Errors
    /// See [`FileError`]; a directory that is not empty is `NOTEMPTY`, the root `BUSY`.
    pub fn remove(&self, path: &TreePath, removal: Removal) -> Result<(), FileError> {
        let context = "removing the path";
        let failed = |error| FileError::new(context, error);
        let opened = self.current()?;
        // All of the path is resolved but its last name, so that a link is not followed.
        let target = match (path.as_path().parent(), path.as_path().file_name()) {
            (Some(parent), Some(name)) => resolve(&opened, &TreePath::relative(parent))?.join(name),
            // It ends with `..`, or is the root.
            _ => resolve(&opened, path)?,
        };
        let Some(name) = target.file_name() else {
            return match removal {
                Removal::Single => Err(FileError::new(context, Errno::BUSY)),
                Removal::Recursive => empty(&opened.dir).map_err(failed),
            };
        };
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = opened
            .dir
            .open_dir(parent.unwrap_or_else(|| Path::new(".")))
            .map_err(failed)?;
        remove_entry(&parent, Path::new(name), removal).map_err(failed)
    }
}

fn remove_entry(parent: &Dir, name: &Path, removal: Removal) -> std::io::Result<()> {
    if !parent.symlink_metadata(name)?.is_dir() {
        return parent.remove_file(name);
    }
    match removal {
        Removal::Single => parent.remove_dir(name),
        Removal::Recursive => parent.remove_dir_all(name),
    }
}

/// Removes whatever has the name, with everything in it.
pub(super) fn remove_tree(parent: &Dir, name: &OsStr) -> std::io::Result<()> {
    remove_entry(parent, Path::new(name), Removal::Recursive)
}

fn empty(directory: &Dir) -> std::io::Result<()> {
    for entry in directory.entries()? {
        let name = PathBuf::from(entry?.file_name());
        match remove_entry(directory, &name, Removal::Recursive) {
            // Somebody else was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
