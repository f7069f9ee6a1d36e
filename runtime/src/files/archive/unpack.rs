//! A tar archive on its way into a directory.
//!
//! Every directory on an entry's path is opened in the one before and never through a link, whether the
//! link came with the archive, was there before or is swapped in meanwhile.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Component, Path};

use bytes::Bytes;
use cap_std::fs::Dir;
use rustix::fs::{FileType, Mode, Timespec, Timestamps};
use rustix::io::Errno;
use tar::EntryType;

use super::super::caller::Caller;
use super::super::copy::unplaceable;
use super::super::error::FileError;
use super::super::path::TreePath;
use super::super::root::Root;
use super::super::spot::{kind_of, listable, open_subdirectory};
use super::super::stat::look;
use super::super::temporary::{Existing, Temporary};
use super::super::walk::MAX_DEPTH;
use super::source::{Entry, Source, sparse};

/// What was stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unpacked {
    /// Regular files.
    pub files: u64,
    /// Directories that the archive names.
    pub directories: u64,
    /// Symbolic and hard links.
    pub links: u64,
    /// The size of the files in bytes.
    pub bytes: u64,
}

/// Why an archive was not stored whole.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}; stored before: {} files, {} directories, {} links", place(.entry.as_deref()), .before.files, .before.directories, .before.links)]
pub struct UnpackError {
    /// The entry it failed at.
    pub entry: Option<String>,
    /// What went wrong.
    pub source: FileError,
    /// What was stored before, and stays.
    pub before: Unpacked,
}

fn place(entry: Option<&str>) -> String {
    entry.map_or_else(String::new, |entry| format!("{entry:?}: "))
}

/// So many directories whose permissions forbid their owner to write can be in an archive.
const MAX_CLOSED: usize = 65_536;

impl Root {
    /// Stores the entries of an archive in the directory at `path`, which is created with its parents.
    /// Existing files and links are replaced one by one, existing directories kept. `limit` is the
    /// largest file in bytes.
    ///
    /// # Errors
    /// See [`UnpackError`]. Refused are entries that are absolute, climb or pass through a link,
    /// hard links to anything but files stored here, FIFOs, devices and sparse files.
    pub fn unpack(
        &self,
        path: &TreePath,
        pieces: impl Iterator<Item = io::Result<Bytes>>,
        limit: Option<u64>,
        caller: &Caller,
    ) -> Result<Unpacked, UnpackError> {
        let begin = |source| UnpackError {
            entry: None,
            source,
            before: Unpacked::default(),
        };
        let context = "opening the directory";
        let base = self.create_directory(context, path).map_err(begin)?;
        let base = listable(&base).map_err(|error| begin(FileError::new(context, error)))?;
        let mut unpacking = Unpacking {
            root: self,
            base,
            open: Vec::new(),
            closed: Vec::new(),
            limit,
            caller,
            done: Unpacked::default(),
        };
        let mut source = Source::new(pieces);
        let mut entry = None;
        match unpacking.run(&mut source, &mut entry) {
            Ok(()) => Ok(unpacking.done),
            Err(source) => Err(UnpackError {
                entry,
                source,
                before: unpacking.done,
            }),
        }
    }
}

struct Unpacking<'a> {
    root: &'a Root,
    base: Dir,
    /// The directories on the way to the last entry, outermost first.
    open: Vec<(OsString, Dir)>,
    /// Directories that get their permissions when everything is in them.
    closed: Vec<(Vec<OsString>, u32)>,
    limit: Option<u64>,
    caller: &'a Caller,
    done: Unpacked,
}

