//! Sending a file: conditional requests, ranges and a streamed body, for every face.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, TryStreamExt};

use crate::files::{OpenFile, Reading};

use self::range::Selection;

pub(crate) mod range;

/// What the faces do differently.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presentation {
    /// Whether to send an `ETag` and to answer conditions on it.
    pub(crate) etag: bool,
    /// The value of `Content-Disposition`, if any.
    pub(crate) disposition: Option<HeaderValue>,
}

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// How much is read and sent at a time. It fits the cache, so that the second copy is cheap.
const CHUNK: usize = 128 << 10;

/// Answers a GET or HEAD of a file.
pub(crate) async fn respond(
    method: &Method,
    headers: &HeaderMap,
    file: OpenFile,
    presentation: Presentation,
) -> Response<Body> {
    let etag = presentation.etag.then(|| format!("\"{}\"", file.version));
    let validators = Validators {
        etag: etag.as_deref(),
        modified: whole_seconds(file.modified),
    };
    let mut response = match validators.check(headers) {
        Verdict::Failed => empty(StatusCode::PRECONDITION_FAILED),
        Verdict::NotModified => empty(StatusCode::NOT_MODIFIED),
        Verdict::Send { ranges } => {
            let selection = match headers.get(header::RANGE).map(HeaderValue::to_str) {
                Some(Ok(value)) if ranges && method == Method::GET => {
                    range::parse(value, file.size)
                }
                _ => Selection::Whole,
            };
            content(method, file, selection).await
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(etag) = etag
        .as_deref()
        .and_then(|etag| HeaderValue::try_from(etag).ok())
    {
        headers.insert(header::ETAG, etag);
    }
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(validators.modified)) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    if let Some(disposition) = presentation.disposition.filter(|_| status.is_success()) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// HTTP dates have no fractions; comparing them with a file's time needs the same.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

struct Validators<'a> {
    etag: Option<&'a str>,
    modified: SystemTime,
}

#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    Failed,
    NotModified,
    /// `ranges`: whether a `Range` header counts.
    Send {
        ranges: bool,
    },
}

impl Validators<'_> {
    /// The order of RFC 9110, section 13.2.2.
    fn check(&self, headers: &HeaderMap) -> Verdict {
        let date = |name| {
            let value = headers.get(name)?.to_str().ok()?;
            httpdate::parse_http_date(value).ok()
        };
        if headers.contains_key(header::IF_MATCH) {
            if !self.listed(headers, &header::IF_MATCH, Comparison::Strong) {
                return Verdict::Failed;
            }
        } else if date(header::IF_UNMODIFIED_SINCE).is_some_and(|since| self.modified > since) {
            return Verdict::Failed;
        }
        if headers.contains_key(header::IF_NONE_MATCH) {
            if self.listed(headers, &header::IF_NONE_MATCH, Comparison::Weak) {
                return Verdict::NotModified;
            }
        } else if date(header::IF_MODIFIED_SINCE).is_some_and(|since| self.modified <= since) {
            return Verdict::NotModified;
        }
        let ranges = match headers.get(header::IF_RANGE).map(HeaderValue::to_str) {
            None => true,
            Some(Ok(value)) if value.starts_with('"') => self.etag == Some(value),
            Some(_) => date(header::IF_RANGE) == Some(self.modified),
        };
        Verdict::Send { ranges }
    }

    fn listed(&self, headers: &HeaderMap, name: &header::HeaderName, how: Comparison) -> bool {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| {
                let tag = match how {
                    Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag),
                    Comparison::Strong => tag,
                };
                tag == "*" || Some(tag) == self.etag
            })
    }
}

#[derive(Clone, Copy)]
enum Comparison {
    Weak,
    Strong,
}

async fn content(method: &Method, file: OpenFile, selection: Selection) -> Response<Body> {
    let size = file.size;
    match selection {
        Selection::Whole => {
            let mut response = empty(StatusCode::OK);
            describe(&mut response, OCTETS, size);
            if method != Method::HEAD {
                *response.body_mut() = body(file, vec![Piece::File(0..size)]).await;
            }
            response
        }
        Selection::Unsatisfiable => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            content_range(&mut response, &format!("bytes */{size}"));
            response
        }
        Selection::Parts(parts) => {
            let mut response = empty(StatusCode::PARTIAL_CONTENT);
            let pieces = if let [part] = parts.as_slice() {
                let value = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                content_range(&mut response, &value);
                describe(&mut response, OCTETS, part.end - part.start);
                vec![Piece::File(part.clone())]
            } else {
                let boundary = format!("{:016x}", fastrand::u64(..));
                let pieces = multipart(&parts, size, &boundary);
                let length = pieces.iter().map(Piece::len).sum();
                let kind = format!("multipart/byteranges; boundary={boundary}");
                let kind = HeaderValue::try_from(kind).unwrap_or(OCTETS);
                describe(&mut response, kind, length);
                pieces
            };
            *response.body_mut() = body(file, pieces).await;
            response
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn describe(response: &mut Response<Body>, kind: HeaderValue, length: u64) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, length.into());
}

fn content_range(response: &mut Response<Body>, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
}

/// A stretch of a body.
enum Piece {
    Text(Bytes),
    File(Range<u64>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }

