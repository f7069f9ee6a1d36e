//! What is at a path.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::spot::{LastLink, Spot, bits_of, kind_of};

/// What something is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is.
    pub kind: Type,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Last modification.
    pub modified: SystemTime,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The text of a link.
    pub target: Option<PathBuf>,
    /// As in [`super::OpenFile::version`].
    pub version: String,
}

impl Root {
    /// What is at the path; a link at its end is followed or looked at itself.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn stat(&self, path: &TreePath, last: LastLink) -> Result<Status, FileError> {
        let context = "looking up the path";
        let failed = |error: Errno| FileError::new(context, error);
        if let Some(spot) = self.spot(context, path, last)? {
            return status_at(&spot).map_err(failed);
        }
        let root = self.handle()?;
        let stat = rustix::fs::fstat(&root).map_err(failed)?;
        Ok(Status::new(&stat, None))
    }

    /// Whether there is anything at the path. What a link points to counts, if the link is followed.
    ///
    /// # Errors
    /// See [`FileError`]; that nothing is there is no error.
    pub fn exists(&self, path: &TreePath, last: LastLink) -> Result<bool, FileError> {
        match self.stat(path, last) {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn status_at(spot: &Spot) -> rustix::io::Result<Status> {
    let stat = spot.stat()?;
    let target = match kind_of(&stat) {
        FileType::Symlink => Some(spot.read_link()?),
        _ => None,
    };
    Ok(Status::new(&stat, target))
}

impl Status {
    fn new(stat: &Stat, target: Option<PathBuf>) -> Self {
        Self {
            kind: Type::from(kind_of(stat)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: bits_of(stat),
            modified: modified(stat),
            uid: stat.st_uid,
            gid: stat.st_gid,
            target,
            version: version(stat),
        }
    }
}

impl From<FileType> for Type {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::RegularFile => Self::File,
            _ => Self::Device,
        }
    }
}

impl Type {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Device => "device",
        }
    }
}

/// Changes whenever the content may have: file identity, size and modification time.
pub(super) fn version(stat: &Stat) -> String {
    format!(
        "{:x}-{:x}-{:x}.{:x}",
        stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec
    )
}

pub(super) fn modified(stat: &Stat) -> SystemTime {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs());
    let whole = if stat.st_mtime < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|time| time.checked_add(Duration::new(0, nanos)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a name in an open directory is, a link being a link; `None` when there is nothing.
pub(super) fn look(
    dir: &cap_std::fs::Dir,
    name: &std::ffi::OsStr,
) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
