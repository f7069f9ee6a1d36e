//! Moving files, links and directories.

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::caller::Caller;
use super::copy::{Carry, same, unplaceable};
use super::error::FileError;
use super::path::TreePath;
use super::remove::remove_tree;
use super::root::Root;
use super::spot::{LastLink, Spot, kind_of};
use super::temporary::{Existing, rename};

impl Root {
    /// Gives what is at `from` the name `to`, in one step. Links are moved, not followed. To another
    /// file system beneath the root, it is copied and then removed, which is not one step.
    ///
    /// # Errors
    /// See [`FileError`]: what exists at `to` is `EXIST` unless it may be replaced, a directory that is
    /// not empty `NOTEMPTY`; the root `BUSY`; a directory into itself [`FileError::Invalid`].
    pub fn move_to(
        &self,
        from: &TreePath,
        to: &TreePath,
        existing: Existing,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let context = "moving";
        let from = self.spot_below(context, from, LastLink::Keep)?;
        let to = self.spot_below(context, to, LastLink::Keep)?;
        let renamed = {
            let _moment = self.commits();
            if existing == Existing::Replace && same_file(&from, &to) {
                return unlink_other(&from, &to);
            }
            rename(&from.dir, &from.name, &to.dir, &to.name, existing)
        };
        match renamed {
            Err(Errno::XDEV) => self.move_far(&from, &to, existing, caller),
            renamed => renamed.map_err(|error| unplaceable(context, error)),
        }
    }

    fn move_far(
        &self,
        from: &Spot,
        to: &Spot,
        existing: Existing,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let context = "moving to another file system";
        let (temporary, copied) = self.duplicate(from, to, Carry::Identity, caller)?;
        if copied.skipped_total > 0 {
            return Err(FileError::Conflict(
                "a directory that holds FIFOs, sockets or devices cannot be moved to another file system".into(),
            ));
        }
        self.put(temporary, to, existing)?;
        let failed = |error| FileError::new(context, error);
        match from.stat() {
            Ok(stat) if kind_of(&stat) == FileType::Directory => {
                remove_tree(&from.dir, &from.name).map_err(failed)
            }
            Ok(_) => rustix::fs::unlinkat(&from.dir, &from.name, AtFlags::empty())
                .map_err(|error| failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// Whether both are names of one file, between which a rename would leave both.
fn same_file(from: &Spot, to: &Spot) -> bool {
    match (from.stat(), to.stat()) {
        (Ok(one), Ok(other)) => kind_of(&one) != FileType::Directory && same(&one, &other),
        _ => false,
    }
}

/// Takes away one of two names of a file, unless they are the same name.
fn unlink_other(from: &Spot, to: &Spot) -> Result<(), FileError> {
    let failed = |error: Errno| FileError::new("moving", error);
    let one = rustix::fs::fstat(&from.dir).map_err(failed)?;
    let other = rustix::fs::fstat(&to.dir).map_err(failed)?;
    if from.name == to.name && same(&one, &other) {
        return Ok(());
    }
    rustix::fs::unlinkat(&from.dir, &from.name, AtFlags::empty()).map_err(failed)
}
