//! Watching directories for changes.
//!
//! A watch belongs to an open directory, added through its handle, so it never lands outside. The paths
//! told are those at which the directories were found, corrected as they are moved. Whenever something
//! may have been missed, that is told as well.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;

use self::look::{Found, MAX_FOUND, add, limited, remove};
use self::moves::Moves;
pub use self::places::MAX_DIRECTORIES;
use self::places::Places;
pub(super) use self::places::Room;
use super::caller::Caller;
use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::spot::listable;
use super::stat::Type;
use super::temporary::is_temporary;
use super::walk::below;

mod look;
mod moves;
mod places;

/// What a watch covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// The entries of the directory.
    Entries,
    /// Those of every directory below it, too, also of later ones.
    Recursive,
}

/// Something that happened. Paths are relative to the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A new name: something was made, moved in from elsewhere, or put in its place in one step.
    Created {
        /// Its path.
        path: PathBuf,
        /// What it is, as far as the system tells.
        directory: bool,
    },
    /// The content of a file.
    Modified(PathBuf),
    /// A name that is gone.
    Removed(PathBuf),
    /// Another name for the same.
    Moved {
        /// The old path.
        from: PathBuf,
        /// The new path.
        path: PathBuf,
    },
    /// Permissions, the owner or times.
    Attributes(PathBuf),
    /// Changes were missed; what is known must be looked up anew.
    Overflow(Cow<'static, str>),
}

/// What came of a look at what happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// There is nothing more for now.
    Empty,
    /// There may be more already.
    More,
    /// The directory itself is gone, or is no longer where it was.
    Ended,
}

/// A watch on a directory.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    base: Dir,
    path: PathBuf,
    depth: Depth,
    /// The watch of the directory itself.
    own: i32,
    places: Places,
    /// What was read and not told yet.
    events: VecDeque<Event>,
    moves: Moves,
    /// What was found by looking, whose own events may still come.
    found: HashSet<PathBuf>,
    caller: Caller,
}

/// So many changes are read, and told, at a time.
const BATCH: usize = 4096;
/// How long the second half of a move may take to follow the first, in nanoseconds.
const PATIENCE: i64 = 10_000_000;
const FASTER: &str = "changes came faster than they were read";
const MORE: &str = "more appeared at once than is told";

/// What the system told.
#[derive(Debug)]
struct Event {
    watch: i32,
    what: ReadFlags,
    cookie: u32,
    name: OsString,
}

impl Event {
    fn of(event: &inotify::Event<'_>) -> Self {
        let name = event.file_name().map(std::ffi::CStr::to_bytes);
        Self {
            watch: event.wd(),
            what: event.events(),
            cookie: event.cookie(),
            name: OsStr::from_bytes(name.unwrap_or_default()).to_owned(),
        }
    }
}

impl Root {
    /// Begins to watch a directory.
    ///
    /// # Errors
    /// See [`FileError`]: what is no directory is [`FileError::Invalid`], too many directories or
    /// watches are [`FileError::Exhausted`], which names the limit. Nothing is watched in part.
    pub fn watch(
        &self,
        path: &TreePath,
        depth: Depth,
        caller: &Caller,
    ) -> Result<Watch, FileError> {
        let failed = |error: Errno| FileError::new("opening the directory", error);
        if !self.metadata(path)?.is_dir() {
            return Err(FileError::Invalid(
                "the path is not a directory; expected a directory to watch".into(),
            ));
        }
        let base = self.open_directory("opening the directory", path)?;
        let base = listable(&base).map_err(failed)?;
        let mut places = self.watches().places()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.map_err(limited)?;
        let own = add(&inotify, &mut places, &base, Path::new(""))?;
        let mut watch = Watch {
            inotify,
            base,
            path: path.as_path().to_owned(),
            depth,
            own,
            places,
            events: VecDeque::new(),
            moves: Moves::default(),
            found: HashSet::new(),
            caller: caller.clone(),
        };
        if depth == Depth::Recursive {
            watch.look(Path::new(""), None)?;
        }
        Ok(watch)
    }
}

