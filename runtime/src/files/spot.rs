//! A name in a directory that was opened beneath the root: what every change works on.
//!
//! The directory is held open and the name is one name, never followed, so nothing that is swapped in
//! afterwards can lead the change elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::resolve::resolve;
use super::root::Root;

/// Whether a link at the end of a path stands for what it points to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LastLink {
    /// It does.
    #[default]
    Follow,
    /// The link itself is meant.
    Keep,
}

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) dir: Dir,
    pub(super) name: OsString,
}

impl Root {
    /// Opens the directory that holds `path`. `None` when the path is the root itself.
    pub(super) fn spot(
        &self,
        context: &'static str,
        path: &TreePath,
        last: LastLink,
    ) -> Result<Option<Spot>, FileError> {
        if let (Some(parent), Some(name)) = (path.as_path().parent(), path.as_path().file_name()) {
            let dir = self.open_directory(context, &TreePath::relative(parent))?;
            let spot = Spot {
                dir,
                name: name.to_owned(),
            };
            let is_link = || matches!(spot.stat(), Ok(stat) if kind_of(&stat) == FileType::Symlink);
            if last == LastLink::Keep || !is_link() {
                return Ok(Some(spot));
            }
        }
        // It ends with `..`, is the root, or is a link that counts for its target.
        let target = resolve(&*self.current()?, path)?;
        let Some(name) = target.file_name() else {
            return Ok(None);
        };
        let parent = target.parent().unwrap_or_else(|| Path::new(""));
        Ok(Some(Spot {
            dir: self.open_directory(context, &TreePath::relative(parent))?,
            name: name.to_owned(),
        }))
    }

    /// Like [`Self::spot`], for what cannot be done to the root.
    pub(super) fn spot_below(
        &self,
        context: &'static str,
        path: &TreePath,
        last: LastLink,
    ) -> Result<Spot, FileError> {
        self.spot(context, path, last)?
            .ok_or_else(|| FileError::new(context, Errno::BUSY))
    }

    /// A handle of a directory. It may not be able to list it.
    pub(super) fn open_directory(
        &self,
        context: &'static str,
        path: &TreePath,
    ) -> Result<Dir, FileError> {
        let relative = path.as_path();
        let here = Path::new(".");
        let path = if relative.as_os_str().is_empty() {
            TreePath::relative(here)
        } else {
            path.clone()
        };
        self.beneath(context, &path, |dir, path| dir.open_dir(path))
    }

    /// Creates a directory and its missing parents, as the umask has it, and opens it.
    pub(super) fn create_directory(
        &self,
        context: &'static str,
        path: &TreePath,
    ) -> Result<Dir, FileError> {
        let opened = self.current()?;
        let target = resolve(&opened, path)?;
        create_all(&opened.dir, &target).map_err(|error| FileError::new(context, error))
    }
}

/// Creates what is missing of a resolved path and opens it. What exists and is no directory is
/// `NOTDIR`.
fn create_all(root: &Dir, target: &Path) -> io::Result<Dir> {
    if target == Path::new(".") || target.as_os_str().is_empty() {
        return root.try_clone();
    }
    root.create_dir_all(target)
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => Errno::NOTDIR.into(),
            _ => error,
        })?;
    root.open_dir(target)
}

impl Spot {
    /// What the name is, a link being a link.
    pub(super) fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The text of the link.
    pub(super) fn read_link(&self) -> rustix::io::Result<PathBuf> {
        read_link(&self.dir, &self.name)
    }
}

/// The text of a link.
pub(super) fn read_link(dir: &Dir, name: &OsStr) -> rustix::io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let text = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(text.into_bytes()).into())
}

/// Opens a regular file for reading, never anything else and never through a link.
pub(super) fn open_regular(dir: &Dir, name: &OsStr) -> Result<(File, Stat), FileError> {
    let context = "opening the file";
    let failed = |error: Errno| FileError::new(context, error);
    // Looked at before it is opened: opening a device acts on it, opening a FIFO wakes its writer.
    let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    regular(context, &found)?;
    // Should it have become a FIFO since, it must not block; a link is refused.
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    regular(context, &stat)?;
    Ok((file.into(), stat))
}

fn regular(context: &'static str, stat: &Stat) -> Result<(), FileError> {
    match kind_of(stat) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(FileError::new(context, Errno::ISDIR)),
        FileType::Symlink => Err(FileError::new(context, Errno::LOOP)),
        _ => Err(FileError::Special),
    }
}

/// Opens a directory by its name, never through a link.
pub(super) fn open_subdirectory(dir: &Dir, name: &OsStr) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(opened.into()))
}

/// A handle of the same directory that can list it.
pub(super) fn listable(dir: &Dir) -> rustix::io::Result<Dir> {
    open_subdirectory(dir, OsStr::new("."))
}

pub(super) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The permission bits, with set-user-id, set-group-id and sticky.
pub(super) fn bits_of(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}