impl Unpacking<'_> {
    fn run<I: Iterator<Item = io::Result<Bytes>>>(
        &mut self,
        source: &mut Source<I>,
        at: &mut Option<String>,
    ) -> Result<(), FileError> {
        while let Some(entry) = source.next().inspect_err(|_| *at = None)? {
            self.caller.check()?;
            *at = Some(entry.path.to_string_lossy().into_owned());
            self.entry(&entry, source)?;
        }
        *at = None;
        for (path, mode) in std::mem::take(&mut self.closed) {
            let dir = self.directory(&path)?;
            rustix::fs::fchmod(dir, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        Ok(())
    }

    fn entry<I: Iterator<Item = io::Result<Bytes>>>(
        &mut self,
        entry: &Entry,
        source: &mut Source<I>,
    ) -> Result<(), FileError> {
        let mut names = names(&entry.path)?;
        if names.len() > MAX_DEPTH {
            return Err(FileError::Invalid(format!(
                "directories are nested more than {MAX_DEPTH} deep"
            )));
        }
        match entry.kind {
            EntryType::Directory => return self.store_directory(names, entry),
            EntryType::Regular | EntryType::Symlink | EntryType::Link => {}
            EntryType::GNUSparse => return Err(sparse()),
            EntryType::Fifo | EntryType::Char | EntryType::Block => return Err(FileError::Special),
            other => {
                return Err(FileError::Invalid(format!(
                    "an entry has type {:?}; expected a file, a directory or a link",
                    char::from(other.as_byte())
                )));
            }
        }
        let Some(name) = names.pop() else {
            return Err(FileError::Invalid(
                "an entry has no name; expected one below the directory".into(),
            ));
        };
        let temporary = match entry.kind {
            EntryType::Symlink => {
                let dir = self.directory(&names)?;
                Temporary::link(dir, &entry.target).map_err(not_stored)?
            }
            EntryType::Link => self.hard_link(&names, &entry.target)?,
            _ => self.file(&names, entry, source)?,
        };
        {
            let _moment = self.root.commits();
            temporary
                .place(&name, Existing::Replace)
                .map_err(|error| unplaceable("storing an entry", error))?;
        }
        match entry.kind {
            EntryType::Regular => {
                self.done.files += 1;
                self.done.bytes += entry.size;
            }
            _ => self.done.links += 1,
        }
        Ok(())
    }

    fn file<I: Iterator<Item = io::Result<Bytes>>>(
        &mut self,
        parents: &[OsString],
        entry: &Entry,
        source: &mut Source<I>,
    ) -> Result<Temporary, FileError> {
        if let Some(limit) = self.limit.filter(|limit| entry.size > *limit) {
            return Err(FileError::TooLarge { limit });
        }
        let caller = self.caller;
        let dir = self.directory(parents)?;
        let (temporary, mut file) = Temporary::file(dir).map_err(not_stored)?;
        while let Some(piece) = source.content()? {
            caller.check()?;
            file.write_all(&piece).map_err(not_stored)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(permitted(entry.mode))).map_err(failed)?;
        let modified = Timespec {
            tv_sec: i64::try_from(entry.modified).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: modified,
            last_modification: modified,
        };
        rustix::fs::futimens(&file, &times).map_err(failed)?;
        Ok(temporary)
    }

    /// Only to what is a regular file beneath the directory.
    fn hard_link(&mut self, parents: &[OsString], target: &Path) -> Result<Temporary, FileError> {
        let mut names = names(target)?;
        let expected = || {
            FileError::Invalid(format!(
                "a hard link points to {}; expected a file that is in the directory already",
                target.display()
            ))
        };
        let name = names.pop().ok_or_else(expected)?;
        let from = self.existing(&names)?.ok_or_else(expected)?;
        match look(&from, &name).map_err(failed)? {
            Some(stat) if kind_of(&stat) == FileType::RegularFile => {}
            _ => return Err(expected()),
        }
        let dir = self.directory(parents)?;
        Temporary::hard_link(dir, &from, &name).map_err(not_stored)
    }

    fn store_directory(&mut self, names: Vec<OsString>, entry: &Entry) -> Result<(), FileError> {
        // The directory itself stays as it is.
        if names.is_empty() {
            return Ok(());
        }
        let mode = permitted(entry.mode);
        let dir = self.directory(&names)?;
        // What is to come into it must be let in.
        rustix::fs::fchmod(dir, Mode::from_raw_mode(mode | 0o700)).map_err(failed)?;
        if mode & 0o700 != 0o700 {
            if self.closed.len() >= MAX_CLOSED {
                return Err(FileError::Invalid(format!(
                    "more than {MAX_CLOSED} directories cannot be written by their owner"
                )));
            }
            self.closed.push((names, mode));
        }
        self.done.directories += 1;
        Ok(())
    }

    /// Opens the directory with these names, making what is missing.
    fn directory(&mut self, names: &[OsString]) -> Result<&Dir, FileError> {
        let known = self
            .open
            .iter()
            .zip(names)
            .take_while(|((known, _), name)| known == *name)
            .count();
        self.open.truncate(known);
        for name in names.get(known..).unwrap_or_default() {
            let above = self.open.last().map_or(&self.base, |(_, dir)| dir);
            let dir = match open_subdirectory(above, name) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed(error)),
                    }
                    open_subdirectory(above, name)
                }
                opened => opened,
            };
            let dir = dir.map_err(through)?;
            self.open.push((name.clone(), dir));
        }
        Ok(self.open.last().map_or(&self.base, |(_, dir)| dir))
    }

    /// Opens the directory with these names if it exists.
    fn existing(&self, names: &[OsString]) -> Result<Option<Dir>, FileError> {
        let mut dir = self.base.try_clone().map_err(not_stored)?;
        for name in names {
            dir = match open_subdirectory(&dir, name) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(through(error)),
            };
        }
        Ok(Some(dir))
    }
}

/// The names of a path that neither is absolute nor climbs.
fn names(path: &Path) -> Result<Vec<OsString>, FileError> {
    let refused = |why| FileError::Invalid(format!("the path {} {why}", path.display()));
    path.components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Ok(OsStr::to_owned(name)),
            Component::ParentDir => Err(refused("contains ..; expected one below the directory")),
            _ => Err(refused("is absolute; expected one below the directory")),
        })
        .collect()
}

/// Only who may do anything anyway brings in files that run with others' rights.
fn permitted(mode: u32) -> u32 {
    if rustix::process::geteuid().is_root() {
        mode
    } else {
        mode & 0o1777
    }
}

fn through(error: Errno) -> FileError {
    match error {
        Errno::NOTDIR | Errno::LOOP => FileError::Conflict(
            "the path passes through a link or file; expected directories".into(),
        ),
        error => failed(error),
    }
}

fn failed(error: Errno) -> FileError {
    FileError::new("storing an entry", error)
}

fn not_stored(error: io::Error) -> FileError {
    FileError::new("storing an entry", error)
}
