//! The bench's own HTTP/1.1 client: one connection, one request at a time, nothing kept of the answer.
//!
//! It knows what the scenes need: answers with a length, and upgrades. Anything else is a fault.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for an answer's head, and for one read of its body.
const BUFFER: usize = 64 * 1024;
/// Room while something large passes.
pub const LARGE_BUFFER: usize = 256 * 1024;

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom.
    pub address: SocketAddr,
    /// The path.
    pub path: String,
    /// Headers besides `Host`.
    pub headers: Vec<(&'static str, String)>,
}

/// An answer whose body has been read and counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold something unread.
    filled: usize,
}

impl Request {
    /// The bytes of a request with more header lines, each ending in CRLF.
    pub fn head(&self, method: &str, more: &str) -> String {
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n",
            self.path, self.address
        );
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend([more, "\r\n"]);
        head
    }

    /// The same for another path.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            filled: 0,
        })
    }

    /// Gives reads more room.
    pub fn enlarge(&mut self) {
        self.buffer.resize(LARGE_BUFFER, 0);
    }

    /// Sends the bytes of a request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("cannot send")
    }

    /// Reads an answer and throws its body away.
    pub async fn answer(&mut self) -> Result<Answer> {
        let head = self.head().await?;
        let length = match head.length {
            Some(length) => {
                self.skip(length).await?;
                length
            }
            None if head.chunked => self.chunks().await?,
            None => bail!("an answer {} without a length", head.status),
        };
        ensure!(
            self.filled == 0,
            "more came than the answer's {length} bytes"
        );
        Ok(Answer {
            status: head.status,
            length,
        })
    }

    /// Throws this many bytes away.
    async fn skip(&mut self, count: u64) -> Result<()> {
        let held = usize::try_from(count).map_or(self.filled, |count| count.min(self.filled));
        self.consume(held);
        let mut missing = count - u64::try_from(held)?;
        while missing > 0 {
            let most = usize::try_from(missing).unwrap_or(usize::MAX);
            let room = most.min(self.buffer.len());
            let room = self.buffer.get_mut(..room).unwrap_or_default();
            let read = self.stream.read(room).await?;
            ensure!(read > 0, "{missing} of {count} bytes are missing");
            missing -= u64::try_from(read)?;
        }
        Ok(())
    }

    /// Throws a body in chunks away, and tells how long it was.
    async fn chunks(&mut self) -> Result<u64> {
        const END: &[u8] = b"\r\n";
        let mut length = 0;
        loop {
            let held = self.buffer.get(..self.filled).unwrap_or_default();
            let Some(end) = held.windows(END.len()).position(|window| window == END) else {
                self.fill().await?;
                continue;
            };
            let line = String::from_utf8_lossy(held.get(..end).unwrap_or_default());
            let size = u64::from_str_radix(&line, 16)
                .with_context(|| format!("{line:?} is no size of a chunk"))?;
            self.consume(end + END.len());
            // There are no trailers, so the last one ends like the others.
            self.skip(size + u64::try_from(END.len())?).await?;
            if size == 0 {
                return Ok(length);
            }
            length += size;
        }
    }

    /// Reads an answer whose body is a short text.
    pub async fn text(&mut self) -> Result<(u16, String)> {
        let head = self.head().await?;
        let length = usize::try_from(head.length.context("an answer without a length")?)?;
        ensure!(
            length <= self.buffer.len(),
            "{length} bytes are no short text"
        );
        while self.filled < length {
            self.fill().await?;
        }
        let body = self.buffer.get(..length).unwrap_or_default();
        let text = String::from_utf8_lossy(body).into_owned();
        self.consume(length);
        Ok((head.status, text))
    }

    /// Reads the head of an answer that switches protocols.
    pub async fn switched(&mut self) -> Result<()> {
        let head = self.head().await?;
        ensure!(
            head.status == 101,
            "the upgrade was answered {}",
            head.status
        );
        Ok(())
    }

    /// Reads this many bytes behind an upgrade.
    pub async fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        ensure!(count <= self.buffer.len(), "{count} bytes are too many");
        while self.filled < count {
            self.fill().await?;
        }
        let bytes = self.buffer.get(..count).unwrap_or_default().to_vec();
        self.consume(count);
        Ok(bytes)
    }

    /// Gives the buffer back, for a connection that will only be held.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn head(&mut self) -> Result<Head> {
        loop {
            let held = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some((head, length)) = Head::parse(held)? {
                self.consume(length);
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        ensure!(
            !room.is_empty(),
            "an answer's head is longer than {BUFFER} bytes"
        );
        let read = self.stream.read(room).await.context("cannot receive")?;
        if read == 0 {
            bail!("the connection was closed within an answer");
        }
        self.filled += read;
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// The head at the start of these bytes and its own length, once all of it is there.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())
            .context("an answer's head is no text")?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .with_context(|| format!("no status line: {line:?}"))?;
        // This status never has a body, and says nothing about its length.
        let mut length = (status == 204).then_some(0);
        let mut chunked = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let value = value.trim();
                length = Some(value.parse().with_context(|| format!("length {value:?}"))?);
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding")
                && value.trim().eq_ignore_ascii_case("chunked");
        }
        let head = Self {
            status,
            length,
            chunked,
        };
        Ok(Some((head, end + END.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_complete() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 12\r\n\r\nhello";
        let (head, length) = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.length), (200, Some(12)));
        assert_eq!(text.get(length..).unwrap(), b"hello");
        assert_eq!(Head::parse(text.get(..40).unwrap()).unwrap(), None);
        let (head, _) = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.status, head.length), (204, Some(0)));
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn bodies_in_chunks_are_counted_and_what_follows_is_an_answer_of_its_own() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let large = "x".repeat(100_000);
            for piece in [
                head,
                "5\r\nhello\r\n",
                "186A0\r\n",
                &large,
                "\r\n0\r",
                "\n\r\n",
            ] {
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
            stream
        };
        let ask = async {
            let mut connection = Connection::open(address).await.unwrap();
            let answer = connection.answer().await.unwrap();
            assert_eq!((answer.status, answer.length), (200, 100_005));
            assert_eq!(connection.filled, 0);
            connection
        };
        let (mut stream, mut connection) = tokio::join!(serve, ask);
        let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
        stream.write_all(broken).await.unwrap();
        drop(stream);
        assert!(connection.answer().await.is_err());
    }

    #[test]
    fn requests_carry_their_headers() {
        let request = Request {
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            path: "/2".to_owned(),
            headers: vec![("X-Sandbox-ID", "box".to_owned())],
        };
        assert_eq!(
            request.at("/3").head("GET", "A: b\r\n"),
            "GET /3 HTTP/1.1\r\nHost: 127.0.0.1:80\r\nX-Sandbox-ID: box\r\nA: b\r\n\r\n"
        );
    }
}
