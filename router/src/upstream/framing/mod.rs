//! Where the body of an answer ends (RFC 9112, sections 6 and 7).
//!
//! [`Decoder`] takes frames from the front of what was read. It knows no socket, so that every split of
//! the bytes can be tested. Data passes without being copied.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http_body::{Frame, SizeHint};

/// Longest line that tells the size of a chunk, its extensions included.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// Largest block of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// Most trailers.
const MAX_FIELDS: usize = 64;
/// Most hexadecimal digits of a size.
const MAX_DIGITS: usize = 16;

/// Follows a body to its end.
#[derive(Debug)]
pub(super) struct Decoder(State);

#[derive(Debug)]
enum State {
    /// Everything has been taken.
    Done,
    /// So many bytes are left.
    Length(u64),
    /// The size of a chunk comes next.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line that ends a chunk comes next.
    ChunkEnd,
    /// Trailers come next, or the empty line that ends them.
    Trailers,
    /// All that comes, until the connection closes.
    UntilClose,
}

/// Why a body cannot be followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FramingError {
    /// A chunk does not begin or end as it must.
    #[error("a chunk is malformed")]
    Chunk,
    /// The trailers are malformed or too large.
    #[error("the trailers are malformed")]
    Trailers,
    /// The connection closed too early.
    #[error("the body ended early")]
    Early,
}

impl Decoder {
    pub(super) fn empty() -> Self {
        Self(State::Done)
    }

    pub(super) fn length(length: u64) -> Self {
        Self(if length == 0 {
            State::Done
        } else {
            State::Length(length)
        })
    }

    pub(super) fn chunked() -> Self {
        Self(State::Size)
    }

    pub(super) fn until_close() -> Self {
        Self(State::UntilClose)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// What is known of the length of what follows.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.0 {
            State::Done => SizeHint::with_exact(0),
            State::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// Takes the next frame; `None` when more bytes are needed, or none are left to come.
    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<Frame<Bytes>>, FramingError> {
        loop {
            match &mut self.0 {
                State::Done => return Ok(None),
                State::UntilClose => {
                    return Ok((!input.is_empty()).then(|| Frame::data(input.split().freeze())));
                }
                State::Length(left) => {
                    let frame = take(input, left);
                    if *left == 0 {
                        self.0 = State::Done;
                    }
                    return Ok(frame);
                }
                State::Chunk(left) => {
                    let frame = take(input, left);
                    if *left == 0 {
                        self.0 = State::ChunkEnd;
                    }
                    return Ok(frame);
                }
                State::ChunkEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.0 = State::Size;
                    }
                    None if b"\r\n".starts_with(input) => return Ok(None),
                    _ => return Err(FramingError::Chunk),
                },
                State::Size => match size(input)? {
                    None => return Ok(None),
                    Some(0) => self.0 = State::Trailers,
                    Some(size) => self.0 = State::Chunk(size),
                },
                State::Trailers => {
                    return match trailers(input)? {
                        None => Ok(None),
                        Some(fields) => {
                            self.0 = State::Done;
                            Ok((!fields.is_empty()).then(|| Frame::trailers(fields)))
                        }
                    };
                }
            }
        }
    }

    /// The connection closed.
    pub(super) fn close(&mut self) -> Result<(), FramingError> {
        match self.0 {
            State::Done => Ok(()),
            State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(FramingError::Early),
        }
    }
}

/// What is there of the `left` bytes to come.
fn take(input: &mut BytesMut, left: &mut u64) -> Option<Frame<Bytes>> {
    let there = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(input.len());
    if there == 0 {
        return None;
    }
    *left -= there as u64;
    Some(Frame::data(input.split_to(there).freeze()))
}

/// Takes the line with the size of a chunk, if it is complete.
fn size(input: &mut BytesMut) -> Result<Option<u64>, FramingError> {
    let line = input.get(..MAX_SIZE_LINE.min(input.len()));
    let line = line.unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', line) else {
        let is_plausible = line.len() < MAX_SIZE_LINE && digits(line) <= MAX_DIGITS;
        return if is_plausible {
            Ok(None)
        } else {
            Err(FramingError::Chunk)
        };
    };
    let line = line.get(..end).unwrap_or_default();
    let text = line.strip_suffix(b"\r").ok_or(FramingError::Chunk)?;
    let (number, rest) = text.split_at_checked(digits(text)).unwrap_or_default();
    let rest = rest.trim_ascii_start();
    let is_sound = (1..=MAX_DIGITS).contains(&number.len())
        && (rest.is_empty() || rest.starts_with(b";"))
        && !rest.contains(&b'\r');
    if !is_sound {
        return Err(FramingError::Chunk);
    }
    let number = std::str::from_utf8(number).map_err(|_| FramingError::Chunk)?;
    let size = u64::from_str_radix(number, 16).map_err(|_| FramingError::Chunk)?;
    input.advance(end + 1);
    Ok(Some(size))
}

fn digits(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count()
}

/// Takes the trailers and the empty line after them, if they are complete.
fn trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, FramingError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let block = input.get(..MAX_TRAILERS.min(input.len()));
    let parsed = httparse::parse_headers(block.unwrap_or_default(), &mut fields);
    let (length, found) = match parsed.map_err(|_| FramingError::Trailers)? {
        httparse::Status::Complete(complete) => complete,
        httparse::Status::Partial if input.len() < MAX_TRAILERS => return Ok(None),
        httparse::Status::Partial => return Err(FramingError::Trailers),
    };
    let mut map = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(FramingError::Trailers);
        };
        // Framing is decided before a body, never after it.
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            map.append(name, value);
        }
    }
    input.advance(length);
    Ok(Some(map))
}

#[cfg(test)]
mod tests;
