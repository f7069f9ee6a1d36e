//! The root directory's handle, and running operations beneath it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, Metadata};
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{FileError, is_escape};
use super::names::Room;
use super::path::TreePath;
use super::resolve::resolve;

/// Why the root directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The path is empty.
    #[error("the root directory is empty; name a directory, such as /workspace")]
    Empty,
    /// There is something else at the path.
    #[error("the root directory {} is not a directory; name a directory or a path to create", path.display())]
    NotADirectory {
        /// The path asked for.
        path: PathBuf,
    },
    /// It cannot be created or opened.
    #[error(
        "cannot {action} the root directory {}; create it with permissions for the user this program runs as",
        path.display()
    )]
    System {
        /// What was tried.
        action: &'static str,
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The tree's root. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Root {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    names: Names,
    opened: RwLock<Arc<Opened>>,
    commits: Mutex<()>,
    room: Room,
    watches: super::watch::Room,
}

/// The root's path as configured and with its links resolved: links inside, and clients, may use either.
type Names = Arc<[PathBuf; 2]>;

/// The directory the root's path named when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) dir: Dir,
    pub(super) names: Names,
    handle: Arc<OwnedFd>,
    identity: (u64, u64),
    /// The user it belongs to.
    owner: u32,
}

/// What opens directories and follows no link.
const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Root {
    /// Opens the directory at `path`, creating it and its parents (mode 0755) if they are missing.
    ///
    /// # Errors
    /// See [`RootError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RootError> {
        let path = path.into();
        if path.as_os_str().is_empty() {
            return Err(RootError::Empty);
        }
        let failed = |action| {
            let path = path.clone();
            move |source| RootError::System {
                action,
                path,
                source,
            }
        };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(RootError::NotADirectory { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&path)
                .map_err(failed("create"))?,
            Err(error) => return Err(failed("open")(error)),
        }
        let names =
            std::path::absolute(&path).and_then(|name| Ok([name, fs::canonicalize(&path)?]));
        let names = Names::from(names.map_err(failed("open"))?);
        let opened = Opened::open(names.clone()).map_err(failed("open"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                names,
                opened: RwLock::new(Arc::new(opened)),
                commits: Mutex::new(()),
                room: Room::default(),
                watches: super::watch::Room::default(),
            }),
        })
    }

    /// The path as configured.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A path that may also be absolute and name the root directory itself: with the root at
    /// `/workspace`, `/workspace/a` and `/a` are the same, `/workspaces/a` is not.
    ///
    /// # Errors
    /// A NUL byte.
    pub fn parse_absolute(&self, text: &OsStr) -> Result<TreePath, FileError> {
        // Several leading slashes are one.
        let path: PathBuf = Path::new(text).components().collect();
        let inside = self
            .inner
            .names
            .iter()
            .find_map(|name| path.strip_prefix(name).ok());
        TreePath::parse(inside.unwrap_or(&path))
    }

    /// A handle of the root directory, for the working directory of commands.
    ///
    /// # Errors
    /// When the directory is gone.
    pub fn handle(&self) -> Result<Arc<OwnedFd>, FileError> {
        Ok(self.current()?.handle.clone())
    }

    /// A handle of a directory, for the working directory of a command.
    ///
    /// # Errors
    /// See [`FileError`]; a file is `NOTDIR`.
    pub fn directory(&self, path: &TreePath) -> Result<Arc<OwnedFd>, FileError> {
        let dir = self.beneath("opening the directory", path, |dir, path| {
            dir.open_dir(path)
        })?;
        Ok(Arc::new(dir.into_std_file().into()))
    }

    /// What the path is: links are followed.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn metadata(&self, path: &TreePath) -> Result<Metadata, FileError> {
        self.beneath("looking up the path", path, |dir, path| dir.metadata(path))
    }

    /// Runs `operation` on `path` beneath the root.
    pub(super) fn beneath<T>(
        &self,
        context: &'static str,
        path: &TreePath,
        operation: impl Fn(&Dir, &Path) -> io::Result<T>,
    ) -> Result<T, FileError> {
        let opened = self.current()?;
        // With `..` the kernel would insist that everything before exists; without, it decides
        // alone unless a link leaves the root, which may come back.
        if !path.climbs() {
            match operation(&opened.dir, path.as_path()) {
                Err(error) if is_escape(&error) => {}
                done => return done.map_err(|error| FileError::new(context, error)),
            }
        }
        let resolved = resolve(&opened, path)?;
        operation(&opened.dir, &resolved).map_err(|error| FileError::new(context, error))
    }

    /// What listings share.
    pub(super) fn room(&self) -> &Room {
        &self.inner.room
    }

    /// What watches share.
    pub(super) fn watches(&self) -> &super::watch::Room {
        &self.inner.watches
    }

    /// Held for the moment in which something takes its place, so that looking at what is there and
    /// replacing it are one step to everybody who comes through this program.
    pub(super) fn commits(&self) -> MutexGuard<'_, ()> {
        self.inner.commits.lock()
    }

    /// The directory at the root's place now. It is opened again when that changed: an agent that
    /// removes and makes its workspace anew goes on working in the new one. The place is the path that
    /// was found at the start, without links, and the new directory must belong to the same user:
    /// whoever may write to a parent directory must not choose what this program serves.
    pub(super) fn current(&self) -> Result<Arc<Opened>, FileError> {
        let failed = |error| FileError::new("opening the root directory", error);
        let opened = self.inner.opened.read().clone();
        let [_, real] = &*opened.names;
        let now = fs::metadata(real).map_err(failed)?;
        if opened.identity == (now.dev(), now.ino()) {
            return Ok(opened);
        }
        let replaced = || FileError::Conflict("the root directory was replaced".into());
        let anew = match Opened::open(opened.names.clone()) {
            Ok(anew) => anew,
            Err(error) => {
                return Err(match Errno::from_io_error(&error) {
                    Some(Errno::LOOP | Errno::NOTDIR) => replaced(),
                    _ => failed(error),
                });
            }
        };
        if anew.owner != opened.owner {
            return Err(replaced());
        }
        let anew = Arc::new(anew);
        *self.inner.opened.write() = anew.clone();
        Ok(anew)
    }
}

