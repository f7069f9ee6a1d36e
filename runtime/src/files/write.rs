//! Atomic uploads: a temporary file beside the target, then a rename.
//!
//! Data goes through a small pipeline: while a thread writes one batch, the caller gathers the next. An
//! upload that is dropped before its commit removes its temporary file and leaves the target alone.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::attributes::Owner;
use super::condition::Condition;
use super::error::FileError;
use super::path::TreePath;
use super::resolve::resolve;
use super::root::Root;
use super::stat::version;
use super::temporary::{rename, temporary_name};

/// How a file is stored.
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    /// Permission bits of the result.
    pub mode: FileMode,
    /// What a link that points to nothing means.
    pub dangling: Dangling,
    /// Whether the data must have reached the disk before the name does.
    pub sync: bool,
    /// Who the result belongs to; who runs this program if nothing is said.
    pub owner: Owner,
    /// What the file that is there must be for the upload to take its place.
    pub condition: Condition,
}

/// Which permission bits a stored file gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FileMode {
    /// Those of the file it replaces; a new one gets 0666 as reduced by the process's umask.
    #[default]
    Kept,
    /// Those of the file it replaces; a new one gets exactly these.
    KeptOr(u32),
    /// Exactly these.
    Exactly(u32),
}

/// What writing to a link that points to nothing does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dangling {
    /// Creates the file it points to.
    #[default]
    Follow,
    /// Replaces the link.
    Replace,
}

/// A file on its way to its place.
#[derive(Debug)]
pub struct Upload {
    /// Shared with batches in flight.
    place: Arc<Place>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    writing: Option<JoinHandle<io::Result<()>>>,
    written: u64,
}

/// Where an upload goes.
#[derive(Debug)]
struct Place {
    directory: Dir,
    temporary: OsString,
    name: OsString,
    file: File,
    root: Root,
    sync: bool,
    condition: Condition,
}

/// Batches of this size keep the writing thread busy without holding much memory.
const BATCH: usize = 512 << 10;
impl Upload {
    /// Prepares to store a file at `path`, creating missing parent directories.
    ///
    /// # Errors
    /// See [`FileError`]: a directory at the path is `ISDIR`, other things that are no regular file
    /// are [`FileError::Special`].
    pub async fn begin(
        root: &Root,
        path: TreePath,
        options: UploadOptions,
    ) -> Result<Self, FileError> {
        let root = root.clone();
        let place = tokio::task::spawn_blocking(move || Place::prepare(&root, &path, options));
        let place = place.await.map_err(|error| interrupted(&error))??;
        Ok(Self {
            place: Arc::new(place),
            batch: Vec::new(),
            batch_bytes: 0,
            writing: None,
            written: 0,
        })
    }

    /// Appends data. It may return before the data is written; errors surface later at the latest in
    /// [`Self::commit`].
    ///
    /// # Errors
    /// What writing failed with, a full disk among it.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), FileError> {
        self.written += bytes.len() as u64;
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// How many bytes were given so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the file in its place and tells its version, as in [`super::OpenFile::version`].
    ///
    /// # Errors
    /// See [`FileError`]; the target is untouched then. When what is there has changed so that the
    /// condition no longer holds, that is [`FileError::Condition`].
    pub async fn commit(mut self) -> Result<String, FileError> {
        self.wait().await?;
        let (place, batch) = (self.place.clone(), std::mem::take(&mut self.batch));
        let work = tokio::task::spawn_blocking(move || {
            write_all(&place.file, &batch)
                .map_err(|error| FileError::new("writing the file", error))?;
            place.commit()
        });
        work.await.map_err(|error| interrupted(&error))?
    }

    async fn flush(&mut self) -> Result<(), FileError> {
        self.wait().await?;
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let place = self.place.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            write_all(&place.file, &batch)
        }));
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), FileError> {
        if let Some(writing) = &mut self.writing {
            let written = writing.await;
            self.writing = None;
            written
                .map_err(|error| interrupted(&error))?
                .map_err(|error| FileError::new("writing the file", error))?;
        }
        Ok(())
    }
}