impl Watch {
    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.places.len()
    }

    /// A descriptor that is readable when something has happened.
    ///
    /// # Errors
    /// What the system says.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.try_clone()
    }

    /// Collects what happened since the last time.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn drain(&mut self, changes: &mut Vec<Change>) -> Result<Drained, FileError> {
        loop {
            self.caller.check()?;
            let full = !self.events.is_empty() || self.read()?;
            while let Some(event) = self.events.pop_front() {
                if self.tell(&event, changes)? == Drained::Ended {
                    return Ok(Drained::Ended);
                }
                if changes.len() >= BATCH {
                    return Ok(Drained::More);
                }
            }
            // Nobody waits for so many other halves.
            if self.moves.len() >= BATCH {
                self.leave(changes);
            }
            if full {
                return Ok(Drained::More);
            }
            // Half a move: the other half is on its way, or the thing has left.
            if self.moves.is_empty() || !self.more_follows() {
                break;
            }
        }
        self.leave(changes);
        self.found.clear();
        Ok(Drained::Empty)
    }

    /// What went and came nowhere has left.
    fn leave(&mut self, changes: &mut Vec<Change>) {
        for (path, directory) in self.moves.take() {
            self.left(&path, directory, changes);
        }
    }

    /// A name that is taken anew, or goes on to another, is told as gone before that, and so is what
    /// was below it. Later it would be taken for what is there now.
    fn settle(&mut self, path: &Path, changes: &mut Vec<Change>) {
        for (path, directory) in self.moves.take_below(path) {
            self.left(&path, directory, changes);
        }
    }

    /// Of what comes after this, the events tell.
    fn unfind(&mut self, path: &Path, directory: bool) {
        self.found.remove(path);
        if directory {
            self.found.retain(|found| !found.starts_with(path));
        }
    }

    /// Reads events; whether there may be more.
    fn read(&mut self) -> Result<bool, FileError> {
        let events = &mut self.events;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while events.len() < BATCH {
            match reader.next() {
                Ok(event) => events.push_back(Event::of(&event)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(FileError::new("reading the watch", error)),
            }
        }
        // What is in the buffer must not be lost.
        while !reader.is_buffer_empty() {
            let Ok(event) = reader.next() else { break };
            events.push_back(Event::of(&event));
        }
        Ok(true)
    }

    fn more_follows(&self) -> bool {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: PATIENCE,
        };
        let mut descriptors = [PollFd::new(&self.inotify, PollFlags::IN)];
        poll(&mut descriptors, Some(&patience)).is_ok_and(|ready| ready > 0)
    }

    fn tell(&mut self, event: &Event, changes: &mut Vec<Change>) -> Result<Drained, FileError> {
        let what = event.what;
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            changes.push(Change::Overflow(FASTER.into()));
            self.moves = Moves::default();
            // New directories may be among what was missed.
            if self.depth == Depth::Recursive {
                self.look_anew(changes)?;
            }
            return Ok(Drained::More);
        }
        let Some(place) = self.places.get(event.watch).cloned() else {
            return Ok(Drained::More);
        };
        if event.watch == self.own
            && what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT)
        {
            changes.push(Change::Removed(self.path.clone()));
            return Ok(Drained::Ended);
        }
        if what.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
            self.places.remove(event.watch);
            return Ok(Drained::More);
        }
        if event.name.is_empty() {
            return Ok(Drained::More);
        }
        let path = place.join(&event.name);
        let directory = what.contains(ReadFlags::ISDIR);
        let hidden = is_temporary(&event.name);
        if what.contains(ReadFlags::MOVED_FROM) {
            self.unfind(&path, directory);
            self.moves.begin(event.cookie, path, directory, hidden);
        } else if what.contains(ReadFlags::MOVED_TO) {
            let from = self.moves.end(event.cookie);
            self.settle(&path, changes);
            match from {
                Some(from) if !hidden => {
                    self.settle(&from, changes);
                    changes.push(Change::Moved {
                        from: self.whole(&from),
                        path: self.whole(&path),
                    });
                    if directory && let Err(error) = self.places.moved(&from, &path) {
                        changes.push(Change::Overflow(error.to_string().into()));
                        self.forget(&path);
                    } else if directory && self.depth == Depth::Recursive && !self.is_watched(&path)
                    {
                        self.appeared(&path, changes)?;
                    }
                }
                _ if hidden => {}
                _ => self.arrived(&path, directory, changes)?,
            }
        } else if hidden {
            // It is told when it takes its place.
        } else if what.contains(ReadFlags::CREATE) {
            self.settle(&path, changes);
            if !self.found.remove(&path) {
                self.arrived(&path, directory, changes)?;
            }
        } else if what.contains(ReadFlags::DELETE) {
            self.found.remove(&path);
            changes.push(Change::Removed(self.whole(&path)));
        } else if what.contains(ReadFlags::MODIFY) {
            once(Change::Modified(self.whole(&path)), changes);
        } else if what.contains(ReadFlags::ATTRIB) {
            once(Change::Attributes(self.whole(&path)), changes);
        }
        Ok(Drained::More)
    }

    fn whole(&self, path: &Path) -> PathBuf {
        below(&self.path, path)
    }

    /// A new name, with everything that is below it by now.
    fn arrived(
        &mut self,
        path: &Path,
        directory: bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), FileError> {
        changes.push(Change::Created {
            path: self.whole(path),
            directory,
        });
        if directory && self.depth == Depth::Recursive {
            self.appeared(path, changes)?;
        }
        Ok(())
    }

    /// Watches a directory that was not watched, and tells what is below it.
    fn appeared(&mut self, path: &Path, changes: &mut Vec<Change>) -> Result<(), FileError> {
        let mut found = Found::default();
        self.look_again(path, Some(&mut found), changes)?;
        for (path, kind) in found.entries {
            changes.push(Change::Created {
                path: self.whole(&path),
                directory: kind == Type::Directory,
            });
            // Of what is not remembered, the event tells once more.
            if self.found.len() < MAX_FOUND {
                self.found.insert(path);
            }
        }
        if found.more {
            changes.push(Change::Overflow(MORE.into()));
        }
        Ok(())
    }

    /// Something was moved to where nobody looks.
    fn left(&mut self, path: &Path, directory: bool, changes: &mut Vec<Change>) {
        changes.push(Change::Removed(self.whole(path)));
        if directory {
            self.forget(path);
        }
    }

    /// Watches a directory and those below it no more.
    fn forget(&mut self, path: &Path) {
        let inotify = &self.inotify;
        self.places.forget(path, |watch| remove(inotify, watch));
    }
}

/// The same once more says nothing new.
fn once(change: Change, changes: &mut Vec<Change>) {
    if changes.last() != Some(&change) {
        changes.push(change);
    }
}

#[cfg(test)]
mod tests;
