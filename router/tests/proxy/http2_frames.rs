//! HTTP/2 requests that no library would make, written frame by frame.

use crate::rig::{self, Rig};
use crate::sandbox::Sandbox;
use crate::wire::Wire;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block in which every field is spelt out.
fn fields(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(*text);
        }
    }
    block
}

/// How a request was answered.
#[derive(Debug, Eq, PartialEq)]
enum Fate {
    /// With a response.
    Answered,
    /// With an error of its stream, or of the whole connection.
    Refused,
}

/// Sends one request with these fields and this body, and says how it was answered and what reached
/// the sandbox.
async fn request(extra: &[(&[u8], &[u8])], body: &[&[u8]]) -> (Fate, Vec<String>) {
    let stub = Sandbox::recording();
    let rig = Rig::start(rig::config());
    let port = stub.sandbox.port().to_string();
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    for (name, value) in [
        (&b":method"[..], &b"POST"[..]),
        (b":scheme", b"http"),
        (b":path", b"/h2"),
        (b":authority", b"router"),
        (b"x-sandbox-id", b"box"),
        (b"x-sandbox-namespace", b"ns"),
        (b"x-sandbox-port", port.as_bytes()),
    ] {
        // What the test says itself replaces the usual.
        if extra.iter().all(|(given, _)| *given != name) {
            pairs.push((name, value));
        }
    }
    let (pseudo, others): (Vec<_>, Vec<_>) =
        extra.iter().partition(|(name, _)| name.starts_with(b":"));
    let pairs = [pseudo, pairs, others].concat();
    let mut wire = rig.connect().await;
    wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let end = if body.is_empty() { END_STREAM } else { 0 };
    let mut bytes = frame(SETTINGS, 0, 0, &[]);
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &fields(&pairs)));
    for (index, part) in body.iter().enumerate() {
        let end = if index + 1 == body.len() {
            END_STREAM
        } else {
            0
        };
        bytes.extend(frame(DATA, end, 1, part));
    }
    wire.write(bytes).await;
    let fate = fate(&mut wire).await;
    drop(wire);
    rig.stop().await;
    (fate, stub.heard())
}

async fn fate(wire: &mut Wire) -> Fate {
    loop {
        let head = wire.bytes(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = wire.bytes(length as usize).await;
        match head[3] {
            HEADERS => return Fate::Answered,
            RST_STREAM | GOAWAY => return Fate::Refused,
            SETTINGS if head[4] & ACK == 0 => wire.write(frame(SETTINGS, ACK, 0, &[])).await,
            _ => drop(payload),
        }
    }
}

#[tokio::test]
async fn an_ordinary_request_passes() {
    let (fate, heard) = request(&[(b"content-length", b"5")], &[b"he", b"llo"]).await;
    assert_eq!(fate, Fate::Answered);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("POST /h2 HTTP/1.1\r\n"), "{heard:?}");
    assert!(heard[0].contains("content-length: 5\r\n") && heard[0].ends_with("\r\n\r\nhello"));
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_never_a_whole_request() {
    for (announced, body) in [
        (&b"10"[..], &[&b"hello"[..]][..]),
        (b"3", &[b"hello"]),
        (b"0", &[b"GET /second HTTP/1.1\r\nHost: evil\r\n\r\n"]),
        (b"5", &[]),
    ] {
        let (_, heard) = request(&[(b"content-length", announced)], body).await;
        for text in &heard {
            assert!(!text.contains("second"), "{text}");
            let (fields, sent) = text.split_once("\r\n\r\n").unwrap();
            // The sandbox waits for the rest, which never comes.
            let length = format!("content-length: {}", String::from_utf8_lossy(announced));
            assert!(fields.contains(&length), "{text}");
            assert!(sent.len() < announced.len() * 10, "{text}");
            assert_ne!(sent.len().to_string().as_bytes(), announced, "{text}");
        }
    }
}

#[tokio::test]
async fn fields_that_would_break_out_of_a_line_are_refused() {
    for (name, value) in [
        (&b"x-a"[..], &b"1\r\nx-sandbox-id: other"[..]),
        (b"x-a", b"1\nx-b: 2"),
        (b"x-a", b"1\0"),
        (b"x-a: 1\r\nx-b", b"2"),
        (b"x a", b"1"),
        (b"X-Upper", b"1"),
        (b"", b"1"),
        (b":path", b"/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /second"),
        (b":path", b"/a b"),
        (b":path", b"nowhere"),
        (b":path", b""),
        (b":method", b"GET / HTTP/1.1\r\nHost: evil\r\n\r\nGET"),
        (b":authority", b"router\r\nx-b: 2"),
        (b":authority", b"a b"),
        (b":scheme", b"http\r\nx-b: 2"),
        (b":unknown", b"1"),
        (b"connection", b"x-sandbox-id"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
    ] {
        let shown = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        let (fate, heard) = request(&[(name, value)], &[]).await;
        assert_eq!((fate, heard.len()), (Fate::Refused, 0), "{shown:?}");
    }
}

#[tokio::test]
async fn the_authority_is_told_and_never_followed() {
    let extra: [(&[u8], &[u8]); 2] = [
        (b":authority", b"user:secret@evil.example:99"),
        (b"cookie", b"a=1"),
    ];
    let (fate, heard) = request(&extra, &[]).await;
    assert_eq!((fate, heard.len()), (Fate::Answered, 1));
    assert!(
        heard[0].contains("x-forwarded-host: evil.example:99\r\n"),
        "{heard:?}"
    );
    assert!(!heard[0].contains("secret") && heard[0].contains("host: 127.0.0.1:"));
}

#[tokio::test]
async fn authority_and_host_that_differ_do_not_both_arrive() {
    let (_, heard) = request(&[(b"host", b"other.example")], &[]).await;
    for text in &heard {
        assert!(!text.contains("other.example"), "{text}");
        assert_eq!(text.matches("\r\nhost: ").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn trailers_cannot_route_or_authenticate() {
    let stub = Sandbox::recording();
    let rig = Rig::start(rig::config());
    let port = stub.sandbox.port().to_string();
    let head = fields(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/h2"),
        (b":authority", b"router"),
        (b"x-sandbox-id", b"box"),
        (b"x-sandbox-namespace", b"ns"),
        (b"x-sandbox-port", port.as_bytes()),
        (b"trailer", b"x-checksum, authorization, x-sandbox-id"),
    ]);
    let trailers = fields(&[
        (b"x-checksum", b"kept"),
        (b"authorization", b"Bearer secret"),
        (b"x-sandbox-id", b"other"),
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"cookie", b"secret"),
    ]);
    let mut wire = rig.connect().await;
    wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let bytes = [
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, 0, 1, b"hello"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    ];
    wire.write(bytes.concat()).await;
    assert_eq!(fate(&mut wire).await, Fate::Answered);
    drop(wire);
    rig.stop().await;
    let all = stub.heard().concat();
    assert!(
        all.ends_with("5\r\nhello\r\n0\r\nx-checksum: kept\r\n\r\n"),
        "{all}"
    );
    assert!(!all.contains("secret") && !all.contains("6.6.6.6"), "{all}");
}
