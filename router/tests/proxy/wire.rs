//! A client, and the reading half of a sandbox, that see every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::DEADLINE;

/// A stream and what was read from it but not yet looked at.
#[derive(Debug)]
pub(crate) struct Wire<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    patience: Duration,
    transcript: Option<Arc<Mutex<Vec<u8>>>>,
}

/// The head of a message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// A response with its body.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Head {
    /// The only value of a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let first = values.next();
        assert!(values.next().is_none(), "{name} is repeated: {self:?}");
        first
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The text of an error of the router.
    pub(crate) fn detail(&self) -> String {
        assert!(
            self.head.get("x-sandbox-router-error").is_some(),
            "{self:?}"
        );
        assert_eq!(self.head.get("content-type"), Some("application/json"));
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        value["detail"].as_str().unwrap().to_owned()
    }

    pub(crate) fn reason(&self) -> &str {
        self.head.get("x-sandbox-router-error").unwrap_or("none")
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            patience: DEADLINE,
            transcript: None,
        }
    }

    /// Keeps a copy of every byte that is read.
    pub(crate) fn transcribed(mut self, into: Arc<Mutex<Vec<u8>>>) -> Self {
        self.transcript = Some(into);
        self
    }

    /// For the side that a test does not watch: it waits however far a test moves its clock.
    pub(crate) fn patient(mut self) -> Self {
        self.patience = Duration::MAX;
        self
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// More bytes, or `None` at the end of the stream. A reset counts as an end.
    async fn fill(&mut self) -> Option<()> {
        let read = tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.buffer));
        let n = read.await.expect("bytes in time").unwrap_or(0);
        if let Some(transcript) = &self.transcript {
            let new = &self.buffer[self.buffer.len() - n..];
            transcript.lock().extend_from_slice(new);
        }
        (n > 0).then_some(())
    }

    /// The next head; `None` when the stream ended instead.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.fill().await?;
        };
        let text: Vec<u8> = self.buffer.drain(..end + 4).take(end).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        Some(Head {
            line,
            fields: lines.map(field).collect(),
        })
    }

    /// Exactly `n` bytes.
    pub(crate) async fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            self.fill().await.expect("the stream goes on");
        }
        self.buffer.drain(..n).collect()
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await.is_some() {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads `n` bytes and throws them away; how many there were before the end.
    pub(crate) async fn rest_of(&mut self, n: usize) -> usize {
        let mut read = 0;
        loop {
            read += self.buffer.len();
            self.buffer.clear();
            if read >= n || self.fill().await.is_none() {
                return read;
            }
        }
    }

    /// Whether the other side has closed, with nothing left to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().await.is_none()
    }

    async fn line(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.fill().await?;
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        Some(String::from_utf8(line).unwrap())
    }

    /// One chunk; `None` for the last one.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().await.expect("a chunk");
        let size = usize::from_str_radix(&size, 16).unwrap();
        if size == 0 {
            return None;
        }
        let chunk = self.bytes(size).await;
        assert_eq!(self.line().await.as_deref(), Some(""));
        Some(chunk)
    }

    /// A whole chunked body and its trailers.
    pub(crate) async fn chunked(&mut self) -> (Vec<u8>, Vec<(String, String)>) {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        let mut trailers = Vec::new();
        while let Some(line) = self.line().await.filter(|line| !line.is_empty()) {
            trailers.push(field(&line));
        }
        (body, trailers)
    }

    /// The body that a head announces.
    pub(crate) async fn body(&mut self, head: &Head) -> (Vec<u8>, Vec<(String, String)>) {
        if head.get("transfer-encoding") == Some("chunked") {
            return self.chunked().await;
        }
        let length = head.get("content-length").map_or(0, |n| n.parse().unwrap());
        (self.bytes(length).await, Vec::new())
    }

    /// The same; `None` if the stream ends in the middle of it.
    pub(crate) async fn try_body(&mut self, head: &Head) -> Option<()> {
        if head.get("transfer-encoding") == Some("chunked") {
            while find(&self.buffer, b"\r\n0\r\n").is_none() && !self.buffer.starts_with(b"0\r\n") {
                self.fill().await?;
            }
            while find(&self.buffer, b"\r\n\r\n").is_none() {
                self.fill().await?;
            }
            self.chunked().await;
            return Some(());
        }
        let length = head.get("content-length").map_or(0, |n| n.parse().unwrap());
        while self.buffer.len() < length {
            self.fill().await?;
        }
        self.buffer.drain(..length);
        Some(())
    }

    /// The response to anything but HEAD.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await.expect("a response");
        let status = head.line.split(' ').nth(1).unwrap().parse().unwrap();
        let (body, trailers) = self.body(&head).await;
        Reply {
            status,
            head,
            body,
            trailers,
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').expect("a header field");
    (name.to_owned(), value.trim().to_owned())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
