//! The entries of a tar archive that arrives in pieces.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use tar::{EntryType, Header, PaxExtensions};

use super::super::error::FileError;
use super::{BLOCK, padding};

/// Largest extended header, which is held in memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// An archive that is being read.
pub(super) struct Source<I> {
    pieces: I,
    piece: Bytes,
    /// What is left of the current entry's content, and its padding.
    left: u64,
    padding: usize,
}

/// What an entry's headers say.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
    pub(super) mode: u32,
    /// Seconds since the epoch.
    pub(super) modified: u64,
    pub(super) size: u64,
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<I: Iterator<Item = io::Result<Bytes>>> Source<I> {
    pub(super) fn new(pieces: I) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
            left: 0,
            padding: 0,
        }
    }

    /// The next entry, behind what is left of the one before; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, FileError> {
        while self.content()?.is_some() {}
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(|error| broken(&error))?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => extensions.path = Some(self.name(size)?),
                EntryType::GNULongLink => extensions.target = Some(self.name(size)?),
                EntryType::XHeader => extensions.read(&self.extension(size)?)?,
                EntryType::XGlobalHeader => {
                    let mut global = Extensions::default();
                    global.read(&self.extension(size)?)?;
                    if global.path.is_some() || global.target.is_some() || global.size.is_some() {
                        return Err(FileError::Invalid(
                            "the archive names all entries at once; expected a name for each"
                                .into(),
                        ));
                    }
                }
                kind => return self.entry(kind, &header, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        kind: EntryType,
        header: &Header,
        extensions: Extensions,
    ) -> Result<Entry, FileError> {
        let bytes = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = extensions
            .target
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        // Before the format knew directories, a slash at the end made one.
        let kind = match kind {
            EntryType::Regular if bytes.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous => EntryType::Regular,
            kind => kind,
        };
        let size = match extensions.size {
            Some(size) => size,
            None => header.entry_size().map_err(|error| broken(&error))?,
        };
        self.left = size;
        self.padding = padding(size);
        Ok(Entry {
            kind,
            path: OsString::from_vec(bytes).into(),
            target: OsString::from_vec(target.unwrap_or_default()).into(),
            mode: header.mode().map_err(|error| broken(&error))? & 0o7777,
            modified: header.mtime().map_err(|error| broken(&error))?,
            size,
        })
    }

    /// The next piece of the current entry's content; `None` at its end.
    pub(super) fn content(&mut self) -> Result<Option<Bytes>, FileError> {
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.skip(padding)?;
            return Ok(None);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let piece = self.some(most)?.ok_or_else(cut)?;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    /// A header whose sum is right; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, FileError> {
        let Some(block) = self.block()? else {
            // Some writers leave out the zeros at the end.
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            // The sum is made with spaces in its own place.
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        match header.cksum() {
            Ok(told) if told == sum => Ok(Some(header)),
            _ => Err(FileError::Invalid(
                "the body is not a tar archive, or is damaged: a header's checksum is wrong".into(),
            )),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, FileError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.some(room.len())? {
                Some(piece) => {
                    for (place, byte) in room.iter_mut().zip(&piece) {
                        *place = *byte;
                    }
                    filled += piece.len();
                }
                None if filled == 0 => return Ok(None),
                None => return Err(cut()),
            }
        }
        Ok(Some(block))
    }

    /// A name that is an entry's content.
    fn name(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        let mut name = self.extension(size)?;
        if let Some(end) = memchr::memchr(0, &name) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// A whole entry that describes the next.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        if size > MAX_EXTENSION {
            return Err(FileError::Invalid(format!(
                "an extended header has {size} bytes; expected at most {MAX_EXTENSION}"
            )));
        }
        self.left = size;
        self.padding = padding(size);
        let mut bytes = Vec::new();
        while let Some(piece) = self.content()? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), FileError> {
        while count > 0 {
            count -= self.some(count)?.ok_or_else(cut)?.len();
        }
        Ok(())
    }

    /// Between 1 and `most` bytes; `None` at the end of what arrives.
    fn some(&mut self, most: usize) -> Result<Option<Bytes>, FileError> {
        while !self.piece.has_remaining() {
            match self.pieces.next() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(FileError::new("reading the archive", error)),
                None => return Ok(None),
            }
        }
        Ok(Some(self.piece.split_to(most.min(self.piece.len()))))
    }
}

impl Extensions {
    fn read(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension.map_err(|error| broken(&error))?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok();
                    let size = size.and_then(|size| size.parse().ok());
                    self.size = Some(size.ok_or_else(|| {
                        FileError::Invalid("an extended header has a size that is no number".into())
                    })?);
                }
                key if key.starts_with(b"GNU.sparse") => return Err(sparse()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Files with holes are described in ways of their own.
pub(super) fn sparse() -> FileError {
    FileError::Invalid(
        "the archive holds a file in sparse form; expected files in full (tar without --sparse)"
            .into(),
    )
}

fn cut() -> FileError {
    FileError::Invalid("the archive ends in the middle of an entry".into())
}

fn broken(error: &io::Error) -> FileError {
    FileError::Invalid(format!("the archive is damaged: {error}"))
}