    /// The same in pieces that are read at a time.
    fn split(self) -> impl Iterator<Item = Self> {
        let (text, range) = match self {
            Self::Text(text) => (Some(text), 0..0),
            Self::File(range) => (None, range),
        };
        let end = range.end;
        let files = range.step_by(CHUNK).map(move |start| {
            let after = start.saturating_add(CHUNK as u64).min(end);
            Self::File(start..after)
        });
        text.map(Self::Text).into_iter().chain(files)
    }
}

fn multipart(parts: &[Range<u64>], size: u64, boundary: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for part in parts {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
            part.start,
            part.end - 1,
        );
        pieces.push(Piece::Text(head.into()));
        pieces.push(Piece::File(part.clone()));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

/// Small bodies in one piece, which saves the client a packet; the rest as a stream that reads as fast
/// as the client takes. A file that becomes shorter on the way breaks the connection, so that the
/// client knows.
async fn body(file: OpenFile, pieces: Vec<Piece>) -> Body {
    let total: u64 = pieces.iter().map(Piece::len).sum();
    let sending = Sending {
        file,
        pieces: pieces.into_iter().flat_map(Piece::split).peekable(),
        ahead: None,
        buffers: [BytesMut::new(), BytesMut::new()].into(),
    };
    let mut chunks = Box::pin(stream::try_unfold(sending, |mut sending| async move {
        let chunk = sending.next().await?;
        Ok::<_, io::Error>(chunk.map(|chunk| (chunk, sending)))
    }));
    if total <= CHUNK as u64 {
        let mut whole = Vec::new();
        loop {
            match chunks.try_next().await {
                Ok(Some(chunk)) if whole.is_empty() && chunk.len() as u64 == total => {
                    return Body::from(chunk);
                }
                Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
                Ok(None) => return Body::from(whole),
                Err(error) => {
                    return Body::from_stream(stream::once(async { Err::<Bytes, _>(error) }));
                }
            }
        }
    }
    Body::from_stream(chunks)
}

/// The pieces that are left, and what is known of the next.
struct Sending<P: Iterator<Item = Piece>> {
    file: OpenFile,
    pieces: Peekable<P>,
    /// Being read while the one before is sent.
    ahead: Option<Reading>,
    /// Two take turns: while the client is sent one, the other is free.
    buffers: VecDeque<BytesMut>,
}

impl<P: Iterator<Item = Piece>> Sending<P> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None => match self.pieces.next() {
                None => return Ok(None),
                Some(Piece::Text(text)) => return Ok(Some(text)),
                Some(Piece::File(range)) => self.begin(&range),
            },
        };
        let is_slow = reading.is_waiting();
        let (chunk, buffer) = reading.done().await?;
        self.buffers.push_back(buffer);
        // A copy from memory gains nothing by being made early, but the disk can work meanwhile.
        let is_file = |piece: &Piece| matches!(piece, Piece::File(_));
        if is_slow && let Some(Piece::File(range)) = self.pieces.next_if(is_file) {
            self.ahead = Some(self.begin(&range));
        }
        Ok(Some(chunk))
    }

    fn begin(&mut self, range: &Range<u64>) -> Reading {
        let length = usize::try_from(range.end - range.start).unwrap_or(CHUNK);
        let buffer = self.buffers.pop_front().unwrap_or_default();
        self.file.begin_read(range.start, length, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
    const LATER: &str = "Tue, 15 Nov 1994 12:45:27 GMT";
    const EARLIER: &str = "Tue, 15 Nov 1994 12:45:25 GMT";

    fn check(pairs: &[(header::HeaderName, &'static str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        let modified = httpdate::parse_http_date(TIME).unwrap();
        Validators {
            etag: Some("\"v1\""),
            modified,
        }
        .check(&headers)
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
        let send = Verdict::Send { ranges: true };
        let whole = Verdict::Send { ranges: false };
        for (pairs, verdict) in [
            (vec![], &send),
            (vec![(IF_MATCH, "\"v1\"")], &send),
            (vec![(IF_MATCH, "\"v0\", \"v1\"")], &send),
            (vec![(IF_MATCH, "*")], &send),
            (vec![(IF_MATCH, "W/\"v1\"")], &Verdict::Failed),
            (vec![(IF_MATCH, "\"v0\"")], &Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, TIME)], &send),
            (vec![(IF_UNMODIFIED_SINCE, EARLIER)], &Verdict::Failed),
            // A tag outranks a date.
            (
                vec![(IF_MATCH, "\"v1\""), (IF_UNMODIFIED_SINCE, EARLIER)],
                &send,
            ),
            (vec![(IF_NONE_MATCH, "W/\"v1\"")], &Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"v0\"")], &send),
            (vec![(IF_MODIFIED_SINCE, TIME)], &Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, LATER)], &Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, EARLIER)], &send),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], &send),
            (
                vec![(IF_NONE_MATCH, "\"v0\""), (IF_MODIFIED_SINCE, LATER)],
                &send,
            ),
            (vec![(IF_RANGE, "\"v1\"")], &send),
            (vec![(IF_RANGE, "\"v0\"")], &whole),
            (vec![(IF_RANGE, "W/\"v1\"")], &whole),
            (vec![(IF_RANGE, TIME)], &send),
            (vec![(IF_RANGE, LATER)], &whole),
        ] {
            assert_eq!(check(&pairs), *verdict, "{pairs:?}");
        }
    }
}
