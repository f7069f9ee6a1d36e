//! Removing files and directories. Links are removed, never followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::resolve::resolve;
use super::root::Root;
use super::spot::open_subdirectory;
use super::temporary::is_stale;

/// How much may be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// A file, a link or an empty directory.
    Single,
    /// A directory with everything in it, too.
    Recursive,
}

impl Root {
    /// Removes what is at `path`. The root itself is never removed: `Recursive` empties it, `Single`
    /// is refused.
    ///
    /// # Errors
    /// See [`FileError`]; a directory that is not empty is `NOTEMPTY`, the root `BUSY`.
    pub fn remove(&self, path: &TreePath, removal: Removal) -> Result<(), FileError> {
        let context = "removing the path";
        let failed = |error| FileError::new(context, error);
        let opened = self.current()?;
        // All of the path is resolved but its last name, so that a link is not followed.
        let target = match (path.as_path().parent(), path.as_path().file_name()) {
            (Some(parent), Some(name)) => resolve(&opened, &TreePath::relative(parent))?.join(name),
            // It ends with `..`, or is the root.
            _ => resolve(&opened, path)?,
        };
        let Some(name) = target.file_name() else {
            return match removal {
                Removal::Single => Err(FileError::new(context, Errno::BUSY)),
                Removal::Recursive => empty(&opened.dir).map_err(failed),
            };
        };
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = opened
            .dir
            .open_dir(parent.unwrap_or_else(|| Path::new(".")))
            .map_err(failed)?;
        remove_entry(&parent, Path::new(name), removal).map_err(failed)
    }
}

fn remove_entry(parent: &Dir, name: &Path, removal: Removal) -> std::io::Result<()> {
    if !parent.symlink_metadata(name)?.is_dir() {
        return parent.remove_file(name);
    }
    match removal {
        Removal::Single => Ok(remove_empty(parent, name.as_os_str())?),
        Removal::Recursive => Ok(remove_directory(parent, name.as_os_str())?),
    }
}

