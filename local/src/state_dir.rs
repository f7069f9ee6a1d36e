//! The directory that holds everything local mode writes, owned by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A state directory this process holds. The hold ends with the process, however it ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
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
    #[error("cannot {action} {}", path.display())]
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
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| io_error("create the state directory", path, source))?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(|source| io_error("open", &file, source))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known {
                holder.trim().to_owned()
            } else {
                "unknown".to_owned()
            };
            return Err(StateDirError::InUse {
                path: path.to_owned(),
                holder,
            });
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| io_error("write", &file, source))?;
        Ok(Self {
            path: path.to_owned(),
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
        StateDir::open(&path).unwrap();
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
    }
}
