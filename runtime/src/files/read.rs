//! Opening and reading regular files.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use cap_std::fs::Dir;
use rustix::fs::Stat;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use super::error::FileError;
use super::path::TreePath;
use super::resolve::resolve;
use super::root::Root;
use super::spot::open_regular;
use super::stat::{modified, version};

/// What `fstatfs` calls a file system in memory (`linux/magic.h`).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

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
        let opened = self.current()?;
        let resolved = || open_named(&opened.dir, &resolve(&opened, path)?);
        let (file, stat) = if path.climbs() {
            resolved()?
        } else {
            match open_named(&opened.dir, path.as_path()) {
                // A link at the end, or one on the way that seems to lead outside and may come back.
                Err(error) if is_link(&error) => resolved()?,
                direct => direct?,
            }
        };
        Ok(OpenFile {
            file: Arc::new(file),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(&stat),
            version: version(&stat),
        })
    }
}

/// Opens a file by its name in its directory; a link is `LOOP`. A `Spot` would look at the name
/// once more and open the root anew, which a small file has no time for.
fn open_named(root: &Dir, path: &Path) -> Result<(File, Stat), FileError> {
    let failed = |error: io::Error| FileError::new("opening the file", error);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => {
            open_regular(&root.open_dir(parent).map_err(failed)?, name)
        }
        (_, Some(name)) => open_regular(root, name),
        (_, None) => Err(failed(Errno::ISDIR.into())),
    }
}

fn is_link(error: &FileError) -> bool {
    matches!(error, FileError::Escapes) || error.errno() == Some(Errno::LOOP)
}

impl OpenFile {
    /// Begins to read exactly `length` bytes at `offset`. What is in memory is copied at once, if the file
    /// system tells; only what the disk must deliver is left to a thread. The memory of `buffer` is used
    /// again if nobody needs what was read into it before.
    pub fn begin_read(&self, offset: u64, length: usize, mut buffer: BytesMut) -> Reading {
        buffer.clear();
        buffer.resize(length, 0);
        let cached = self.read_cached(offset, &mut buffer);
        if cached == length {
            return Reading::Done(Done(buffer));
        }
        let file = self.file.clone();
        Reading::Waiting(tokio::task::spawn_blocking(move || {
            let missing = buffer.get_mut(cached..).unwrap_or_default();
            file.read_exact_at(missing, offset + cached as u64)?;
            Ok(Done(buffer))
        }))
    }

    /// Fills as much of the buffer as needs no waiting.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            let slices = &mut [IoSliceMut::new(rest)];
            match rustix::io::preadv2(&self.file, slices, at, ReadWriteFlags::NOWAIT) {
                Ok(count @ 1..) => filled += count,
                // Those that are nothing but memory do not know the question.
                Err(Errno::OPNOTSUPP) if self.in_memory() => {
                    if self.file.read_exact_at(rest, at).is_ok() {
                        filled = buffer.len();
                    }
                    break;
                }
                // The end, not cached, or a file system that cannot tell: the thread finds out.
                Ok(0) | Err(_) => break,
            }
        }
        filled
    }

    fn in_memory(&self) -> bool {
        rustix::fs::fstatfs(&self.file).is_ok_and(|system| system.f_type == TMPFS_MAGIC)
    }
}

/// A part of a file that is being read.
#[derive(Debug)]
pub enum Reading {
    /// It was in memory.
    Done(Done),
    /// A thread waits for the disk.
    Waiting(JoinHandle<io::Result<Done>>),
}

/// What was read.
#[derive(Debug)]
pub struct Done(BytesMut);

