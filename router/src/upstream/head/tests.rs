use http::header::TRAILER;
use proptest::prelude::*;

use super::*;

fn read_all(text: &str) -> Result<Option<Head>, HeadError> {
    read(&mut BytesMut::from(text), 0)
}

fn head(text: &str) -> Head {
    read_all(text).unwrap().unwrap()
}

/// How the body ends after this head, as an answer to a GET: a length, or a word.
fn end(fields: &str) -> Result<String, HeadError> {
    end_for(&Method::GET, "HTTP/1.1 200 OK", fields).map(|(end, _)| end)
}

fn end_for(asked: &Method, line: &str, fields: &str) -> Result<(String, bool), HeadError> {
    let mut head = head(&format!("{line}\r\n{fields}\r\n"));
    let body = head.body(asked)?;
    let end = match (
        body.size_hint().exact(),
        head.headers.get(TRANSFER_ENCODING),
    ) {
        (Some(length), _) => length.to_string(),
        (None, Some(_)) => "chunked".to_owned(),
        (None, None) => "close".to_owned(),
    };
    Ok((end, head.keep_alive))
}

#[test]
fn a_request_is_written_with_the_framing_of_its_connection() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (HOST, "client"),
        (CONTENT_LENGTH, "999"),
        (TRANSFER_ENCODING, "gzip"),
        (TRAILER, "x-sum"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    let host = HeaderValue::from_static("10.0.0.1:8888");
    let written = |method: &Method, framing| {
        let mut out = BytesMut::new();
        write(&mut out, (method, "/a%2Fb?c"), &host, &headers, framing);
        out.escape_ascii().to_string()
    };
    let common = "host: 10.0.0.1:8888\\r\\ntrailer: x-sum\\r\\nx-a: 1\\r\\nx-a: \\xff\\r\\n";
    assert_eq!(
        written(&Method::PUT, Framing::Length(7)),
        format!("PUT /a%2Fb?c HTTP/1.1\\r\\n{common}content-length: 7\\r\\n\\r\\n")
    );
    assert_eq!(
        written(&Method::POST, Framing::Chunked),
        format!("POST /a%2Fb?c HTTP/1.1\\r\\n{common}transfer-encoding: chunked\\r\\n\\r\\n")
    );
    assert_eq!(
        written(&Method::GET, Framing::None),
        format!("GET /a%2Fb?c HTTP/1.1\\r\\n{common}content-length: 0\\r\\n\\r\\n")
    );
    headers.remove(CONTENT_LENGTH);
    for (method, says) in [(Method::GET, ""), (Method::POST, "content-length: 0\r\n")] {
        let mut out = BytesMut::new();
        write(&mut out, (&method, "/"), &host, &headers, Framing::None);
        let text = out.escape_ascii().to_string();
        assert!(
            text.ends_with(&format!("{says}\r\n").escape_default().to_string()),
            "{text}"
        );
    }
}

#[test]
fn a_head_is_read_when_it_is_complete() {
    let text = "HTTP/1.1 404 Not Found\r\nA: b\r\nA: c\r\nEmpty:\r\n\r\n";
    let mut input = BytesMut::new();
    for byte in text.bytes() {
        let seen = input.len();
        assert!(read(&mut input, seen).unwrap().is_none());
        input.put_u8(byte);
    }
    let seen = input.len() - 1;
    input.put_slice(b"body");
    let head = read(&mut input, seen).unwrap().unwrap();
    assert_eq!(input, "body");
    assert_eq!(head.status, 404);
    assert!(head.keep_alive);
    let values: Vec<_> = head.headers.get_all("a").iter().collect();
    assert_eq!(values, ["b", "c"]);
    assert_eq!(head.headers["empty"], "");
}

#[test]
fn connections_end_as_they_say() {
    for (text, keep_alive) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        assert_eq!(head(text).keep_alive, keep_alive, "{text}");
    }
}

#[test]
fn malformed_heads_are_refused() {
    for text in [
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        assert!(read_all(text).is_err(), "{text:?}");
    }
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}\r\n",
        "a: b\r\n".repeat(MAX_FIELDS + 1)
    );
    assert!(read_all(&many).is_err());
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
    assert_eq!(read_all(&long).unwrap_err(), HeadError::TooLong);
    assert_eq!(
        read_all(&format!("{long}\r\n\r\n")).unwrap_err(),
        HeadError::TooLong
    );
}

#[test]
fn the_end_of_a_body_is_told_in_one_way() {
    assert_eq!(end("Content-Length: 5\r\n").unwrap(), "5");
    assert_eq!(
        end("Content-Length: 5\r\nContent-Length: 5\r\n").unwrap(),
        "5"
    );
    assert_eq!(end("Content-Length: 5, 5\r\n").unwrap(), "5");
    assert_eq!(end("Transfer-Encoding: Chunked\r\n").unwrap(), "chunked");
    assert_eq!(end("").unwrap(), "close");
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert_eq!(end(fields).unwrap_err(), HeadError::Length, "{fields:?}");
    }
}

#[test]
fn of_two_ways_chunks_win_and_the_connection_is_not_used_again() {
    let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let (end, keep_alive) = end_for(&Method::GET, "HTTP/1.1 200 OK", fields).unwrap();
    assert_eq!((end.as_str(), keep_alive), ("chunked", false));
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(
        end_for(&Method::GET, "HTTP/1.0 200 OK", chunked).unwrap_err(),
        HeadError::Length
    );
}

#[test]
fn answers_without_a_body_have_none_whatever_they_say() {
    let fields = "Content-Length: 5\r\n";
    for (method, line) in [
        (Method::HEAD, "HTTP/1.1 200 OK"),
        (Method::GET, "HTTP/1.1 204 No Content"),
        (Method::GET, "HTTP/1.1 304 Not Modified"),
    ] {
        let (end, keep_alive) = end_for(&method, line, fields).unwrap();
        assert_eq!((end.as_str(), keep_alive), ("0", true), "{line}");
    }
    let (end, _) = end_for(&Method::HEAD, "HTTP/1.1 200 OK", "Transfer-Encoding: x\r\n").unwrap();
    assert_eq!(end, "0");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: "]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut input = BytesMut::from(start);
        input.put_slice(&bytes);
        input.put_slice(b"\r\n\r\n");
        let length = input.len();
        if let Ok(Some(mut head)) = read(&mut input, 0) {
            prop_assert!(input.len() < length);
            let is_known = head.body(&Method::GET).is_ok();
            prop_assert!(is_known || head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING));
        }
    }
}
