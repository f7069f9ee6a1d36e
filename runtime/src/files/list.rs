//! Listing a directory.
//!
//! The names are read and sorted first; what they are is looked up one by one as the listing goes on, so
//! that a large directory costs its names and no more.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::SystemTime;

use cap_std::fs::{Dir, Metadata, MetadataExt};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::caller::Caller;
use super::error::FileError;
use super::names::Names;
use super::path::TreePath;
use super::root::Root;
use super::spot::{bits_of, kind_of, listable};
use super::stat::{look, modified};
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

/// A listing under way: the entries of a directory, sorted by name. Files of uploads in progress are
/// left out, and so are entries that vanish meanwhile.
#[derive(Debug)]
pub struct Listing {
    root: Root,
    path: TreePath,
    dir: Dir,
    names: Names,
    next: usize,
}

impl Root {
    /// Reads the names in a directory.
    ///
    /// # Errors
    /// See [`FileError`]; a file is `NOTDIR`.
    pub fn list(&self, path: &TreePath, caller: &Caller) -> Result<Listing, FileError> {
        let context = "listing the directory";
        let failed = |error: Errno| FileError::new(context, error);
        let dir = self.open_directory(context, path)?;
        let dir = listable(&dir).map_err(failed)?;
        let mut names = self.room().names();
        let mut entries = rustix::fs::Dir::read_from(&dir).map_err(failed)?;
        while let Some(entry) = entries.read() {
            caller.check()?;
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name != c"." && name != c".." && !is_temporary(as_text(name)) {
                names.add(name)?;
            }
        }
        names.sort();
        Ok(Listing {
            root: self.clone(),
            path: path.clone(),
            dir,
            names,
            next: 0,
        })
    }
}

fn as_text(name: &std::ffi::CStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(name.to_bytes())
}

impl Iterator for Listing {
    type Item = Listed;

    /// Looks the next entry up, which may wait for the disk.
    fn next(&mut self) -> Option<Listed> {
        loop {
            let name = self.names.get(self.next)?.to_owned();
            self.next += 1;
            let Ok(Some(own)) = look(&self.dir, &name) else {
                continue;
            };
            if kind_of(&own) != FileType::Symlink {
                return Some(Listed::own(name, &own));
            }
            let target = self.root.metadata(&self.path.entry(Path::new(&name)));
            return Some(match target {
                Ok(target) => Listed::target(name, &target),
                Err(_) => Listed {
                    kind: Kind::BrokenLink,
                    ..Listed::own(name, &own)
                },
            });
        }
    }
}

impl Listed {
    fn own(name: OsString, stat: &Stat) -> Self {
        Self {
            name,
            kind: if kind_of(stat) == FileType::Directory {
                Kind::Directory
            } else {
                Kind::File
            },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(stat),
            mode: bits_of(stat),
        }
    }

    fn target(name: OsString, metadata: &Metadata) -> Self {
        Self {
            name,
            kind: if metadata.is_dir() {
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
