//! Where the watched directories are, and how many there may be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::files::error::FileError;

/// As many directories can be watched by one watch.
pub const MAX_DIRECTORIES: usize = 16_384;
/// As many by all watches together, and a part of one more for every [`UNIT`] of a long path.
const MAX_IN_ALL: usize = 65_536;
/// Bytes of a path that are no more to hold than a directory.
const UNIT: usize = 256;
/// Each has a queue in the kernel, of which a user has 128 on most systems, for all programs.
const MAX_WATCHES: usize = 32;

/// What all watches of a root share.
#[derive(Clone, Debug)]
pub(in crate::files) struct Room {
    watches: Arc<Semaphore>,
    directories: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MAX_WATCHES, MAX_IN_ALL)
    }
}

/// The directories of one watch by the numbers that the system gave them; paths are relative to the
/// directory where the watch began.
#[derive(Debug)]
pub(super) struct Places {
    known: HashMap<i32, Place>,
    /// The number of the look at the whole tree that is under way, or was the last.
    round: u32,
    /// What the paths in `known` cost of [`Self::share`].
    cost: usize,
    share: OwnedSemaphorePermit,
    _watch: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The look in which it was seen last.
    round: u32,
    /// What took the place of it, or of a directory above it, came from there. Either an empty directory
    /// was replaced, which is gone, or the two changed places, which is told as a move each way.
    replaced_from: Option<Arc<Path>>,
}

impl Room {
    fn new(watches: usize, directories: usize) -> Self {
        Self {
            watches: Arc::new(Semaphore::new(watches)),
            directories: Arc::new(Semaphore::new(directories)),
        }
    }

    /// The places of one more watch.
    ///
    /// # Errors
    /// [`FileError::Exhausted`] when there are too many watches.
    pub(super) fn places(&self) -> Result<Places, FileError> {
        let watch = self.watches.clone().try_acquire_owned().map_err(|_| {
            FileError::Exhausted(format!(
                "{MAX_WATCHES} watches are open already, which is the limit; end one first"
            ))
        })?;
        Ok(Places {
            known: HashMap::new(),
            round: 0,
            cost: 0,
            share: nothing(&self.directories)?,
            _watch: watch,
        })
    }
}

