//! Walking a directory tree by handles.
//!
//! Every directory is opened by its name in the one before and never through a link, so the walk stays
//! where it began whatever is moved or swapped meanwhile. Names are sorted, thousands at a time, and
//! memory is bounded by the depth.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::caller::Caller;
use super::error::FileError;
use super::spot::{kind_of, listable, open_subdirectory};
use super::temporary::is_temporary;

/// As many directories may be inside each other; every one of them costs an open file.
pub(super) const MAX_DEPTH: usize = 256;
/// So many names are read and sorted at a time.
const BATCH: usize = 4096;

/// A walk in progress. Directories are found, and entered only when told to.
pub(super) struct Walk {
    levels: Vec<Level>,
    caller: Caller,
}

struct Level {
    dir: Arc<Dir>,
    names: rustix::fs::Dir,
    /// Sorted backwards; the next is the last.
    batch: Vec<(OsString, FileType)>,
    path: PathBuf,
}

/// Something in the tree.
pub(super) struct Found {
    pub(super) dir: Arc<Dir>,
    pub(super) name: OsString,
    /// Relative to where the walk began.
    pub(super) path: PathBuf,
    pub(super) kind: FileType,
}

/// What the walk comes across.
pub(super) enum Step {
    /// An entry of the innermost directory.
    Found(Found),
    /// The end of a directory that was entered.
    Left,
}

impl Walk {
    /// Begins in a directory.
    pub(super) fn new(dir: &Dir, caller: &Caller) -> Result<Self, FileError> {
        let mut walk = Self {
            levels: Vec::new(),
            caller: caller.clone(),
        };
        let dir = listable(dir).map_err(failed)?;
        walk.push(dir, PathBuf::new())?;
        Ok(walk)
    }

    /// Goes into a directory that was just found.
    pub(super) fn enter(&mut self, found: &Found) -> Result<(), FileError> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(FileError::Invalid(format!(
                "directories are nested more than {MAX_DEPTH} deep"
            )));
        }
        let dir = open_subdirectory(&found.dir, &found.name).map_err(failed)?;
        self.push(dir, found.path.clone())
    }

    fn push(&mut self, dir: Dir, path: PathBuf) -> Result<(), FileError> {
        let names = rustix::fs::Dir::read_from(&dir).map_err(failed)?;
        self.levels.push(Level {
            dir: Arc::new(dir),
            names,
            batch: Vec::new(),
            path,
        });
        Ok(())
    }

    /// The innermost directory that was entered.
    pub(super) fn inside(&self) -> Option<&Dir> {
        self.levels.last().map(|level| &*level.dir)
    }

    /// What comes next; `None` at the end of the tree.
    pub(super) fn next(&mut self) -> Result<Option<Step>, FileError> {
        self.caller.check()?;
        let Some(level) = self.levels.last_mut() else {
            return Ok(None);
        };
        if level.batch.is_empty() {
            level.fill().map_err(failed)?;
        }
        let Some((name, kind)) = level.batch.pop() else {
            self.levels.pop();
            return Ok((!self.levels.is_empty()).then_some(Step::Left));
        };
        Ok(Some(Step::Found(Found {
            dir: level.dir.clone(),
            path: level.path.join(&name),
            name,
            kind,
        })))
    }
}

impl Level {
    fn fill(&mut self) -> rustix::io::Result<()> {
        while self.batch.len() < BATCH
            && let Some(entry) = self.names.read()
        {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || is_temporary(name) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(&*self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => kind_of(&stat),
                        // It vanished.
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error),
                    }
                }
                kind => kind,
            };
            self.batch.push((name.to_owned(), kind));
        }
        self.batch
            .sort_unstable_by(|one, other| other.0.cmp(&one.0));
        Ok(())
    }
}

fn failed(error: Errno) -> FileError {
    FileError::new("reading a directory", error)
}

/// Whether something went away, or became something else, since it was found.
pub(super) fn vanished(error: &FileError) -> bool {
    error.is_absent()
}

/// The path from the root of something found below `base`.
pub(super) fn below(base: &Path, path: &Path) -> PathBuf {
    if base == Path::new(".") {
        path.to_owned()
    } else {
        base.join(path)
    }
}
