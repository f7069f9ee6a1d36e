//! `multipart/form-data` (RFC 7578) as a stream of events, without buffering parts.
//!
//! A state machine without I/O: push what arrived, pull events until it asks for more. File data is
//! handed on as slices of what was pushed; only a tail as long as a boundary is ever kept back. Part
//! headers and the text before the first boundary are bounded.

use bytes::{Buf, Bytes};
use memchr::memmem::Finder;

/// Why a body is no valid form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("Missing boundary in multipart.")]
    NoBoundary,
    #[error("Invalid multipart data.")]
    Malformed,
    #[error("The multipart body ended before its closing boundary.")]
    Truncated,
    #[error("The headers of a part are larger than {MAX_HEADERS} bytes.")]
    HeadersTooLarge,
    #[error("The Content-Disposition header field \"name\" must be provided.")]
    NoName,
}

/// What the parser found next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A part begins.
    Part(Part),
    /// Data of the current part; never empty.
    Data(Bytes),
    /// The current part is complete.
    PartEnd,
    /// The closing boundary was read; whatever follows is ignored.
    End,
    /// More input is needed.
    NeedMore,
}

/// The head of a part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Part {
    /// The field's name.
    pub(crate) name: String,
    /// The file name exactly as sent, if it is a file part. Percent signs mean themselves.
    pub(crate) filename: Option<String>,
}

/// The parser.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// `\r\n--boundary`, as it stands before every part but the first.
    delimiter: Finder<'static>,
    buffer: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// After a boundary: a line end or the closing dashes.
    AfterBoundary,
    Headers,
    Data,
    Ended,
}

const MAX_HEADERS: usize = 16 << 10;
/// RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;

impl Multipart {
    /// From a `Content-Type` value; `None` if it is not a form at all.
    pub(crate) fn from_content_type(value: &str) -> Option<Result<Self, MultipartError>> {
        let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary");
        Some(match boundary {
            Some(boundary) if (1..=MAX_BOUNDARY).contains(&boundary.len()) => {
                Ok(Self::new(&boundary))
            }
            _ => Err(MultipartError::NoBoundary),
        })
    }

    fn new(boundary: &str) -> Self {
        Self {
            delimiter: Finder::new(&format!("\r\n--{boundary}")).into_owned(),
            // The first boundary then looks like the others.
            buffer: Bytes::from_static(b"\r\n"),
            state: State::Preamble,
        }
    }

    /// Gives the parser more input.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        // In the middle of file data nothing is left, and nothing is copied.
        self.buffer = if self.buffer.is_empty() {
            bytes
        } else {
            [self.buffer.as_ref(), bytes.as_ref()].concat().into()
        };
    }

    /// Checks that the body may end here.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::Ended => Ok(()),
            // A form without any part: nothing but what was put there by `new`.
            State::Preamble if self.buffer.as_ref() == b"\r\n" => Ok(()),
            _ => Err(MultipartError::Truncated),
        }
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Result<Event, MultipartError> {
        loop {
            match self.state {
                State::Preamble => {
                    // Line ends before the first boundary are harmless, text is not.
                    while self.buffer.starts_with(b"\r\n\r\n") {
                        self.buffer.advance(2);
                    }
                    let delimiter = self.delimiter.needle();
                    if self.buffer.len() < delimiter.len() {
                        if delimiter.starts_with(&self.buffer)
                            || b"\r\n\r\n".starts_with(&self.buffer)
                        {
                            return Ok(Event::NeedMore);
                        }
                        return Err(MultipartError::Malformed);
                    }
                    if !self.buffer.starts_with(delimiter) {
                        return Err(MultipartError::Malformed);
                    }
                    self.buffer.advance(delimiter.len());
                    self.state = State::AfterBoundary;
                }
                State::AfterBoundary => {
                    // Blanks may follow a boundary (RFC 2046, transport padding).
                    let padding = self
                        .buffer
                        .iter()
                        .take_while(|byte| matches!(byte, b' ' | b'\t'))
                        .count();
                    self.buffer.advance(padding);
                    match self.buffer.as_ref() {
                        [b'-', b'-', ..] => {
                            self.state = State::Ended;
                            return Ok(Event::End);
                        }
                        // The line end is kept: it ends an empty header block as well.
                        [b'\r', b'\n', ..] => self.state = State::Headers,
                        [] | [b'-' | b'\r'] => return Ok(Event::NeedMore),
                        _ => return Err(MultipartError::Malformed),
                    }
                }
                State::Headers => {
                    let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else {
                        if self.buffer.len() > MAX_HEADERS {
                            return Err(MultipartError::HeadersTooLarge);
                        }
                        return Ok(Event::NeedMore);
                    };
                    if end > MAX_HEADERS {
                        return Err(MultipartError::HeadersTooLarge);
                    }
                    let head = self.buffer.split_to(end);
                    self.buffer.advance(4);
                    self.state = State::Data;
                    return Part::parse(&head).map(Event::Part);
                }
                State::Data => return Ok(self.data()),
                State::Ended => return Ok(Event::End),
            }
        }
    }

    fn data(&mut self) -> Event {
        if let Some(end) = self.delimiter.find(&self.buffer) {
            if end > 0 {
                return Event::Data(self.buffer.split_to(end));
            }
            self.buffer.advance(self.delimiter.needle().len());
            self.state = State::AfterBoundary;
            return Event::PartEnd;
        }
        let keep = self.open_delimiter();
        let ready = self.buffer.len() - keep;
        if ready == 0 {
            return Event::NeedMore;
        }
        Event::Data(self.buffer.split_to(ready))
    }

    /// How many bytes at the end of the buffer may be the beginning of a delimiter.
    fn open_delimiter(&self) -> usize {
        let delimiter = self.delimiter.needle();
        let longest = self.buffer.len().min(delimiter.len() - 1);
        (1..=longest)
            .rev()
            .find(|length| {
                delimiter
                    .get(..*length)
                    .is_some_and(|start| self.buffer.ends_with(start))
            })
            .unwrap_or(0)
    }
}

impl Part {
    fn parse(head: &[u8]) -> Result<Self, MultipartError> {
        // Names are UTF-8 today; what is not was Latin-1 once.
        let head = std::str::from_utf8(head).map_or_else(
            |_| head.iter().map(|byte| char::from(*byte)).collect(),
            str::to_owned,
        );
        let disposition = head
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
            .and_then(|(_, value)| value.split_once(';'))
            .map_or("", |(_, parameters)| parameters);
        Ok(Self {
            name: parameter(disposition, "name").ok_or(MultipartError::NoName)?,
            filename: parameter(disposition, "filename"),
        })
    }
}

/// The value of a parameter in `a=b; c="d;e"`. In quotes, `\"` and `\\` stand for the second character,
/// any other backslash for itself: clients send Windows paths unescaped.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = text.split_once('=')?;
        // A parameter without a value may stand before.
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let (value, rest) = value(rest.trim_start());
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim_end().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return (value, characters.as_str()),
            '\\' => {
                let next = characters.clone().next();
                if let Some(escaped @ ('"' | '\\')) = next {
                    value.push(escaped);
                    characters.next();
                } else {
                    value.push('\\');
                }
            }
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests;
