//! The one directory beneath which the node keeps everything.
//!
//! ```text
//! STATE/lock              held while a node uses the directory
//! STATE/running/PID       records of running containers
//! STATE/pods/UID/...      one directory per pod: container roots, volumes, logs
//! STATE/claims/UID/       data of persistent volume claims
//! ```
//!
//! Nobody else may write here, and nothing of the node is written anywhere else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// What to do with the data of persistent volume claims when the node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClaimData {
    /// Remove it with everything else (the default).
    #[default]
    Remove,
    /// Keep it for the next node on the same directory.
    Keep,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A file operation failed.
    #[error("state directory: {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Another node uses the directory.
    #[error(
        "state directory {} is in use by process {owner}; stop it or choose another directory",
        path.display()
    )]
    InUse { path: PathBuf, owner: String },
}

/// An opened and locked state directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Opens the directory for this process alone, creating it when missing (for the owner only).
    pub(crate) fn open(path: &Path) -> Result<Self, StateDirError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io {
                action,
                path,
                source,
            }
        };
        // With privileges, containers may run as users of their own, who must get through.
        let mode = if rustix::process::geteuid().is_root() {
            0o711
        } else {
            0o700
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(fail("create", path))?;
        // Mounts and records need the same name from every working directory.
        let path = path.canonicalize().map_err(fail("resolve", path))?;
        let lock_path = path.join("lock");
        let mut lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(fail("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let owner = fs::read_to_string(&lock_path).unwrap_or_default();
                return Err(StateDirError::InUse {
                    path,
                    owner: owner.trim().to_owned(),
                });
            }
            Err(error) => return Err(fail("lock", &lock_path)(error.into())),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(fail("write", &lock_path))?;
        Ok(Self { path, lock })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records of running containers.
    pub(crate) fn running(&self) -> PathBuf {
        self.path.join("running")
    }

    /// Directories of pods.
    pub(crate) fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    /// Data of claims.
    pub(crate) fn claims(&self) -> PathBuf {
        self.path.join("claims")
    }

    /// Removes what an earlier node left of its pods.
    pub(crate) fn clean(&self) -> Result<(), StateDirError> {
        let pods = self.pods();
        remove_tree(&pods).map_err(|source| StateDirError::Io {
            action: "clean",
            path: pods,
            source,
        })
    }

    /// Removes everything, or everything but claims; the directory itself goes when it is empty.
    pub(crate) fn remove(self, claims: ClaimData) -> Result<(), StateDirError> {
        let mut doomed = vec![self.pods(), self.running()];
        if claims == ClaimData::Remove {
            doomed.push(self.claims());
        }
        doomed.push(self.path.join("lock"));
        for path in doomed {
            remove_tree(&path).map_err(|source| StateDirError::Io {
                action: "remove",
                path,
                source,
            })?;
        }
        drop(self.lock);
        match fs::remove_dir(&self.path) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ResourceBusy
                ) =>
            {
                Err(StateDirError::Io {
                    action: "remove",
                    path: self.path,
                    source: error,
                })
            }
            _ => Ok(()),
        }
    }
}

/// Removes a file or a whole tree, also one in which a pod made directories unreadable. Symbolic
/// links are removed, never followed. A path that does not exist is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            remove()
        }
        outcome => outcome,
    }
    .or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Gives the owner access to every directory of a tree.
fn open_up(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        open_up(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_refused_and_told_who_has_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        first.remove(ClaimData::Remove).unwrap();
        assert!(!path.exists());
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn claims_survive_when_asked_and_foreign_files_always() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let state = StateDir::open(&path).unwrap();
        for file in ["claims/a/data", "pods/b/log"] {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        state.remove(ClaimData::Keep).unwrap();
        assert!(path.join("claims/a/data").exists() && !path.join("pods").exists());
        fs::write(path.join("mine"), "x").unwrap();
        StateDir::open(&path)
            .unwrap()
            .remove(ClaimData::Remove)
            .unwrap();
        assert!(path.join("mine").exists() && !path.join("claims").exists());
    }

    #[test]
    fn unreadable_directories_are_removed_and_links_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let precious = parent.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let tree = parent.path().join("tree");
        let locked = tree.join("locked");
        fs::create_dir_all(locked.join("deep")).unwrap();
        std::os::unix::fs::symlink(&precious, tree.join("link")).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && precious.join("file").exists());
    }
}
