//! The directory that holds everything local mode writes, owned by one process at a time.
//!
//! ```text
//! STATE/lock          held while a platform uses the directory
//! STATE/kubeconfig    how to reach it; there only while it runs
//! STATE/node/         the node's files, without --keep
//! STATE/kept/objects  the journal of the API server, with --keep
//! STATE/kept/node/    the node's files, with --keep
//! ```
//!
//! A run without `--keep` therefore never touches what was kept.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A state directory this process holds. The hold ends with the process, however it ends; dropping
/// it also removes the lock file, and the directory if it was made for this run and is empty.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    created: bool,
    /// Keeps the advisory lock.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process holds it.
    #[error(
        "the state directory {} is in use by process {holder}; stop that one, or pass another --state-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id written by the holder, or `unknown`.
        holder: String,
    },
    /// The operating system refused.
    #[error(
        "--state-dir: cannot {action} {}; choose a directory that you may write to",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Creates the directory (readable by its owner only) and takes hold of it.
    ///
    /// # Errors
    /// When another process holds it, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let created = !path.exists();
        create_private(path).map_err(|source| io_error("use", path, source))?;
        let file = path.join("lock");
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file)
                .map_err(|source| io_error("use", path, source))
        };
        let mut lock = open()?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(in_use(path, lock)),
                Err(error) => return Err(io_error("lock", path, error.into())),
            }
            if is_at(&lock, &file) {
                break;
            }
            // Its holder removed the file between our opening and our locking it.
            lock = open()?;
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| io_error("write to", path, source))?;
        Ok(Self {
            path: path.to_owned(),
            created,
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the kubeconfig is written.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The node's own directory.
    pub fn node(&self) -> PathBuf {
        self.path.join("node")
    }

    /// The node's own directory when its claims are kept.
    pub fn kept_node(&self) -> PathBuf {
        self.path.join("kept").join("node")
    }

    /// Where the API server's journal is, in a directory that exists afterwards.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create_journal(&self) -> Result<PathBuf, StateDirError> {
        let kept = self.path.join("kept");
        create_private(&kept).map_err(|source| io_error("use", &kept, source))?;
        Ok(kept.join("objects"))
    }

    /// Replaces a file whose content is secret: readers see the old or the new content, and nobody
    /// but the owner may read it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write_private(&self, path: &Path, content: &str) -> Result<(), StateDirError> {
        let temporary = path.with_extension("new");
        // A leftover of a crash may have any mode; a fresh file has the right one.
        if let Err(source) = fs::remove_file(&temporary)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error("remove", &temporary, source));
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(|source| io_error("write", &temporary, source))?;
        fs::rename(&temporary, path).map_err(|source| io_error("replace", path, source))
    }

    /// Removes a file, present or not.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, path: &Path) -> Result<(), StateDirError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", path, source))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // The lock is still held, so nobody else can be using the file.
        if let Err(error) = fs::remove_file(self.path.join("lock")) {
            tracing::debug!(%error, "the lock file is left");
        }
        if self.created
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::debug!(%error, "the state directory is left");
        }
    }
}

fn create_private(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => ours.ino() == theirs.ino() && ours.dev() == theirs.dev(),
        _ => false,
    }
}

fn in_use(path: &Path, mut lock: File) -> StateDirError {
    let mut holder = String::new();
    let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    StateDirError::InUse {
        path: path.to_owned(),
        holder: if known {
            holder.trim().to_owned()
        } else {
            "unknown".to_owned()
        },
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateDirError {
    StateDirError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_second_learns_who() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/state");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
        drop(first);
        assert!(!path.exists(), "made for the run, and empty");
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn what_was_there_before_or_is_kept_stays() {
        let parent = tempfile::tempdir().unwrap();
        drop(StateDir::open(parent.path()).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let path = parent.path().join("new");
        let state = StateDir::open(&path).unwrap();
        let journal = state.create_journal().unwrap();
        fs::write(&journal, "objects").unwrap();
        drop(state);
        assert!(journal.exists() && !path.join("lock").exists());
    }

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(parent.path()).unwrap();
        fs::write(parent.path().join("kubeconfig.new"), "left over").unwrap();
        state.write_private(&state.kubeconfig(), "one").unwrap();
        state.write_private(&state.kubeconfig(), "two").unwrap();
        assert_eq!(fs::read_to_string(state.kubeconfig()).unwrap(), "two");
        assert_eq!(
            fs::metadata(state.kubeconfig())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        state.remove(&state.kubeconfig()).unwrap();
        state.remove(&state.kubeconfig()).unwrap();
    }

    #[test]
    fn a_path_that_is_a_file_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
    }
}