impl Place {
    fn prepare(root: &Root, path: &TreePath, options: UploadOptions) -> Result<Self, FileError> {
        let context = "preparing the upload";
        let opened = root.current()?;
        let failed = |error: io::Error| FileError::new(context, error);
        let mut target = resolve(&opened, path)?;
        if options.dangling == Dangling::Replace
            && opened.dir.symlink_metadata(&target).is_err()
            && let Some(name) = path.as_path().file_name()
        {
            let parent = path.as_path().parent().unwrap_or_else(|| Path::new(""));
            target = resolve(&opened, &TreePath::relative(parent))?.join(name);
        }
        let Some(name) = target.file_name() else {
            return Err(FileError::new(context, Errno::ISDIR));
        };
        let parent = target.parent().unwrap_or_else(|| Path::new(""));
        let directory = if parent.as_os_str().is_empty() {
            opened.dir.try_clone()
        } else {
            opened
                .dir
                .create_dir_all(parent)
                .map_err(|error| match Errno::from_io_error(&error) {
                    // What exists is no directory.
                    Some(Errno::EXIST) => Errno::NOTDIR.into(),
                    _ => error,
                })
                .and_then(|()| opened.dir.open_dir(parent))
        }
        .map_err(failed)?;
        let kept = match directory.symlink_metadata(name) {
            Ok(found) if found.is_dir() => return Err(FileError::new(context, Errno::ISDIR)),
            Ok(found) if found.is_symlink() && options.dangling == Dangling::Replace => None,
            Ok(found) if !found.is_file() => return Err(FileError::Special),
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // What is refused anyway need not be sent first.
        options.condition.check(&directory, name)?;
        let temporary = temporary_name();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The umask applies to new files only. Until an explicit mode is set, others see nothing.
        let plain = options.mode == FileMode::Kept && kept.is_none();
        let creation = Mode::from_raw_mode(if plain { 0o666 } else { 0o600 });
        let file = rustix::fs::openat(&directory, &temporary, flags, creation)
            .map_err(|error| FileError::new(context, error))?;
        let place = Self {
            directory,
            temporary,
            name: name.to_owned(),
            file: file.into(),
            root: root.clone(),
            sync: options.sync,
            condition: options.condition,
        };
        // The mode comes last, because a change of the owner may take bits away.
        options
            .owner
            .apply(&place.file)
            .map_err(|error| FileError::new("giving the file to its owner", error))?;
        let mode = match (options.mode, kept) {
            (FileMode::Exactly(mode), _) | (FileMode::KeptOr(mode), None) => Some(mode),
            (FileMode::Kept, None) => None,
            (FileMode::Kept | FileMode::KeptOr(_), Some(old)) => {
                let new = rustix::fs::fstat(&place.file)
                    .map_err(|error| FileError::new(context, error))?;
                let owners = [(old.uid(), old.gid()), (new.st_uid, new.st_gid)];
                Some(kept_bits(old.mode(), owners))
            }
        };
        if let Some(mode) = mode {
            rustix::fs::fchmod(&place.file, Mode::from_raw_mode(mode))
                .map_err(|error| FileError::new(context, error))?;
        }
        Ok(place)
    }

    fn commit(&self) -> Result<String, FileError> {
        let context = "putting the file in its place";
        let failed = |error: Errno| FileError::new(context, error);
        if self.sync {
            self.file
                .sync_data()
                .map_err(|error| FileError::new(context, error))?;
        }
        let stat = rustix::fs::fstat(&self.file).map_err(failed)?;
        let (dir, old, new) = (&self.directory, &self.temporary, &self.name);
        let _moment = self.root.commits();
        self.condition.check(dir, new)?;
        match rename(dir, old, dir, new, self.condition.existing()) {
            // Made meanwhile by a command.
            Err(Errno::EXIST) => Err(FileError::Condition),
            Err(error) => Err(failed(error)),
            Ok(()) => Ok(version(&stat)),
        }
    }

    /// Removes what was not committed. After a commit the name is gone, and nothing else ever has it.
    fn discard(&self) {
        match rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(%error, "cannot remove the file of a broken upload"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Also when the caller went away before it had an `Upload`.
        self.discard();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Now, not when the last batch in flight is written: who is told of a failure finds nothing.
        self.place.discard();
    }
}

/// The permission bits a file takes over from the one it replaces, whose users and groups are `owners`.
/// Content that runs with its owner's rights must not come to run with another's.
fn kept_bits(mode: u32, [old, new]: [(u32, u32); 2]) -> u32 {
    mode & if old == new { 0o7777 } else { 0o1777 }
}

fn write_all(mut file: &File, batch: &[Bytes]) -> io::Result<()> {
    let mut batch: Vec<Bytes> = batch.to_vec();
    let mut open = batch.as_mut_slice();
    loop {
        while open.first().is_some_and(Bytes::is_empty) {
            open = open.get_mut(1..).unwrap_or_default();
        }
        if open.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = open
            .iter()
            .take(64)
            .map(|bytes| IoSlice::new(bytes))
            .collect();
        let mut written = match file.write_vectored(&slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for bytes in open.iter_mut() {
            let taken = written.min(bytes.len());
            bytes.advance(taken);
            written -= taken;
            if written == 0 {
                break;
            }
        }
    }
}

fn interrupted(error: &tokio::task::JoinError) -> FileError {
    FileError::new("waiting for the disk", io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn only_the_same_owner_and_group_keep_the_rights_to_run_as_them() {
        for (owners, bits) in [
            ([(1000, 1000), (1000, 1000)], 0o7755),
            ([(1000, 1000), (0, 1000)], 0o1755),
            ([(1000, 1000), (1000, 0)], 0o1755),
            ([(1000, 1000), (0, 0)], 0o1755),
        ] {
            assert_eq!(kept_bits(0o107_755, owners), bits, "{owners:?}");
        }
    }

    #[tokio::test]
    async fn a_replaced_file_does_not_run_as_who_replaced_it() {
        let outer = tempfile::tempdir().unwrap();
        let root = Root::open(outer.path()).unwrap();
        let tool = outer.path().join("tool");
        fs::write(&tool, "old").unwrap();
        let mine = fs::metadata(&tool).unwrap();
        let changes = rustix::process::geteuid().is_root();
        // Only the superuser can make a file of somebody else.
        if changes {
            std::os::unix::fs::chown(&tool, Some(mine.uid() + 1000), None).unwrap();
        }
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        let put = async |owner| {
            let options = UploadOptions {
                owner,
                ..UploadOptions::default()
            };
            let path = TreePath::parse("tool").unwrap();
            let upload = Upload::begin(&root, path, options).await.unwrap();
            upload.commit().await.unwrap();
            fs::metadata(&tool).unwrap().mode() & 0o7777
        };
        if changes {
            let uid = Some(mine.uid() + 1000);
            let same = Owner { uid, gid: None };
            assert_eq!(put(same).await, 0o4755, "it stays with its owner");
            assert_eq!(put(Owner::default()).await, 0o755);
        } else {
            assert_eq!(put(Owner::default()).await, 0o4755);
        }
    }
}