fn nothing(directories: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, FileError> {
    let share = directories.clone().try_acquire_many_owned(0);
    share.map_err(|_| exhausted())
}

fn exhausted() -> FileError {
    FileError::Exhausted(format!(
        "all watches together would be of more than {MAX_IN_ALL} directories, which is the limit"
    ))
}

fn cost(path: &Path) -> usize {
    1 + path.as_os_str().len() / UNIT
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, watch: i32) -> Option<&PathBuf> {
        self.known.get(&watch).map(|place| &place.path)
    }

    /// Makes sure that there is room for one more directory at this path.
    ///
    /// # Errors
    /// [`FileError::Exhausted`] names the limit.
    pub(super) fn reserve(&mut self, path: &Path) -> Result<(), FileError> {
        let mut known = self.known.values();
        if known.len() >= MAX_DIRECTORIES && !known.any(|known| known.path == path) {
            return Err(FileError::Exhausted(format!(
                "one watch is of {MAX_DIRECTORIES} directories at most"
            )));
        }
        self.hold(self.cost + cost(path))
    }

    /// Remembers a directory for which room was made.
    pub(super) fn insert(&mut self, watch: i32, path: PathBuf) {
        self.cost += cost(&path);
        let round = self.round;
        let place = Place {
            path,
            round,
            replaced_from: None,
        };
        if let Some(old) = self.known.insert(watch, place) {
            self.cost = self.cost.saturating_sub(cost(&old.path));
        }
    }

    pub(super) fn remove(&mut self, watch: i32) {
        if let Some(old) = self.known.remove(&watch) {
            self.cost = self.cost.saturating_sub(cost(&old.path));
            self.shrink();
        }
    }

    /// Forgets a directory and what is below it; `each` is told the numbers.
    pub(super) fn forget(&mut self, path: &Path, each: impl FnMut(i32)) {
        self.forget_if(|place| place.path.starts_with(path), each);
    }

    /// A look at the whole tree begins.
    pub(super) fn begin_look(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Forgets the directories that were not seen since the look began, but never the one where the
    /// watch began; `each` is told the numbers.
    pub(super) fn forget_unseen(&mut self, each: impl FnMut(i32)) {
        let round = self.round;
        self.forget_if(
            |place| place.round != round && !place.path.as_os_str().is_empty(),
            each,
        );
    }

    fn forget_if(&mut self, gone: impl Fn(&Place) -> bool, mut each: impl FnMut(i32)) {
        let cost_left = &mut self.cost;
        self.known.retain(|watch, place| {
            let gone = gone(place);
            if gone {
                *cost_left = cost_left.saturating_sub(cost(&place.path));
                each(*watch);
            }
            !gone
        });
        self.shrink();
    }

    /// A directory has got another path, and with it what is below it.
    ///
    /// # Errors
    /// [`FileError::Exhausted`] when the new paths are too long to be held.
    pub(super) fn moved(&mut self, from: &Path, to: &Path) -> Result<(), FileError> {
        let back = |place: &Place| {
            place.replaced_from.as_deref() == Some(to) && place.path.starts_with(from)
        };
        // The other half of an exchange: what was replaced goes, and its replacement, at the same path by
        // now, stays.
        let exchanged = self.known.values().any(back);
        let mut replacer: Option<Arc<Path>> = None;
        for place in self.known.values_mut() {
            if exchanged != back(place) {
                continue;
            }
            if let Ok(rest) = place.path.strip_prefix(from) {
                let path = if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                };
                self.cost = self.cost.saturating_sub(cost(&place.path)) + cost(&path);
                place.path = path;
                place.replaced_from = None;
            } else if place.path.starts_with(to) {
                let from = replacer.get_or_insert_with(|| from.into());
                place.replaced_from = Some(from.clone());
            }
        }
        self.hold(self.cost)
    }

    /// Takes as much as `cost`, if that is not held yet.
    fn hold(&mut self, cost: usize) -> Result<(), FileError> {
        let more = cost.saturating_sub(self.share.num_permits());
        let more = u32::try_from(more).map_err(|_| exhausted())?;
        let directories = self.share.semaphore().clone();
        let share = directories.try_acquire_many_owned(more);
        self.share.merge(share.map_err(|_| exhausted())?);
        Ok(())
    }

    /// Gives back what is not needed.
    fn shrink(&mut self) {
        let unused = self.share.num_permits().saturating_sub(self.cost);
        drop(self.share.split(unused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(places: &mut Places, number: i32, path: &str) -> Result<(), FileError> {
        places.reserve(Path::new(path))?;
        places.insert(number, path.into());
        Ok(())
    }

    #[test]
    fn what_watches_hold_together_is_bounded_and_given_back() {
        let room = Room::new(2, 5);
        let (mut one, mut other) = (room.places().unwrap(), room.places().unwrap());
        let error = room.places().unwrap_err();
        assert!(error.to_string().contains("which is the limit"), "{error}");
        for number in 0..4 {
            add(&mut one, number, &format!("a/{number}")).unwrap();
        }
        add(&mut other, 0, "b").unwrap();
        // The same once more costs nothing.
        one.remove(3);
        add(&mut one, 0, "a/0").unwrap();
        assert_eq!((one.len(), other.len()), (3, 1));
        let more = ["c", "d"].into_iter().zip(1..);
        let error = more
            .map(|(path, number)| add(&mut other, number, path))
            .find(Result::is_err)
            .unwrap();
        assert!(matches!(error, Err(FileError::Exhausted(_))), "{error:?}");
        // A longer path costs more.
        let long = "x".repeat(2 * UNIT);
        assert!(one.moved(Path::new("a/1"), Path::new(&long)).is_err());
        let mut gone = Vec::new();
        one.forget(Path::new(&long), |number| gone.push(number));
        assert_eq!(gone, [1]);
        one.forget(Path::new("a"), |_| {});
        add(&mut other, 2, "d").unwrap();
        drop((one, other));
        assert_eq!(room.directories.available_permits(), 5);
        room.places().unwrap();
    }

    #[test]
    fn one_watch_is_of_so_many_directories() {
        let mut places = Room::default().places().unwrap();
        for number in 0..MAX_DIRECTORIES {
            let number = i32::try_from(number).unwrap();
            add(&mut places, number, &number.to_string()).unwrap();
        }
        let error = add(&mut places, -1, "more").unwrap_err();
        let limit = MAX_DIRECTORIES.to_string();
        assert!(error.to_string().contains(&limit), "{error}");
        // What is watched already can be looked at again.
        add(&mut places, 7, "7").unwrap();
    }
}
