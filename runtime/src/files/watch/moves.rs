//! Moves, which the system tells in two halves.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Halves whose others have not come yet.
#[derive(Debug, Default)]
pub(super) struct Moves {
    open: Vec<Half>,
}

#[derive(Debug)]
struct Half {
    cookie: u32,
    path: PathBuf,
    directory: bool,
    /// It was on its way to its place, which nobody needs to know.
    hidden: bool,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many halves wait for their others.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Something went from here.
    pub(super) fn begin(&mut self, cookie: u32, path: PathBuf, directory: bool, hidden: bool) {
        self.open.push(Half {
            cookie,
            path,
            directory,
            hidden,
        });
    }

    /// Where something came from; `None` if that is nobody's business.
    pub(super) fn end(&mut self, cookie: u32) -> Option<PathBuf> {
        let at = self.open.iter().position(|half| half.cookie == cookie)?;
        let half = self.open.remove(at);
        (!half.hidden).then_some(half.path)
    }

    /// What went and came nowhere: its path, and whether it is a directory.
    pub(super) fn take(&mut self) -> Vec<(PathBuf, bool)> {
        told(std::mem::take(&mut self.open))
    }

    /// The same of what was at a path or below it.
    pub(super) fn take_below(&mut self, path: &Path) -> Vec<(PathBuf, bool)> {
        let bytes = path.as_os_str().as_bytes();
        // The bytes say it at once of most, and every new name asks for all halves.
        let inside = |half: &mut Half| {
            half.path.as_os_str().as_bytes().starts_with(bytes) && half.path.starts_with(path)
        };
        told(self.open.extract_if(.., inside))
    }
}

fn told(halves: impl IntoIterator<Item = Half>) -> Vec<(PathBuf, bool)> {
    let halves = halves.into_iter().filter(|half| !half.hidden);
    halves.map(|half| (half.path, half.directory)).collect()
}
