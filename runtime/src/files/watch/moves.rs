//! Moves, which the system tells in two halves.

use std::path::PathBuf;

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
        let half = self.open.swap_remove(at);
        (!half.hidden).then_some(half.path)
    }

    /// What went and came nowhere: its path, and whether it is a directory.
    pub(super) fn take(&mut self) -> Vec<(PathBuf, bool)> {
        self.open
            .drain(..)
            .filter(|half| !half.hidden)
            .map(|half| (half.path, half.directory))
            .collect()
    }
}
