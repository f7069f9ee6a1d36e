//! Finding the directories that are to be watched.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::places::Places;
use super::{Change, Watch};
use crate::files::error::FileError;
use crate::files::spot::open_subdirectory;
use crate::files::stat::Type;
use crate::files::walk::{Step, Walk};

/// So many entries of a new directory are told. Of more, only that there are more.
pub(super) const MAX_FOUND: usize = 4096;
const UNREADABLE: &str = "a directory cannot be read";

impl Watch {
    /// Looks at the whole tree after events were lost. What is not found any more is gone or has left, and
    /// is watched no more; all others get the paths at which they are now.
    pub(super) fn look_anew(&mut self, changes: &mut Vec<Change>) -> Result<(), FileError> {
        self.places.begin_look();
        let mut outcome = self.look(Path::new(""), None);
        if matches!(outcome, Err(FileError::Exhausted(_))) {
            // What is gone may have taken the room.
            self.forget_unseen();
            outcome = self.look(Path::new(""), None);
        }
        // After a look that was broken off, what was not seen may well be there.
        if matches!(outcome, Ok(()) | Err(FileError::Exhausted(_))) {
            self.forget_unseen();
        }
        told(outcome, changes)
    }

    fn forget_unseen(&mut self) {
        let inotify = &self.inotify;
        self.places.forget_unseen(|watch| remove(inotify, watch));
    }

    /// Like [`Self::look`] while the watch runs: limits become an overflow.
    pub(super) fn look_again(
        &mut self,
        path: &Path,
        found: Option<&mut Found>,
        changes: &mut Vec<Change>,
    ) -> Result<(), FileError> {
        told(self.look(path, found), changes)
    }

    /// Makes sure that a directory that was moved is watched itself; whether it was. When it was found it
    /// may have gone on already, and another have had its name.
    pub(super) fn is_watched(&mut self, path: &Path) -> bool {
        let known = self.places.len();
        let dir = self.open(path);
        dir.and_then(|dir| add(&self.inotify, &mut self.places, &dir, path))
            .is_ok_and(|_| self.places.len() == known)
    }

    fn open(&self, path: &Path) -> Result<Dir, FileError> {
        let context = "opening the directory";
        let mut dir = self.base.try_clone();
        for name in path {
            let inner = dir.and_then(|dir| Ok(open_subdirectory(&dir, name)?));
            dir = inner;
        }
        dir.map_err(|error| FileError::new(context, error))
    }

    /// Watches a directory and those below it, and collects what is in them. A directory is watched
    /// before it is read, so that nothing falls between.
    pub(super) fn look(
        &mut self,
        path: &Path,
        mut found: Option<&mut Found>,
    ) -> Result<(), FileError> {
        let dir = self.open(path)?;
        add(&self.inotify, &mut self.places, &dir, path)?;
        let mut walk = Walk::new(&dir, &self.caller)?;
        while let Some(step) = walk.next()? {
            let Step::Found(entry) = step else { continue };
            let path = path.join(&entry.path);
            if let Some(found) = &mut found {
                found.push(&path, entry.kind);
            }
            if entry.kind != FileType::Directory {
                continue;
            }
            match walk.enter(&entry) {
                Ok(()) => {}
                Err(error) if error.is_absent() => continue,
                Err(error) => return Err(error),
            }
            if let Some(dir) = walk.inside() {
                add(&self.inotify, &mut self.places, dir, &path)?;
            }
        }
        Ok(())
    }
}

/// What a look while the watch runs means to the client.
fn told(outcome: Result<(), FileError>, changes: &mut Vec<Change>) -> Result<(), FileError> {
    match outcome {
        Err(FileError::Exhausted(limit)) => {
            changes.push(Change::Overflow(limit.into()));
            Ok(())
        }
        Err(FileError::Cancelled) => Err(FileError::Cancelled),
        // It is gone or moved already, which has an event of its own.
        Err(error) if error.is_absent() => Ok(()),
        Err(_) => {
            changes.push(Change::Overflow(UNREADABLE.into()));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What is in a new directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<(PathBuf, Type)>,
    /// Whether there is more than is told.
    pub(super) more: bool,
}

impl Found {
    fn push(&mut self, path: &Path, kind: FileType) {
        if self.entries.len() < MAX_FOUND {
            self.entries.push((path.to_owned(), Type::from(kind)));
        } else {
            self.more = true;
        }
    }
}

/// Watches one directory more.
pub(super) fn add(
    inotify: &OwnedFd,
    places: &mut Places,
    dir: &Dir,
    path: &Path,
) -> Result<i32, FileError> {
    places.reserve(path)?;
    let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let events = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::EXCL_UNLINK;
    let watch = inotify::add_watch(inotify, name, events).map_err(limited)?;
    places.insert(watch, path.to_owned());
    Ok(watch)
}

/// Watches a directory no more.
pub(super) fn remove(inotify: &OwnedFd, watch: i32) {
    if inotify::remove_watch(inotify, watch).is_err() {
        tracing::debug!("a watch was gone before it was removed");
    }
}

/// What the system refused, by the name of the limit if it is one.
pub(super) fn limited(error: Errno) -> FileError {
    let limit = match error {
        Errno::MFILE => {
            "of watches open at once for this user, fs.inotify.max_user_instances, or of open files"
        }
        Errno::NFILE => "of open files, fs.file-max,",
        Errno::NOSPC => "of watched directories for this user, fs.inotify.max_user_watches,",
        error => return FileError::new("watching the directory", error),
    };
    FileError::Exhausted(format!("the system's limit {limit} is reached"))
}
