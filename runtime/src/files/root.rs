//! The root directory's handle, and running operations beneath it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::error::{FileError, is_escape};
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
    opened: RwLock<Arc<Opened>>,
    commits: Mutex<()>,
}

/// The directory the root's path named when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) dir: Dir,
    /// The path as configured and with its links resolved: links inside may use either.
    pub(super) names: [PathBuf; 2],
    handle: Arc<OwnedFd>,
    identity: (u64, u64),
}

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
        let opened = Opened::open(&path).map_err(failed("open"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                opened: RwLock::new(Arc::new(opened)),
                commits: Mutex::new(()),
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
    /// A NUL byte, or a root that is gone.
    pub fn parse_absolute(&self, text: &OsStr) -> Result<TreePath, FileError> {
        // Several leading slashes are one.
        let path: PathBuf = Path::new(text).components().collect();
        let opened = self.current()?;
        let inside = opened
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

    /// Held for the moment in which something takes its place, so that looking at what is there and
    /// replacing it are one step to everybody who comes through this program.
    pub(super) fn commits(&self) -> MutexGuard<'_, ()> {
        self.inner.commits.lock()
    }

    /// The directory the root's path names now. It is opened again when that changed: an agent that
    /// removes and makes its workspace anew goes on working in the new one.
    pub(super) fn current(&self) -> Result<Arc<Opened>, FileError> {
        let failed = |error| FileError::new("opening the root directory", error);
        let opened = self.inner.opened.read().clone();
        let now = fs::metadata(&self.inner.path).map_err(failed)?;
        if opened.identity == (now.dev(), now.ino()) {
            return Ok(opened);
        }
        let opened = Arc::new(Opened::open(&self.inner.path).map_err(failed)?);
        *self.inner.opened.write() = opened.clone();
        Ok(opened)
    }
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        let handle = dir.try_clone()?.into_std_file();
        let metadata = handle.metadata()?;
        let absolute = std::path::absolute(path)?;
        let real = fs::canonicalize(path)?;
        Ok(Self {
            dir,
            names: [absolute, real],
            identity: (metadata.dev(), metadata.ino()),
            handle: Arc::new(handle.into()),
        })
    }
}