impl Opened {
    /// Opens the directory at the second of the names, which has no links.
    fn open(names: Names) -> io::Result<Self> {
        let [_, real] = &*names;
        let dir = Dir::from_std_file(open_without_links(real)?.into());
        let handle = dir.try_clone()?.into_std_file();
        let metadata = handle.metadata()?;
        Ok(Self {
            dir,
            names,
            identity: (metadata.dev(), metadata.ino()),
            owner: metadata.uid(),
            handle: Arc::new(handle.into()),
        })
    }
}

/// Opens the directory at an absolute path if no link is on it; a link is `LOOP` or `NOTDIR`.
fn open_without_links(path: &Path) -> rustix::io::Result<OwnedFd> {
    let (flags, mode) = (OFlags::RDONLY | DIRECTORY, Mode::empty());
    match rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS) {
        // The kernel is too old, or a filter of calls does not know it.
        Err(Errno::NOSYS | Errno::PERM) => open_by_names(path),
        opened => opened,
    }
}

/// The same, name by name.
fn open_by_names(path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut at = rustix::fs::open("/", OFlags::PATH | DIRECTORY, Mode::empty())?;
    for name in path.components() {
        match name {
            Component::RootDir => {}
            Component::Normal(name) => {
                at = rustix::fs::openat(&at, name, OFlags::PATH | DIRECTORY, Mode::empty())?;
            }
            Component::Prefix(_) | Component::CurDir | Component::ParentDir => {
                return Err(Errno::INVAL);
            }
        }
    }
    rustix::fs::openat(&at, ".", OFlags::RDONLY | DIRECTORY, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn look(root: &Root) -> Result<(), FileError> {
        root.metadata(&TreePath::parse("f")?).map(drop)
    }

    #[test]
    fn a_root_that_became_a_link_is_not_served() {
        for level in ["parent/root", "parent"] {
            let outer = tempfile::tempdir().unwrap();
            let root = Root::open(outer.path().join("parent/root")).unwrap();
            fs::create_dir_all(outer.path().join("other/root")).unwrap();
            fs::write(outer.path().join("other/f"), "").unwrap();
            fs::write(outer.path().join("other/root/f"), "").unwrap();
            let place = outer.path().join(level);
            fs::remove_dir_all(&place).unwrap();
            symlink(outer.path().join("other"), &place).unwrap();
            let error = look(&root).unwrap_err();
            assert_eq!(error.to_string(), "the root directory was replaced");
            // It heals.
            fs::remove_file(&place).unwrap();
            fs::create_dir_all(root.path()).unwrap();
            fs::write(root.path().join("f"), "").unwrap();
            look(&root).unwrap();
        }
    }

    #[test]
    fn a_root_of_somebody_else_is_not_served() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let outer = tempfile::tempdir().unwrap();
        let root = Root::open(outer.path().join("root")).unwrap();
        fs::remove_dir(root.path()).unwrap();
        fs::create_dir(root.path()).unwrap();
        chown(root.path(), Some(1000), None).unwrap();
        fs::write(root.path().join("f"), "").unwrap();
        let error = look(&root).unwrap_err();
        assert_eq!(error.to_string(), "the root directory was replaced");
    }

    #[test]
    fn a_root_may_be_named_through_a_link() {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("real")).unwrap();
        symlink("real", outer.path().join("link")).unwrap();
        let root = Root::open(outer.path().join("link")).unwrap();
        fs::remove_dir(outer.path().join("real")).unwrap();
        fs::create_dir(outer.path().join("real")).unwrap();
        fs::write(outer.path().join("real/f"), "").unwrap();
        look(&root).unwrap();
    }

    #[test]
    fn both_ways_of_opening_refuse_links() {
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        fs::create_dir_all(outer.join("real/inner")).unwrap();
        symlink("real", outer.join("link")).unwrap();
        for open in [open_without_links, open_by_names] {
            open(&outer.join("real/inner")).unwrap();
            for path in ["link", "link/inner"] {
                let error = open(&outer.join(path)).unwrap_err();
                assert!(matches!(error, Errno::LOOP | Errno::NOTDIR), "{error}");
            }
        }
    }
}
