//! What the search and the replacement of text have in common: which files, and their content.

use std::ffi::OsStr;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::{FileType, Stat};

use super::caller::Caller;
use super::error::FileError;
use super::glob::Globs;
use super::path::TreePath;
use super::root::Root;
use super::spot::{LastLink, kind_of, open_regular};
use super::walk::below;

/// Which files below a path are meant. A path that is a file means that file.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Only files that match, unless empty.
    pub only: Globs,
    /// Neither files nor directories that match.
    pub except: Globs,
}

/// A file's content, or why there is none.
#[derive(Debug)]
pub(super) enum Content {
    Text(Stat),
    /// It has a NUL byte near its beginning.
    Binary,
    /// It is larger than the limit.
    Large,
}

/// Looked for NUL bytes.
const LOOKED_AT: usize = 8 << 10;

impl Root {
    /// Visits the files of a selection. Answers how many directories could not be read.
    pub(super) fn select(
        &self,
        path: &TreePath,
        selection: &Selection,
        caller: &Caller,
        mut visit: impl FnMut(&Dir, &OsStr, PathBuf) -> ControlFlow<()>,
    ) -> Result<u64, FileError> {
        if !self.metadata(path)?.is_dir() {
            let spot = self.spot_below("opening the file", path, LastLink::Follow)?;
            if let Ok(stat) = spot.stat()
                && !matches!(kind_of(&stat), FileType::RegularFile)
            {
                return Err(FileError::Special);
            }
            // Where it ends there is nothing more to visit.
            let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
                visit(&spot.dir, &spot.name, path.as_path().to_owned());
            return Ok(0);
        }
        let included = |inside: &Path| {
            (selection.only.is_empty() || selection.only.matches(inside))
                && !selection.except.matches(inside)
        };
        self.traverse(
            path,
            caller,
            |inside| !selection.except.matches(inside),
            |found| {
                if found.kind != FileType::RegularFile || !included(&found.path) {
                    return ControlFlow::Continue(());
                }
                visit(&found.dir, &found.name, below(path.as_path(), &found.path))
            },
        )
    }
}

/// Reads a regular file whole, if it is text and not larger than `limit` bytes.
pub(super) fn read_text(
    dir: &Dir,
    name: &OsStr,
    buffer: &mut Vec<u8>,
    limit: u64,
) -> Result<Content, FileError> {
    let (mut file, stat) = open_regular(dir, name)?;
    let failed = |error| FileError::new("reading the file", error);
    buffer.clear();
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
        return Ok(Content::Large);
    }
    let mut head = (&mut file).take(LOOKED_AT as u64);
    head.read_to_end(buffer).map_err(failed)?;
    if memchr::memchr(0, buffer).is_some() {
        return Ok(Content::Binary);
    }
    let rest = (limit + 1).saturating_sub(buffer.len() as u64);
    file.take(rest).read_to_end(buffer).map_err(failed)?;
    if buffer.len() as u64 > limit {
        return Ok(Content::Large);
    }
    Ok(Content::Text(stat))
}
