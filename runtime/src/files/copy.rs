//! Copying files and directory trees.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::caller::Caller;
use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::spot::{
    LastLink, Spot, bits_of, kind_of, listable, open_regular, open_subdirectory, read_link,
};
use super::temporary::{Existing, Temporary};
use super::walk::{Step, Walk, vanished};

/// What was copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Copied {
    /// Regular files.
    pub files: u64,
    /// Directories, the topmost included.
    pub directories: u64,
    /// Symbolic links, which are copied as links.
    pub links: u64,
    /// The size of the files in bytes.
    pub bytes: u64,
    /// FIFOs, sockets and devices, which are not copied: the first of them, relative to the source.
    pub skipped: Vec<PathBuf>,
    /// How many were not copied in all.
    pub skipped_total: u64,
}

/// What of a file is carried over besides content and permission bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Carry {
    /// Nothing: the copy is new and belongs to who made it.
    Nothing,
    /// Times, and the owner where that is allowed: the copy stands for the original.
    Identity,
}

/// So many of the skipped names are told.
const MAX_NAMED: usize = 100;
/// How much is copied between two looks at whether anybody still waits.
const CHUNK: usize = 8 << 20;

impl Root {
    /// Copies a file, a link or a directory with everything in it. It appears under its name when it is
    /// complete; when the copy fails, nothing is left of it. A link at the end of `from` is followed.
    ///
    /// # Errors
    /// See [`FileError`]: what exists at `to` is `EXIST` unless it may be replaced, a directory that is
    /// not empty `NOTEMPTY`; a FIFO, socket or device [`FileError::Special`]; a directory into itself
    /// [`FileError::Invalid`].
    pub fn copy(
        &self,
        from: &TreePath,
        to: &TreePath,
        existing: Existing,
        caller: &Caller,
    ) -> Result<Copied, FileError> {
        let context = "copying";
        let from = self.spot_below(context, from, LastLink::Follow)?;
        let to = self.spot_below(context, to, LastLink::Keep)?;
        let (temporary, copied) = self.duplicate(&from, &to, Carry::Nothing, caller)?;
        self.put(temporary, &to, existing)?;
        Ok(copied)
    }

    /// Copies to a passing name beside `to`.
    pub(super) fn duplicate(
        &self,
        from: &Spot,
        to: &Spot,
        carry: Carry,
        caller: &Caller,
    ) -> Result<(Temporary, Copied), FileError> {
        let failed = |error: io::Error| FileError::new("copying", error);
        let stat = from.stat().map_err(|error| failed(error.into()))?;
        let work = Copier { carry, caller };
        let mut copied = Copied::default();
        let temporary = match kind_of(&stat) {
            FileType::RegularFile => {
                let (temporary, file) = Temporary::file(&to.dir).map_err(failed)?;
                copied.bytes = work.file(&from.dir, &from.name, &file)?;
                copied.files = 1;
                temporary
            }
            FileType::Symlink => {
                let target = from.read_link().map_err(|error| failed(error.into()))?;
                copied.links = 1;
                Temporary::link(&to.dir, &target).map_err(failed)?
            }
            FileType::Directory => {
                self.not_into_itself(&stat, &to.dir)?;
                let source = open_subdirectory(&from.dir, &from.name)
                    .map_err(|error| failed(error.into()))?;
                let (temporary, target) = Temporary::directory(&to.dir).map_err(failed)?;
                work.tree(&source, target, &stat, &mut copied)?;
                temporary
            }
            _ => return Err(FileError::Special),
        };
        Ok((temporary, copied))
    }

    /// Lets what was copied take its place.
    pub(super) fn put(
        &self,
        temporary: Temporary,
        to: &Spot,
        existing: Existing,
    ) -> Result<(), FileError> {
        let _moment = self.commits();
        temporary
            .place(&to.name, existing)
            .map_err(|error| unplaceable("putting the copy in its place", error))
    }

    /// Refuses a target that is the source directory or anywhere in it.
    fn not_into_itself(&self, source: &Stat, target: &Dir) -> Result<(), FileError> {
        let failed = |error: Errno| FileError::new("copying", error);
        let top = rustix::fs::fstat(&*self.handle()?).map_err(failed)?;
        let mut at = listable(target).map_err(failed)?;
        loop {
            let stat = rustix::fs::fstat(&at).map_err(failed)?;
            if same(&stat, source) {
                return Err(FileError::Invalid(
                    "a directory cannot be copied or moved into itself".into(),
                ));
            }
            if same(&stat, &top) {
                return Ok(());
            }
            at = open_subdirectory(&at, OsStr::new("..")).map_err(failed)?;
            let above = rustix::fs::fstat(&at).map_err(failed)?;
            if same(&above, &stat) {
                // The top of everything: the target was moved out of the root meanwhile.
                return Err(FileError::Escapes);
            }
        }
    }
}

/// Whether both are the same thing.
pub(super) fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Why something cannot take a name, when the reason is what has the name already.
pub(super) fn unplaceable(context: &'static str, error: Errno) -> FileError {
    match error {
        Errno::ISDIR => FileError::Conflict("a directory is at the new path".into()),
        Errno::NOTDIR => {
            FileError::Conflict("something that is not a directory is at the new path".into())
        }
        Errno::INVAL => {
            FileError::Invalid("a directory cannot be copied or moved into itself".into())
        }
        error => FileError::new(context, error),
    }
}

