//! The first bytes of a connection, which tell its protocol.
//!
//! The protocol detection of the HTTP library waits for them without a deadline, so a client that
//! connects and says nothing, or stops in the middle of the HTTP/2 preface, would keep its place for
//! ever. The connection loop therefore reads them here first, in its own time, and hands them on;
//! nothing here decides what they mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::requests::Traffic;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read at once: most heads fit.
const CHUNK: usize = 1024;

/// Reads until the bytes tell the protocol. Empty when the client left instead.
///
/// # Errors
/// When the stream cannot be read.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(CHUNK);
    loop {
        let read = stream.read_buf(&mut first).await?;
        let undecided = first.len() < PREFACE.len() && PREFACE.starts_with(&first);
        if read == 0 || !undecided {
            return Ok(first);
        }
    }
}

/// Whether the first bytes are those of a client that speaks HTTP/2.
pub(super) fn is_http2(first: &[u8]) -> bool {
    first.starts_with(PREFACE)
}

/// A stream whose first bytes have been read already, with its place under the limit of connections.
#[derive(Debug)]
pub(super) struct Opened<S, P> {
    first: Vec<u8>,
    /// How many of them have been read again.
    taken: usize,
    stream: S,
    traffic: Arc<Traffic>,
    _place: P,
}

impl<S, P> Opened<S, P> {
    pub(super) fn new(first: Vec<u8>, stream: S, traffic: Arc<Traffic>, place: P) -> Self {
        Self {
            first,
            taken: 0,
            stream,
            traffic,
            _place: place,
        }
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Opened<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.first.get(self.taken..).unwrap_or_default();
        if left.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let count = buffer.filled().len().saturating_sub(before);
            add(&self.traffic.received, count);
            return Poll::Ready(Ok(()));
        }
        let fits = left.len().min(buffer.remaining());
        buffer.put_slice(left.get(..fits).unwrap_or_default());
        self.taken += fits;
        if self.taken == self.first.len() {
            (self.first, self.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Opened<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        add(&self.traffic.sent, count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes))?;
        add(&self.traffic.sent, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn add(to: &AtomicU64, count: usize) {
    to.fetch_add(count as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is read of `sent`, which comes byte by byte and then ends.
    async fn first(sent: &[u8]) -> Vec<u8> {
        let (mut client, mut server) = tokio::io::duplex(1);
        let talk = async {
            // Fails when nobody wants the rest.
            client.write_all(sent).await.ok();
            drop(client);
        };
        let listen = async {
            let first = read(&mut server).await.unwrap();
            drop(server);
            first
        };
        tokio::join!(talk, listen).1
    }

    #[tokio::test]
    async fn no_more_is_read_than_tells_the_protocol() {
        for (sent, expected) in [
            (&b"GET / HTTP/1.1"[..], &b"G"[..]),
            (b"POST / HTTP/1.1", b"PO"),
            (b"PRIX / HTTP/1.1", b"PRIX"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", PREFACE),
            (b"PRI", b"PRI"),
            (b"", b""),
        ] {
            assert_eq!(first(sent).await, expected);
        }
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_and_then_the_rest() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"GET / and").await.unwrap();
        let first = read(&mut server).await.unwrap();
        assert_eq!(first, b"GET / and");
        client.write_all(b" more").await.unwrap();
        drop(client);
        let traffic = Arc::<Traffic>::default();
        let mut opened = Opened::new(first, server, traffic.clone(), ());
        let mut small = [0; 5];
        opened.read_exact(&mut small).await.unwrap();
        let mut rest = String::new();
        opened.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&small, rest.as_str()), (b"GET /", " and more"));
        assert_eq!(traffic.received.load(Ordering::Relaxed), 5);
    }
}
