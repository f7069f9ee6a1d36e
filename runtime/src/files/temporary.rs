//! What is made under a passing name beside its place, and takes the place with a rename.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use cap_std::fs::Dir;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::remove::remove_tree;
use super::spot::open_subdirectory;

const PREFIX: &str = ".agent-sandbox-upload-";

/// Whether a name is that of something on its way to its place.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    id(name).is_some()
}

/// Whether a name is that of something that another run of this program left unfinished.
pub(super) fn is_stale(name: &OsStr) -> bool {
    id(name).is_some_and(|id| !id.eq_ignore_ascii_case(&run_mark()))
}

/// A new passing name.
pub(super) fn temporary_name() -> OsString {
    format!("{PREFIX}{}{:08x}", run_mark(), fastrand::u32(..)).into()
}

/// The part of a passing name that tells which run of this program made it; `None` for other names.
fn id(name: &OsStr) -> Option<&str> {
    name.to_str()?
        .strip_prefix(PREFIX)
        .filter(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|id| id.get(..8))
}

fn run_mark() -> String {
    static MARK: OnceLock<u32> = OnceLock::new();
    format!("{:08x}", MARK.get_or_init(|| fastrand::u32(..)))
}

/// What happens to something that has the name already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// It is replaced, at once: files and links by anything but a directory, empty directories by
    /// directories.
    Replace,
    /// It stays, and the operation fails with `EXIST`.
    Keep,
}

/// Removed with everything in it unless it took its place.
#[derive(Debug)]
pub(super) struct Temporary {
    dir: Dir,
    name: OsString,
    placed: bool,
    /// It is another name of something that may have the place already.
    shared: bool,
}

impl Temporary {
    fn new(dir: &Dir) -> io::Result<Self> {
        Ok(Self {
            dir: dir.try_clone()?,
            name: temporary_name(),
            placed: false,
            shared: false,
        })
    }

    /// An empty file that nobody else can read yet.
    pub(super) fn file(dir: &Dir) -> io::Result<(Self, File)> {
        let this = Self::new(dir)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(dir, &this.name, flags, mode)?;
        Ok((this, file.into()))
    }

    /// An empty directory that nobody else can read yet.
    pub(super) fn directory(dir: &Dir) -> io::Result<(Self, Dir)> {
        let this = Self::new(dir)?;
        rustix::fs::mkdirat(dir, &this.name, Mode::from_raw_mode(0o700))?;
        let made = open_subdirectory(dir, &this.name)?;
        Ok((this, made))
    }

    /// A symbolic link with this text.
    pub(super) fn link(dir: &Dir, target: &Path) -> io::Result<Self> {
        let this = Self::new(dir)?;
        rustix::fs::symlinkat(target, dir, &this.name)?;
        Ok(this)
    }

    /// Another name of a file; a link is not followed.
    pub(super) fn hard_link(dir: &Dir, from: &Dir, name: &OsStr) -> io::Result<Self> {
        let mut this = Self::new(dir)?;
        this.shared = true;
        rustix::fs::linkat(from, name, dir, &this.name, rustix::fs::AtFlags::empty())?;
        Ok(this)
    }

    /// Takes its place under `name` in the same directory.
    pub(super) fn place(mut self, name: &OsStr, existing: Existing) -> rustix::io::Result<()> {
        rename(&self.dir, &self.name, &self.dir, name, existing)?;
        // A rename between two names of the same file leaves both.
        self.placed = !self.shared;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        match remove_tree(&self.dir, &self.name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "cannot remove what was left unfinished"),
        }
    }
}

/// Renames, with or without replacing what has the name. Where the file system cannot check and rename
/// in one step, it is two.
pub(super) fn rename(
    from: &Dir,
    old: &OsStr,
    to: &Dir,
    new: &OsStr,
    existing: Existing,
) -> rustix::io::Result<()> {
    if existing == Existing::Keep {
        match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
            // The file system does not know the flag; or the rename makes no sense, which the plain
            // one finds out as well.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return done,
        }
        if super::stat::look(to, new)?.is_some() {
            return Err(Errno::EXIST);
        }
    }
    rustix::fs::renameat(from, old, to, new)
}
