//! Listing a directory.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use cap_std::fs::{Metadata, MetadataExt};

use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::temporary::is_temporary;

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The entry's own name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes as the system reports it.
    pub size: u64,
    /// Last modification.
    pub modified: SystemTime,
    /// Permission bits.
    pub mode: u32,
}

/// What an entry is. Links appear as what they point to, if that is inside the root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A regular file, or something else that is not a directory.
    File,
    /// A directory.
    Directory,
    /// A link that leads nowhere or out of the root; the other fields are the link's own.
    BrokenLink,
}

impl Root {
    /// The entries of a directory, sorted by name. Files of uploads in progress are left out, and so
    /// are entries that vanish meanwhile.
    ///
    /// # Errors
    /// See [`FileError`]; a file is `NOTDIR`.
    pub fn list(&self, path: &TreePath) -> Result<Vec<Listed>, FileError> {
        let context = "listing the directory";
        let entries = self.beneath(context, path, |dir, path| dir.read_dir(path))?;
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| FileError::new(context, error))?;
            let name = entry.file_name();
            if is_temporary(&name) {
                continue;
            }
            let Ok(own) = entry.metadata() else { continue };
            if !own.is_symlink() {
                listed.push(Listed::new(name, &own, own.is_dir()));
                continue;
            }
            match self.metadata(&path.entry(Path::new(&name))) {
                Ok(target) => listed.push(Listed::new(name, &target, target.is_dir())),
                Err(_) => listed.push(Listed {
                    kind: Kind::BrokenLink,
                    ..Listed::new(name, &own, false)
                }),
            }
        }
        listed.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }
}

impl Listed {
    fn new(name: OsString, metadata: &Metadata, directory: bool) -> Self {
        Self {
            name,
            kind: if directory {
                Kind::Directory
            } else {
                Kind::File
            },
            size: metadata.len(),
            modified: metadata
                .modified()
                .map_or(SystemTime::UNIX_EPOCH, cap_std::time::SystemTime::into_std),
            mode: metadata.mode() & 0o7777,
        }
    }
}
