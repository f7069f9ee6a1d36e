//! A directory on its way into a tar archive.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::super::caller::Caller;
use super::super::error::FileError;
use super::super::path::TreePath;
use super::super::root::Root;
use super::super::spot::{bits_of, listable, open_regular, read_link};
use super::super::walk::{Found, Step, Walk, vanished};
use super::{BLOCK, padding};

/// So much is handed on at a time.
const CHUNK: usize = 128 << 10;
/// Names up to this length fit a header.
const SHORT: usize = 100;

/// An open directory that is to be packed.
#[derive(Debug)]
pub struct Packing {
    dir: Dir,
}

impl Root {
    /// Opens a directory to pack it.
    ///
    /// # Errors
    /// See [`FileError`]; what is no directory is [`FileError::Invalid`].
    pub fn pack(&self, path: &TreePath) -> Result<Packing, FileError> {
        let context = "opening the directory";
        if !self.metadata(path)?.is_dir() {
            return Err(FileError::Invalid(
                "the path is not a directory; expected a directory to pack".into(),
            ));
        }
        let dir = self.open_directory(context, path)?;
        let dir = listable(&dir).map_err(|error| FileError::new(context, error))?;
        Ok(Packing { dir })
    }
}

impl Packing {
    /// Hands the archive to `take` piece by piece. Names are relative to the directory; links are packed
    /// as links and never followed, FIFOs, sockets and devices are left out, and so is what vanishes
    /// meanwhile.
    ///
    /// # Errors
    /// See [`FileError`]: what `take` answers, and a file that becomes shorter while it is read.
    pub fn run(
        self,
        take: impl FnMut(Bytes) -> Result<(), FileError>,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let mut writer = Writer {
            take,
            buffer: BytesMut::new(),
        };
        let mut walk = Walk::new(&self.dir, caller)?;
        while let Some(step) = walk.next()? {
            let Step::Found(found) = step else { continue };
            match writer.entry(&found, caller) {
                Err(error) if vanished(&error) => continue,
                done => done?,
            }
            if found.kind == FileType::Directory {
                match walk.enter(&found) {
                    Err(error) if vanished(&error) => {}
                    done => done?,
                }
            }
        }
        writer.add(&[0; 2 * BLOCK])?;
        writer.flush()
    }
}

struct Writer<F> {
    take: F,
    buffer: BytesMut,
}

impl<F: FnMut(Bytes) -> Result<(), FileError>> Writer<F> {
    fn entry(&mut self, found: &Found, caller: &Caller) -> Result<(), FileError> {
        let failed = |error: Errno| FileError::new("packing the directory", error);
        let look = || rustix::fs::statat(&*found.dir, &found.name, AtFlags::SYMLINK_NOFOLLOW);
        match found.kind {
            FileType::RegularFile => {
                let (file, stat) = open_regular(&found.dir, &found.name)?;
                self.head(EntryType::Regular, &found.path, None, &stat)?;
                self.content(file, size(&stat), caller)
            }
            FileType::Directory => {
                let stat = look().map_err(failed)?;
                self.head(EntryType::Directory, &found.path, None, &stat)
            }
            FileType::Symlink => {
                let stat = look().map_err(failed)?;
                let target = read_link(&found.dir, &found.name).map_err(failed)?;
                self.head(EntryType::Symlink, &found.path, Some(&target), &stat)
            }
            _ => Ok(()),
        }
    }

    fn head(
        &mut self,
        kind: EntryType,
        path: &Path,
        target: Option<&Path>,
        stat: &Stat,
    ) -> Result<(), FileError> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        let target = target.map(|target| target.as_os_str().as_bytes());
        if let Some(target) = target.filter(|target| target.len() > SHORT) {
            self.long(EntryType::GNULongLink, target)?;
        }
        if name.len() > SHORT {
            self.long(EntryType::GNULongName, &name)?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(bits_of(stat));
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(match kind {
            EntryType::Regular => size(stat),
            _ => 0,
        });
        fill(&mut header.as_old_mut().name, &name);
        fill(
            &mut header.as_old_mut().linkname,
            target.unwrap_or_default(),
        );
        header.set_cksum();
        self.add(header.as_bytes())
    }

    /// An entry that holds the name of the next.
    fn long(&mut self, kind: EntryType, name: &[u8]) -> Result<(), FileError> {
        let size = name.len() as u64 + 1;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_cksum();
        self.add(header.as_bytes())?;
        self.add(name)?;
        self.add(&[0])?;
        self.pad(size)
    }

    /// Exactly as much as the header says: what is appended meanwhile is left out.
    fn content(
        &mut self,
        mut file: impl Read,
        size: u64,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let failed = |error: io::Error| FileError::new("packing a file", error);
        let mut left = size;
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(CHUNK).min(CHUNK)];
        while left > 0 {
            caller.check()?;
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let room = chunk.get_mut(..want).unwrap_or_default();
            match file.read(room) {
                // The header is written, so only a broken archive can tell.
                Ok(0) => {
                    return Err(FileError::Conflict(
                        "a file became shorter while it was packed".into(),
                    ));
                }
                Ok(count) => {
                    self.add(room.get(..count).unwrap_or_default())?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), FileError> {
        self.add([0; BLOCK].get(..padding(size)).unwrap_or_default())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FileError> {
        (self.take)(self.buffer.split().freeze())
    }
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// As much as fits; longer names went before.
fn fill(field: &mut [u8; SHORT], name: &[u8]) {
    for (place, byte) in field.iter_mut().zip(name) {
        *place = *byte;
    }
}
