//! Heads of HTTP/1.1 messages: how one is written to a sandbox, and how a sandbox's is read.
//!
//! Names and values arrive validated from the client's side and are written as they are. What a sandbox
//! sends is read strictly: it decides where its answer ends, and whoever can be talked into another
//! end can be made to take one answer for two (RFC 9112, sections 5 and 6).

use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Response, StatusCode};
use http_body::SizeHint;

use super::framing::Decoder;

/// Largest head that is read.
pub(super) const MAX_HEAD: usize = 256 * 1024;
/// Most fields that are read.
const MAX_FIELDS: usize = 128;

/// How the end of a request body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// By so many bytes.
    Length(u64),
    /// By an empty chunk.
    Chunked,
}

/// What a sandbox says before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Whether the connection may be used again.
    pub(super) keep_alive: bool,
    is_http10: bool,
}

/// Why an answer cannot be understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HeadError {
    /// It is not HTTP.
    #[error("the head is malformed: {0}")]
    Malformed(#[from] httparse::Error),
    /// It is longer than [`MAX_HEAD`].
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// A field or the status cannot be represented.
    #[error("a field of the head is invalid")]
    Field,
    /// Where the body ends is told in two ways that differ, or in one that is unknown.
    #[error("the length of the body is ambiguous")]
    Length,
}

impl Framing {
    /// The framing of a body that is, or is not, there.
    pub(super) fn of(is_end: bool, hint: &SizeHint) -> Self {
        match hint.exact() {
            _ if is_end => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

/// Writes the head of a request.
pub(super) fn write(
    out: &mut BytesMut,
    (method, path): (&Method, &str),
    host: &HeaderValue,
    headers: &HeaderMap,
    framing: Framing,
) {
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    out.reserve(method.as_str().len() + path.len() + host.len() + fields + 64);
    out.put_slice(method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(path.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    write_field(out, &HOST, host);
    for (name, value) in headers {
        // The framing is this connection's own.
        if name != HOST && name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    match framing {
        // A method that usually has a body says that it has none, as did the client if it said so.
        Framing::None
            if headers.contains_key(CONTENT_LENGTH)
                || matches!(*method, Method::POST | Method::PUT | Method::PATCH) =>
        {
            out.put_slice(b"content-length: 0\r\n");
        }
        Framing::None => {}
        Framing::Length(length) => {
            write_field(out, &CONTENT_LENGTH, &HeaderValue::from(length));
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

/// Writes the end of a chunked body.
pub(super) fn write_last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        write_field(out, name, value);
    }
    out.put_slice(b"\r\n");
}

fn write_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// Takes a head from the front of `input`, if it is complete. `seen` bytes were there before, and held
/// no end of one, so that a head that trickles in is not read from its beginning at every byte.
pub(super) fn read(input: &mut BytesMut, seen: usize) -> Result<Option<Head>, HeadError> {
    let Some(end) = find_end(input, seen) else {
        return if input.len() < MAX_HEAD {
            Ok(None)
        } else {
            Err(HeadError::TooLong)
        };
    };
    if end > MAX_HEAD {
        return Err(HeadError::TooLong);
    }
    let head = input.split_to(end).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &head,
        &mut fields,
    )?;
    if parsed != httparse::Status::Complete(end) {
        return Err(HeadError::Malformed(httparse::Error::NewLine));
    }
    let is_http10 = response.version == Some(0);
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(HeadError::Field)?;
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        // A part of what was read, not a copy of it.
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(HeadError::Field);
        };
        headers.append(name, value);
    }
    let keep_alive = !is_http10 && !has_token(&headers, &CONNECTION, b"close");
    Ok(Some(Head {
        status,
        headers,
        keep_alive,
        is_http10,
    }))
}

/// Where the empty line ends that ends a head. The first `seen` bytes were looked at before.
fn find_end(input: &[u8], seen: usize) -> Option<usize> {
    // The line may have begun there.
    let start = seen.saturating_sub(2);
    memchr::memchr_iter(b'\n', input.get(start..)?).find_map(|at| {
        let end = start + at + 1;
        let line = input.get(..end - 1)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.ends_with(b"\n").then_some(end)
    })
}

impl Head {
    /// The head of an answer whose end the connection knows.
    pub(crate) fn new(status: StatusCode, headers: HeaderMap) -> Self {
        Self {
            status,
            headers,
            keep_alive: true,
            is_http10: false,
        }
    }

    /// The response that begins so.
    pub(crate) fn response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    /// Whether another head follows.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// How the body ends that follows, and the same said in the head alone (RFC 9112, section 6.3).
    pub(super) fn body(&mut self, asked: &Method) -> Result<Decoder, HeadError> {
        let is_bodiless = *asked == Method::HEAD
            || self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED;
        if is_bodiless {
            // What it says of a length is about an answer that is not sent.
            self.headers.remove(TRANSFER_ENCODING);
            return Ok(Decoder::empty());
        }
        if self.headers.contains_key(TRANSFER_ENCODING) {
            let mut codings = tokens(&self.headers, &TRANSFER_ENCODING);
            let first = codings.next();
            let is_chunked = first.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
                && codings.next().is_none();
            drop(codings);
            if !is_chunked || self.is_http10 {
                return Err(HeadError::Length);
            }
            // Somebody on the way may have been meant to believe the other length.
            if self.headers.remove(CONTENT_LENGTH).is_some() {
                self.keep_alive = false;
            }
            return Ok(Decoder::chunked());
        }
        let Some(length) = self.length()? else {
            self.keep_alive = false;
            return Ok(Decoder::until_close());
        };
        Ok(Decoder::length(length))
    }

    /// The value of `Content-Length`, which is said once from here on.
    fn length(&mut self) -> Result<Option<u64>, HeadError> {
        let mut lengths = tokens(&self.headers, &CONTENT_LENGTH).map(decimal);
        let Some(first) = lengths.next() else {
            return if self.headers.contains_key(CONTENT_LENGTH) {
                Err(HeadError::Length)
            } else {
                Ok(None)
            };
        };
        let length = first.ok_or(HeadError::Length)?;
        let mut repeated = false;
        for other in lengths {
            if other != first {
                return Err(HeadError::Length);
            }
            repeated = true;
        }
        if repeated {
            self.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(Some(length))
    }
}

/// A number of digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &[u8]) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The members of a comma-separated field, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
