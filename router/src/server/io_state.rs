//! A client's socket, and what the connection loop must know about its use.
//!
//! hyper does not say when a connection is idle, so the socket watches: bytes read, bytes written,
//! buffers flushed, a request in flight. All of it happens inside the task of the connection; the
//! atomics only make the state shareable with the request's body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What is written in one piece at most when it comes in several.
const SMALL: usize = 1024;

/// A client's socket.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket underneath.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Has the socket let go of the task that waited for it last.
    pub(super) fn let_go(&self) {
        let nobody = &mut Context::from_waker(Waker::noop());
        // Whether it has bytes is asked when somebody waits again.
        drop(self.socket().poll_read_ready(nobody));
    }
}

/// The socket as hyper sees it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    /// Bytes that were read before hyper took over.
    first: Bytes,
    state: Arc<State>,
}

/// What happens on a connection.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// A request is being answered.
    busy: AtomicBool,
    /// The body of the current request has not been read to its end.
    body_open: AtomicBool,
    /// Bytes came that are not a whole request head yet.
    head_begun: AtomicBool,
    /// Everything written has reached the socket.
    flushed: AtomicBool,
    /// The client takes nothing.
    stalled: AtomicBool,
    /// Requests so far.
    requests: AtomicU64,
    /// Bytes written so far, to see progress of a slow client.
    written: AtomicU64,
}

impl State {
    /// A request has arrived.
    pub(super) fn request(&self, has_body: bool) {
        self.busy.store(true, Ordering::Relaxed);
        self.body_open.store(has_body, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The body of the request has been read to its end.
    pub(crate) fn body_read(&self) {
        self.body_open.store(false, Ordering::Relaxed);
    }

    /// The response has been handed to hyper.
    pub(super) fn answered(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.flushed.store(false, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether part of a request head has come.
    pub(super) fn has_partial_head(&self) -> bool {
        !self.is_busy() && self.head_begun.load(Ordering::Relaxed)
    }

    /// Whether nothing is under way in either direction, so that all HTTP state can be dropped.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy()
            && !self.body_open.load(Ordering::Relaxed)
            && !self.head_begun.load(Ordering::Relaxed)
            && self.flushed.load(Ordering::Relaxed)
    }

    /// Bytes written so far, if the client takes no more.
    pub(super) fn stalled_at(&self) -> Option<u64> {
        self.stalled
            .load(Ordering::Relaxed)
            .then(|| self.written.load(Ordering::Relaxed))
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Pending => self.stalled.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(n)) => {
                self.stalled.store(false, Ordering::Relaxed);
                self.flushed.store(false, Ordering::Relaxed);
                self.written.fetch_add(*n as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl Watched {
    pub(super) fn new(stream: Stream, first: Bytes, state: Arc<State>) -> Self {
        if !first.is_empty() {
            state.head_begun.store(true, Ordering::Relaxed);
        }
        Self {
            stream,
            first,
            state,
        }
    }

    /// The bare socket of an idle connection. hyper has read the first bytes long ago: it was
    /// waiting for more when the connection was found idle.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(this.first.get(..n).unwrap_or_default());
            this.first.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let outcome = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if outcome.is_ready() && buf.filled().len() > before && !this.state.is_busy() {
            this.state.head_begun.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.state.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total <= SMALL {
            // To put a head and a small body together costs less than to have the system do it.
            let mut together = [0; SMALL];
            let mut end = 0;
            for buf in bufs {
                if let Some(room) = together.get_mut(end..end + buf.len()) {
                    room.copy_from_slice(buf);
                    end += buf.len();
                }
            }
            return self.poll_write(cx, together.get(..end).unwrap_or_default());
        }
        let outcome = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.state.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        // hyper flushes the socket only once its own buffer is empty.
        if let Poll::Ready(Ok(())) = outcome {
            self.state.flushed.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
