//! Just enough of RFC 6455 for both ends of a WebSocket: the handshake with one fixed key, and frames.
//!
//! The key is the sample of the RFC, section 1.3, so that its answer is known without computing one.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The client's key.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The server's answer to it.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Says that the length follows in two bytes.
const MEDIUM: u8 = 0x7e;
/// Says that the length follows in eight bytes.
const LONG: u8 = 0x7f;
/// Longest payload that is read.
const MAX_PAYLOAD: u64 = 16 * 1024 * 1024;
/// A client must mask what it sends; which mask does not matter here.
const MASK: [u8; 4] = [0x51, 0x2e, 0xa7, 0x0c];

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A binary message.
    Binary,
    /// The end; the payload begins with its code.
    Close,
    /// Answered with the same payload.
    Ping,
    /// The answer.
    Pong,
}

/// Who sends a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Masks its frames.
    Client,
    /// Does not.
    Server,
}

/// A whole message: fragments are not made by either end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub payload: Vec<u8>,
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn of(first: u8) -> Option<Self> {
        [Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|kind| first == 0x80 | kind.opcode())
    }
}

/// The bytes of one frame.
pub fn frame(kind: Kind, payload: &[u8], from: End) -> Vec<u8> {
    let masked = match from {
        End::Client => 0x80,
        End::Server => 0,
    };
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | kind.opcode());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => frame.push(masked | length),
        (_, Ok(length)) => {
            frame.push(masked | MEDIUM);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(masked | LONG);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    match from {
        End::Client => {
            frame.extend(MASK);
            let masks = MASK.iter().cycle();
            frame.extend(payload.iter().zip(masks).map(|(byte, mask)| byte ^ mask));
        }
        End::Server => frame.extend_from_slice(payload),
    }
    frame
}

/// Sends one message.
///
/// # Errors
/// As the connection does.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    payload: &[u8],
    from: End,
) -> io::Result<()> {
    stream.write_all(&frame(kind, payload, from)).await?;
    stream.flush().await
}

/// Receives one message that the other end sent; `None` at the end of the connection.
///
/// # Errors
/// As the connection does, and for what is no whole message of the other end.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), from: End) -> io::Result<Option<Message>> {
    let refused = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 2];
    if stream.read(head.split_at_mut(1).0).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(head.split_at_mut(1).1).await?;
    let [first, second] = head;
    let kind = Kind::of(first).ok_or_else(|| refused("unexpected kind of frame"))?;
    if (second & 0x80 != 0) != (from == End::Client) {
        return Err(refused("masked by the wrong end"));
    }
    let length = match second & 0x7f {
        MEDIUM => u64::from(stream.read_u16().await?),
        LONG => stream.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_PAYLOAD {
        return Err(refused("too long a frame"));
    }
    let mut mask = [0; 4];
    if from == End::Client {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(Message { kind, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_of_every_length_arrive_from_either_end() {
        for from in [End::Client, End::Server] {
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                let payload: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
                let bytes = frame(Kind::Binary, &payload, from);
                let mut stream = bytes.as_slice();
                let message = read(&mut stream, from).await.unwrap().unwrap();
                assert_eq!(message.kind, Kind::Binary);
                assert!(message.payload == payload, "{length} bytes");
                assert!(read(&mut stream, from).await.unwrap().is_none());
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_message_of_the_other_end_is_refused() {
        let server = frame(Kind::Ping, b"x", End::Server);
        assert!(read(&mut server.as_slice(), End::Client).await.is_err());
        let client = frame(Kind::Ping, b"x", End::Client);
        assert!(read(&mut client.as_slice(), End::Server).await.is_err());
        // A text frame, a fragment, and a frame that is cut off.
        for bytes in [&[0x81, 0][..], &[0x02, 0], &[0x82, 5, 1]] {
            let mut stream = bytes;
            assert!(read(&mut stream, End::Server).await.is_err(), "{bytes:?}");
        }
    }
}
