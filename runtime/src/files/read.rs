//! Opening and reading regular files.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use cap_std::fs::{MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::error::FileError;
use super::path::TreePath;
use super::root::Root;

/// An open regular file and what it was when it was opened.
#[derive(Clone, Debug)]
pub struct OpenFile {
    file: Arc<File>,
    /// Size in bytes.
    pub size: u64,
    /// Last modification.
    pub modified: SystemTime,
    /// Changes whenever the content may have: file identity, size and modification time.
    pub version: String,
}

impl Root {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`FileError::Special`] for FIFOs, sockets and devices, at once; a directory is `ISDIR`.
    pub fn open_file(&self, path: &TreePath) -> Result<OpenFile, FileError> {
        let context = "opening the file";
        // Looked at before it is opened: opening a device acts on it, opening a FIFO wakes its writer.
        let found = self.metadata(path)?;
        if found.is_dir() {
            return Err(FileError::new(context, Errno::ISDIR));
        }
        if !found.is_file() {
            return Err(FileError::Special);
        }
        let mut options = OpenOptions::new();
        // Should it have become a FIFO since, it must not block either.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        options.read(true).custom_flags(flags.cast_signed());
        let file = self.beneath(context, path, |dir, path| dir.open_with(path, &options))?;
        let metadata = file
            .metadata()
            .map_err(|error| FileError::new(context, error))?;
        if !metadata.is_file() {
            return Err(FileError::Special);
        }
        let modified = metadata
            .modified()
            .map_or(SystemTime::UNIX_EPOCH, cap_std::time::SystemTime::into_std);
        let version = format!(
            "{:x}-{:x}-{:x}.{:x}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        Ok(OpenFile {
            file: Arc::new(file.into_std()),
            size: metadata.len(),
            modified,
            version,
        })
    }
}

impl OpenFile {
    /// Reads exactly `length` bytes at `offset`. What is in the page cache is copied at once; only what
    /// the disk must deliver is left to a thread.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file has become shorter.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(length);
        let cached = self.read_cached(offset, &mut buffer);
        if cached == length {
            return Ok(buffer.freeze());
        }
        let file = self.file.clone();
        let rest = tokio::task::spawn_blocking(move || {
            let missing = buffer.get_mut(cached..).unwrap_or_default();
            file.read_exact_at(missing, offset + cached as u64)?;
            Ok(buffer.freeze())
        });
        rest.await.map_err(io::Error::other)?
    }

    /// Fills as much of the buffer as needs no waiting.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            let slices = &mut [IoSliceMut::new(rest)];
            match rustix::io::preadv2(&self.file, slices, at, ReadWriteFlags::NOWAIT) {
                Ok(count @ 1..) => filled += count,
                // The end, not cached, or a file system that cannot tell: the thread finds out.
                Ok(0) | Err(_) => break,
            }
        }
        filled
    }
}
