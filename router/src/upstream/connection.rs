//! One HTTP/1.1 connection to a sandbox.
//!
//! ```text
//!         begin                 poll_head                 poll_body
//! idle ----------> a request ------------> an answer ------------------> idle, or ended
//!   ^                 |                        |
//!   |                 | nothing was written    | 101
//!   |                 v                        v
//!   |          the request returns         a socket
//! ```
//!
//! A connection has no task: whoever waits for its answer drives it, request and answer at once, so that
//! an early answer is seen while the request is still being sent. While idle it is a socket and
//! nothing else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::framing::{Decoder, FramingError};
use super::head::{self, Framing, Head, HeadError};
use super::pool::Key;
use crate::forward::body::{RequestBody, RequestBodyError};

/// Bytes asked for at once at first.
const FIRST_READ: usize = 8 * 1024;
/// Bytes asked for at once at most, reached while a large answer streams.
const LARGEST_READ: usize = 256 * 1024;
/// Most interim answers before the final one.
const MAX_INTERIM: u8 = 32;

/// A connection and where it stands.
#[derive(Debug)]
pub(crate) struct Http1 {
    key: Key,
    host: HeaderValue,
    stream: TcpStream,
    /// What was read and not taken yet.
    input: BytesMut,
    /// Bytes to ask for next.
    read_size: usize,
    sending: Sending,
    answer: Answer,
    keep_alive: bool,
}

/// A request on its way.
#[derive(Debug, Default)]
struct Sending {
    request: Option<Box<Request<RequestBody>>>,
    framing: Option<Framing>,
    method: Method,
    out: Out,
    /// Whether the system took anything of this request.
    is_begun: bool,
    /// What was fetched cannot be put back.
    is_spent: bool,
    /// The sandbox takes no more; what it says about that may still be read.
    is_cut: bool,
}

/// What is to be written next.
#[derive(Debug, Default)]
struct Out {
    before: BytesMut,
    data: Bytes,
    after: BytesMut,
}

