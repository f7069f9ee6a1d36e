//! Permission bits and owners.

use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::spot::{LastLink, kind_of};

/// Who something belongs to. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owner {
    /// The user's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

impl Owner {
    /// Whether nothing is asked for.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Gives the open file to this owner.
    pub(super) fn apply(self, file: impl std::os::fd::AsFd) -> rustix::io::Result<()> {
        if self.is_none() {
            return Ok(());
        }
        rustix::fs::fchown(file, self.user(), self.group())
    }

    fn user(self) -> Option<Uid> {
        self.uid.map(Uid::from_raw)
    }

    fn group(self) -> Option<Gid> {
        self.gid.map(Gid::from_raw)
    }
}

impl Root {
    /// Changes the owner and then the permission bits of a file or directory. Links are followed.
    ///
    /// # Errors
    /// See [`FileError`]; FIFOs, sockets and devices are [`FileError::Special`].
    pub fn change(
        &self,
        path: &TreePath,
        mode: Option<u32>,
        owner: Owner,
    ) -> Result<(), FileError> {
        let context = "changing the permissions";
        let failed = |error: Errno| FileError::new(context, error);
        // A handle that needs no permission on the file itself, because owners may change files that
        // they cannot read.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match self.spot(context, path, LastLink::Follow)? {
            Some(spot) => rustix::fs::openat(&spot.dir, &spot.name, flags, Mode::empty()),
            None => rustix::fs::openat(&*self.handle()?, ".", flags, Mode::empty()),
        }
        .map_err(failed)?;
        let stat = rustix::fs::fstat(&handle).map_err(failed)?;
        match kind_of(&stat) {
            FileType::RegularFile | FileType::Directory => {}
            // It was swapped in since the path was resolved.
            FileType::Symlink => return Err(failed(Errno::LOOP)),
            _ => return Err(FileError::Special),
        }
        if !owner.is_none() {
            let (user, group) = (owner.user(), owner.group());
            rustix::fs::chownat(&handle, "", user, group, AtFlags::EMPTY_PATH).map_err(failed)?;
        }
        if let Some(mode) = mode {
            // Such handles cannot be changed by themselves before Linux 6.6; this is their name.
            let name = format!("/proc/self/fd/{}", handle.as_raw_fd());
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::chmodat(CWD, name, mode, AtFlags::empty()).map_err(failed)?;
        }
        Ok(())
    }
}