/// Removes a directory that is empty to everybody who lists it: what a run of this program that was
/// killed left unfinished is removed, too, unless there is anything else.
fn remove_empty(parent: &Dir, name: &OsStr) -> rustix::io::Result<()> {
    if remove_one(parent.as_fd(), name, FileType::Directory)? {
        return Ok(());
    }
    let directory = match open_subdirectory(parent, name) {
        // What is in it cannot be seen.
        Err(Errno::ACCESS) => return Err(Errno::NOTEMPTY),
        opened => opened?,
    };
    let mut stale = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if is_stale(name) {
            stale.push(name.to_owned());
        } else if name != "." && name != ".." {
            return Err(Errno::NOTEMPTY);
        }
    }
    for name in stale {
        if !remove_one(directory.as_fd(), &name, FileType::RegularFile)? {
            remove_directory(&directory, &name)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes whatever has the name, with everything in it.
pub(super) fn remove_tree(parent: &Dir, name: &OsStr) -> std::io::Result<()> {
    remove_entry(parent, Path::new(name), Removal::Recursive)
}

fn empty(directory: &Dir) -> std::io::Result<()> {
    for entry in directory.entries()? {
        let name = PathBuf::from(entry?.file_name());
        match remove_entry(directory, &name, Removal::Recursive) {
            // Somebody else was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// So many levels of a tree are open at once; those above are closed, and opened again on the way up.
const MAX_OPEN: usize = 16;

/// A directory that is being emptied.
struct Level {
    name: OsString,
    identity: (u64, u64),
    /// `None` while too many levels below are open.
    names: Option<rustix::fs::Dir>,
}

/// Removes a directory with everything in it. Depth costs memory for the names only, neither stack nor
/// descriptors.
fn remove_directory(parent: &Dir, name: &OsStr) -> rustix::io::Result<()> {
    if remove_one(parent.as_fd(), name, FileType::Directory)? {
        return Ok(());
    }
    let mut levels = vec![Level::open(parent.as_fd(), name)?];
    while let Some(level) = levels.last_mut() {
        let Some(names) = &mut level.names else {
            return Err(Errno::BUSY);
        };
        if let Some(inner) = next_full(names)? {
            let inner = Level::open(names.fd()?, &inner)?;
            levels.push(inner);
            let above = levels.len().checked_sub(MAX_OPEN + 1);
            if let Some(level) = above.and_then(|above| levels.get_mut(above)) {
                level.names = None;
            }
            continue;
        }
        let Some(done) = levels.pop() else {
            break;
        };
        let above = match levels.last_mut() {
            Some(above) => above.names(&done)?.fd()?,
            None => parent.as_fd(),
        };
        match rustix::fs::unlinkat(above, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes entries up to the first directory that is not empty, and tells its name.
fn next_full(names: &mut rustix::fs::Dir) -> rustix::io::Result<Option<OsString>> {
    while let Some(entry) = names.read() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." && !remove_one(names.fd()?, name, entry.file_type())? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Removes a name, whatever it is; `false` if it is a directory that is not empty. `kind` is a guess.
/// What is gone already is as good as removed.
fn remove_one(dir: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> rustix::io::Result<bool> {
    let mut flags = match kind {
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    let mut guesses = 2;
    loop {
        guesses -= 1;
        match rustix::fs::unlinkat(dir, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(false),
            Err(Errno::ISDIR | Errno::NOTDIR) if guesses > 0 => flags ^= AtFlags::REMOVEDIR,
            Err(error) => return Err(error),
        }
    }
}

impl Level {
    /// Opens a directory by its name in another, never through a link.
    fn open(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        Ok(Self {
            name: name.to_owned(),
            identity: identity(&opened)?,
            names: Some(rustix::fs::Dir::new(opened)?),
        })
    }

    /// The directory and what is left in it; it is opened again through `below`, which was in it.
    fn names(&mut self, below: &Self) -> rustix::io::Result<&rustix::fs::Dir> {
        if self.names.is_none() {
            let Some(below) = &below.names else {
                return Err(Errno::BUSY);
            };
            let opened = Self::open(below.fd()?, OsStr::new(".."))?;
            // Somebody moved what is being removed: this is a directory nobody asked to empty.
            if opened.identity != self.identity {
                return Err(Errno::BUSY);
            }
            self.names = opened.names;
        }
        self.names.as_ref().ok_or(Errno::BUSY)
    }
}

fn identity(directory: impl AsFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::temporary::temporary_name;
    use super::*;

    fn open(path: &Path) -> Dir {
        Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap()
    }

    /// Makes a chain of directories, a file and a link beside each, and returns the innermost.
    fn chain(top: &Dir, levels: usize) -> Dir {
        let mut at = top.try_clone().unwrap();
        for level in 0..levels {
            at.create_dir("d").unwrap();
            if level % 100 == 0 {
                at.write("file", "").unwrap();
                at.symlink("..", "link").unwrap();
            }
            at = at.open_dir("d").unwrap();
        }
        at
    }

    #[test]
    fn trees_of_any_depth_are_removed_on_a_small_stack() {
        let outer = tempfile::tempdir().unwrap();
        let top = open(outer.path());
        chain(&top, 5_000);
        let work = std::thread::Builder::new().stack_size(256 << 10);
        let done = work.spawn(move || remove_tree(&top, OsStr::new("d")).map(|()| top));
        let top = done.unwrap().join().unwrap().unwrap();
        assert!(!top.exists("d"));
        assert!(top.exists("file"));
    }

    #[test]
    fn wide_trees_are_removed_and_links_are_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let outside = outer.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let tree = outer.path().join("tree");
        for one in 0..20 {
            // Deeper than what stays open, with siblings on every level.
            let mut at = tree.join(one.to_string());
            for _ in 0..MAX_OPEN + 4 {
                fs::create_dir_all(at.join("side/full")).unwrap();
                fs::create_dir(at.join("bare")).unwrap();
                fs::write(at.join("file"), "").unwrap();
                symlink(&outside, at.join("link")).unwrap();
                symlink(&outside, at.join("side/full/link")).unwrap();
                at.push("in");
            }
        }
        remove_tree(&open(outer.path()), OsStr::new("tree")).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn what_was_moved_away_leads_nowhere_else() {
        let outer = tempfile::tempdir().unwrap();
        let top = open(outer.path());
        top.create_dir_all("tree/inner").unwrap();
        top.create_dir("other").unwrap();
        let tree = top.try_clone().unwrap();
        let mut above = Level::open(tree.as_fd(), OsStr::new("tree")).unwrap();
        let below = {
            let names = above.names.take().unwrap();
            Level::open(names.fd().unwrap(), OsStr::new("inner")).unwrap()
        };
        top.rename("tree/inner", &top, "other/inner").unwrap();
        assert_eq!(above.names(&below).unwrap_err(), Errno::BUSY);
        top.rename("other/inner", &top, "tree/inner").unwrap();
        above.names(&below).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_does_not_fill_a_directory() {
        let outer = tempfile::tempdir().unwrap();
        let root = Root::open(outer.path()).unwrap();
        let path = TreePath::parse("d").unwrap();
        let directory = outer.path().join("d");
        fs::create_dir(&directory).unwrap();
        let mine = directory.join(temporary_name());
        // The mark comes before the last eight digits: another digit there is another run.
        let mut name = mine.to_str().unwrap().to_owned();
        let last: String = name.drain(name.len() - 8..).collect();
        let other = if name.pop() == Some('0') { '1' } else { '0' };
        name.push(other);
        name.push_str(&last);
        fs::create_dir(&name).unwrap();
        fs::write(Path::new(&name).join("part"), "").unwrap();
        let refused = |path| root.remove(path, Removal::Single).unwrap_err().errno();
        for kept in [&mine, &directory.join("file")] {
            fs::write(kept, "").unwrap();
            assert_eq!(refused(&path), Some(Errno::NOTEMPTY));
            assert!(Path::new(&name).exists() && kept.exists());
            fs::remove_file(kept).unwrap();
        }
        root.remove(&path, Removal::Single).unwrap();
        assert!(!directory.exists());
    }
}