struct Copier<'a> {
    carry: Carry,
    caller: &'a Caller,
}

impl Copier<'_> {
    fn file(&self, dir: &Dir, name: &OsStr, target: &File) -> Result<u64, FileError> {
        let (source, stat) = open_regular(dir, name)?;
        let bytes = self.content(&source, target)?;
        self.finish(target, &stat)?;
        Ok(bytes)
    }

    /// Within the kernel where that works, which also shares the blocks where the file system can.
    fn content(&self, source: &File, target: &File) -> Result<u64, FileError> {
        let failed = |error: io::Error| FileError::new("copying the file", error);
        let mut copied = 0;
        loop {
            self.caller.check()?;
            match rustix::fs::copy_file_range(source, None, target, None, CHUNK) {
                Err(Errno::INTR) => {}
                // Also what files of /proc answer, whose size is 0: the second way finds their end.
                Ok(0)
                | Err(
                    Errno::XDEV
                    | Errno::INVAL
                    | Errno::NOSYS
                    | Errno::OPNOTSUPP
                    | Errno::PERM
                    | Errno::IO,
                ) => break,
                Ok(count) => copied += count as u64,
                Err(error) => return Err(failed(error.into())),
            }
        }
        let (mut source, mut target) = (source, target);
        let mut buffer = vec![0; 128 << 10];
        loop {
            self.caller.check()?;
            match source.read(&mut buffer) {
                Ok(0) => return Ok(copied),
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    target.write_all(bytes).map_err(failed)?;
                    copied += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The mode comes last, because a change of the owner may take bits away.
    fn finish(&self, target: impl std::os::fd::AsFd, stat: &Stat) -> Result<(), FileError> {
        let failed = |error: Errno| FileError::new("copying the permissions", error);
        let mut bits = bits_of(stat);
        if self.carry == Carry::Identity {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            match rustix::fs::fchown(&target, Some(uid), Some(gid)) {
                Ok(()) => {}
                // It is another's now, who must not run it with this user's rights.
                Err(Errno::PERM) => bits &= 0o1777,
                Err(error) => return Err(failed(error)),
            }
        } else {
            bits &= 0o1777;
        }
        rustix::fs::fchmod(&target, Mode::from_raw_mode(bits)).map_err(failed)?;
        if self.carry == Carry::Identity {
            rustix::fs::futimens(&target, &times(stat)).map_err(failed)?;
        }
        Ok(())
    }

    fn tree(
        &self,
        source: &Dir,
        target: Dir,
        stat: &Stat,
        copied: &mut Copied,
    ) -> Result<(), FileError> {
        let failed = |error: Errno| FileError::new("copying the directory", error);
        copied.directories += 1;
        let mut walk = Walk::new(source, self.caller)?;
        // Where the copies go, innermost last, with what the directories must look like in the end.
        let mut into = vec![(target, *stat)];
        while let Some(step) = walk.next()? {
            let Step::Found(found) = step else {
                if let Some((done, stat)) = into.pop() {
                    self.finish(&done, &stat)?;
                }
                continue;
            };
            let Some((target, _)) = into.last() else {
                break;
            };
            match found.kind {
                FileType::Directory => {
                    let stat =
                        rustix::fs::statat(&*found.dir, &found.name, AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(failed)?;
                    let mode = Mode::from_raw_mode(0o700);
                    rustix::fs::mkdirat(target, &found.name, mode).map_err(failed)?;
                    let inner = open_subdirectory(target, &found.name).map_err(failed)?;
                    walk.enter(&found)?;
                    into.push((inner, stat));
                    copied.directories += 1;
                }
                FileType::RegularFile => match self.file_into(&found.dir, target, &found.name) {
                    Ok(bytes) => {
                        copied.files += 1;
                        copied.bytes += bytes;
                    }
                    Err(error) if vanished(&error) => {}
                    Err(error) => return Err(error),
                },
                FileType::Symlink => match read_link(&found.dir, &found.name) {
                    Ok(text) => {
                        rustix::fs::symlinkat(&text, target, &found.name).map_err(failed)?;
                        copied.links += 1;
                    }
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error)),
                },
                _ => copied.skip(&found.path),
            }
        }
        match into.pop() {
            Some((top, stat)) => self.finish(&top, &stat),
            None => Ok(()),
        }
    }

    fn file_into(&self, from: &Dir, to: &Dir, name: &OsStr) -> Result<u64, FileError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| FileError::new("copying the file", error))?;
        let copied = self.file(from, name, &target.into());
        // What vanished before it was opened leaves nothing.
        if copied.is_err() && rustix::fs::unlinkat(to, name, AtFlags::empty()).is_err() {
            tracing::debug!("the rest of a broken copy was gone already");
        }
        copied
    }
}

impl Copied {
    fn skip(&mut self, path: &Path) {
        self.skipped_total += 1;
        if self.skipped.len() < MAX_NAMED {
            self.skipped.push(path.to_owned());
        }
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