impl Reading {
    /// Whether a thread waits for it.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    /// What was read, and its buffer for a later [`OpenFile::begin_read`].
    ///
    /// # Errors
    /// `UnexpectedEof` when the file has become shorter.
    pub async fn done(self) -> io::Result<(Bytes, BytesMut)> {
        let Done(mut buffer) = match self {
            Self::Done(done) => done,
            Self::Waiting(reading) => reading.await.map_err(io::Error::other)??,
        };
        Ok((buffer.split().freeze(), buffer))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::path::TreePath;

    #[test]
    fn files_are_opened_wherever_their_links_are() {
        let outer = tempfile::tempdir().unwrap();
        let root = Root::open(outer.path().join("root")).unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("dir/sub")).unwrap();
        for name in ["file", "dir/file", "dir/sub/file"] {
            fs::write(at(name), name).unwrap();
        }
        fs::write(outer.path().join("secret"), "secret").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), 0o600.into()).unwrap();
        for (link, target) in [
            ("link", "file".into()),
            ("dir/up", "../file".into()),
            ("dir/chain", "up".into()),
            ("absolute", at("dir/file")),
            ("way", at("dir")),
            ("there", "dir".into()),
            ("pipe", "fifo".into()),
            ("loop", "loop".into()),
            ("dangling", "nothing".into()),
            ("out", outer.path().join("secret")),
            ("climb", "../secret".into()),
            ("outer", "..".into()),
        ] {
            symlink::<std::path::PathBuf, _>(target, at(link)).unwrap();
        }
        let open = |path| root.open_file(&TreePath::parse(path).unwrap());
        for (path, expected) in [
            ("file", "file"),
            ("dir/sub/file", "dir/sub/file"),
            ("link", "file"),
            ("dir/up", "file"),
            ("dir/chain", "file"),
            ("absolute", "dir/file"),
            ("way/sub/file", "dir/sub/file"),
            ("there/up", "file"),
            ("dir/sub/../file", "dir/file"),
            ("nothing/../file", "file"),
            ("outer/root/file", "file"),
        ] {
            let file = open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut text = vec![0; expected.len()];
            file.file.read_exact_at(&mut text, 0).unwrap();
            assert_eq!(text, expected.as_bytes(), "{path}");
            assert_eq!(file.size, expected.len() as u64, "{path}");
        }
        for (path, expected) in [
            ("", Errno::ISDIR),
            ("dir", Errno::ISDIR),
            ("dir/..", Errno::ISDIR),
            ("there", Errno::ISDIR),
            ("way", Errno::ISDIR),
            ("nothing", Errno::NOENT),
            ("dangling", Errno::NOENT),
            ("file/x", Errno::NOTDIR),
            ("loop", Errno::LOOP),
        ] {
            assert_eq!(open(path).unwrap_err().errno(), Some(expected), "{path}");
        }
        for path in ["fifo", "pipe"] {
            assert!(matches!(open(path), Err(FileError::Special)), "{path}");
        }
        for path in ["out", "climb", "outer/secret", "../secret"] {
            assert!(matches!(open(path), Err(FileError::Escapes)), "{path}");
        }
    }

    /// A file of a system that is nothing but memory does not wait for a thread, and buffers are used again.
    #[tokio::test]
    async fn memory_is_read_at_once_and_into_the_same_buffer() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let content: Vec<u8> = (0..=255).cycle().take(3000).collect();
        fs::write(directory.path().join("file"), &content).unwrap();
        let root = Root::open(directory.path()).unwrap();
        let file = root.open_file(&TreePath::parse("file").unwrap()).unwrap();
        let mut buffer = BytesMut::new();
        let mut places = Vec::new();
        for offset in [0, 1000, 2000] {
            let reading = file.begin_read(offset as u64, 1000, buffer);
            assert!(!reading.is_waiting());
            let (bytes, again) = reading.done().await.unwrap();
            assert_eq!(bytes, content[offset..offset + 1000]);
            places.push(bytes.as_ptr());
            buffer = again;
        }
        assert!(places.iter().all(|place| *place == places[0]));
        let beyond = file.begin_read(2500, 1000, buffer);
        assert!(beyond.is_waiting());
        let error = beyond.done().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