#[derive(Debug)]
enum Answer {
    /// None is expected.
    None,
    /// A head, of which so many bytes were looked at, after so many interim ones.
    Head { seen: usize, interim: u8 },
    /// A body.
    Body(Decoder),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Http1Error {
    /// The connection had ended before anything was written.
    #[error("the connection ended before the request was sent")]
    NotSent(Box<Request<RequestBody>>),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The head cannot be understood.
    #[error("the answer cannot be understood")]
    Head(#[from] HeadError),
    /// The body cannot be followed.
    #[error("the answer cannot be followed to its end")]
    Framing(#[from] FramingError),
    /// The client's body failed.
    #[error("the request body failed")]
    Body(#[from] RequestBodyError),
    /// The client's body is shorter or longer than it was said to be.
    #[error("the request body is not as long as it was said to be")]
    BodyLength,
    /// Nothing but interim answers.
    #[error("more than {MAX_INTERIM} interim answers")]
    Interim,
}

impl Http1 {
    pub(super) fn new(key: Key, host: HeaderValue, stream: TcpStream) -> Self {
        Self {
            key,
            host,
            stream,
            input: BytesMut::new(),
            read_size: FIRST_READ,
            sending: Sending::default(),
            answer: Answer::None,
            keep_alive: true,
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Takes a request to be sent to `path`. Nothing happens yet.
    pub(crate) fn begin(&mut self, request: Box<Request<RequestBody>>, path: &str) {
        let body = request.body();
        let framing = Framing::of(body.is_end_stream(), &body.size_hint());
        let sending = &mut self.sending;
        head::write(
            &mut sending.out.before,
            (request.method(), path),
            &self.host,
            request.headers(),
            framing,
        );
        sending.method = request.method().clone();
        sending.framing = (framing != Framing::None).then_some(framing);
        sending.request = Some(request);
        self.answer = Answer::Head {
            seen: 0,
            interim: 0,
        };
    }

    /// Waits for the head of the answer, and meanwhile sends the request.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Http1Error>> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            let Answer::Head { seen, interim } = &mut self.answer else {
                return Poll::Pending;
            };
            if self.input.len() > *seen {
                if let Some(head) = head::read(&mut self.input, *seen)? {
                    if !head.is_interim() {
                        return Poll::Ready(self.accept(head));
                    }
                    (*seen, *interim) = (0, *interim + 1);
                    if *interim > MAX_INTERIM {
                        return Poll::Ready(Err(Http1Error::Interim));
                    }
                    if head.status == StatusCode::CONTINUE {
                        self.sending.go_on();
                    }
                    continue;
                }
                *seen = self.input.len();
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(self.failed(early)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    /// What has been read of the answer's body, and meanwhile sends what is left of the request.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Answer::Body(decoder) = &mut self.answer else {
                return Poll::Ready(None);
            };
            match decoder.decode(&mut self.input) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    let Answer::Body(decoder) = &mut self.answer else {
                        return Poll::Ready(None);
                    };
                    return Poll::Ready(decoder.close().err().map(|error| Err(error.into())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Whether the answer has been taken to its end.
    pub(crate) fn is_answered(&self) -> bool {
        match &self.answer {
            Answer::Body(decoder) => decoder.is_done(),
            Answer::Head { .. } | Answer::None => false,
        }
    }

    /// What is known of the length of the rest of the answer.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Body(decoder) => decoder.size_hint(),
            Answer::Head { .. } | Answer::None => SizeHint::default(),
        }
    }

    /// Makes the connection ready for another request. False if it can carry none.
    pub(super) fn rest(&mut self) -> bool {
        let is_clean = self.keep_alive
            && self.is_answered()
            && self.input.is_empty()
            && self.sending.is_done()
            && !self.sending.is_cut;
        if !is_clean {
            return false;
        }
        self.answer = Answer::None;
        self.sending = Sending::default();
        // The memory is needed elsewhere while nothing is read.
        self.input = BytesMut::new();
        self.read_size = FIRST_READ;
        // The socket lets go of the task that used it last.
        let idle = self
            .stream
            .poll_read_ready(&mut Context::from_waker(Waker::noop()));
        idle.is_pending() || self.is_open()
    }

    /// Whether an idle connection has neither ended nor said anything unasked.
    pub(super) fn is_open(&self) -> bool {
        let silent = self.stream.try_read(&mut [0]);
        silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The socket of a connection that switched protocols, and what was read from it since.
    pub(crate) fn into_upgraded(self) -> (TcpStream, Bytes) {
        (self.stream, self.input.freeze())
    }

    /// The final head: from here on the body counts.
    fn accept(&mut self, mut head: Head) -> Result<Head, Http1Error> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // The bytes that follow are the other protocol's, so those before must be complete.
            if !self.sending.is_done() {
                return Err(HeadError::Length.into());
            }
            self.keep_alive = false;
            self.answer = Answer::None;
            return Ok(head);
        }
        let decoder = head.body(&self.sending.method)?;
        self.keep_alive = head.keep_alive;
        self.answer = Answer::Body(decoder);
        Ok(head)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // What is left of the memory before is used while it is worth a call.
        if self.input.spare_capacity_mut().len() < self.read_size / 4 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.spare_capacity_mut().len();
        let read = ready!(poll_read_buf(
            Pin::new(&mut self.stream),
            cx,
            &mut self.input
        ))?;
        if read == room {
            self.read_size = (2 * self.read_size).min(LARGEST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what can be sent. Ready when there is nothing left to send, whether the sandbox took it
    /// or not.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        loop {
            let sending = &mut self.sending;
            if sending.is_done() || sending.is_cut {
                return Poll::Ready(Ok(()));
            }
            // A small body leaves together with its head.
            let fetched = sending.poll_fetch(cx)?;
            if !sending.out.has_remaining() {
                ready!(fetched);
                continue;
            }
            match ready!(sending.out.poll_write(&mut self.stream, cx)) {
                Ok(_) => {
                    sending.is_begun = true;
                    sending.let_go();
                }
                Err(error) => {
                    if !sending.is_begun {
                        return Poll::Ready(Err(self.failed(error)));
                    }
                    sending.is_cut = true;
                }
            }
        }
    }

    /// The connection failed before there was an answer.
    fn failed(&mut self, error: io::Error) -> Http1Error {
        match self.sending.take_unsent() {
            Some(request) => Http1Error::NotSent(request),
            None => error.into(),
        }
    }
}

impl Sending {
    fn is_done(&self) -> bool {
        self.framing.is_none() && !self.out.has_remaining()
    }

    /// The sandbox asks for the body.
    fn go_on(&mut self) {
        if let Some(request) = &mut self.request {
            request.body_mut().go_on();
        }
    }

    /// Fetches what the client sends, while there is room. Ready when something was fetched, or
    /// nothing is left to.
    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        let (Some(framing), Some(request)) = (&mut self.framing, &mut self.request) else {
            return Poll::Ready(Ok(()));
        };
        if !self.out.has_room() {
            return Poll::Ready(Ok(()));
        }
        let body = request.body_mut();
        let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)?) else {
            return Poll::Ready(self.end(None));
        };
        let is_last = body.is_end_stream();
        match frame.into_data() {
            Ok(data) => {
                if let Framing::Length(left) = framing {
                    // More would be read as the next request.
                    *left = left
                        .checked_sub(data.len() as u64)
                        .ok_or(Http1Error::BodyLength)?;
                }
                self.out.push(*framing, data);
            }
            Err(frame) => {
                self.is_spent = true;
                return Poll::Ready(self.end(frame.trailers_ref()));
            }
        }
        Poll::Ready(if is_last { self.end(None) } else { Ok(()) })
    }

    /// The body is complete.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Http1Error> {
        match self.framing.take() {
            Some(Framing::Chunked) => head::write_last_chunk(&mut self.out.after, trailers),
            Some(Framing::Length(1..)) => return Err(Http1Error::BodyLength),
            Some(Framing::Length(0) | Framing::None) | None => {}
        }
        Ok(())
    }

    /// What was written needs no head any more, and what has no body nothing at all.
    fn let_go(&mut self) {
        if self.framing.is_none() {
            self.request = None;
        }
    }

    /// The request, if nothing of it was written.
    fn take_unsent(&mut self) -> Option<Box<Request<RequestBody>>> {
        if self.is_begun || self.is_spent {
            return None;
        }
        let mut request = self.request.take()?;
        request
            .body_mut()
            .put_back(std::mem::take(&mut self.out.data));
        Some(request)
    }
}

impl Out {
    fn has_remaining(&self) -> bool {
        self.before.has_remaining() || self.data.has_remaining() || self.after.has_remaining()
    }

    /// Whether another frame may be fetched: what is there waits for nothing but the system.
    fn has_room(&self) -> bool {
        !self.data.has_remaining() && !self.after.has_remaining()
    }

    fn push(&mut self, framing: Framing, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if framing == Framing::Chunked {
            let size = format!("{:x}\r\n", data.len());
            self.before.put_slice(size.as_bytes());
            self.after.put_slice(b"\r\n");
        }
        self.data = data;
    }

    fn poll_write(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = if self.data.is_empty() && self.after.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, &self.before))?
        } else {
            let parts = [
                IoSlice::new(&self.before),
                IoSlice::new(&self.data),
                IoSlice::new(&self.after),
            ];
            ready!(Pin::new(stream).poll_write_vectored(cx, &parts))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let before = written.min(self.before.len());
        self.before.advance(before);
        let data = (written - before).min(self.data.len());
        self.data.advance(data);
        self.after.advance(written - before - data);
        Poll::Ready(Ok(written))
    }
}
