use proptest::prelude::*;

use super::*;

/// What a body in these pieces amounts to: its bytes and its trailers.
fn follow(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap), FramingError> {
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut input)? {
            match frame.into_data() {
                Ok(bytes) => {
                    assert!(!bytes.is_empty());
                    data.extend_from_slice(&bytes);
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
            }
        }
    }
    decoder.close()?;
    assert!(input.is_empty(), "left: {input:?}");
    Ok((data, trailers))
}

fn chunked(body: &[u8]) -> Result<Vec<u8>, FramingError> {
    follow(Decoder::chunked(), &[body]).map(|(data, _)| data)
}

#[test]
fn a_length_is_exact() {
    let (data, _) = follow(Decoder::length(4), &[b"ab", b"cd"]).unwrap();
    assert_eq!(data, b"abcd");
    assert_eq!(
        follow(Decoder::length(5), &[b"abcd"]).unwrap_err(),
        FramingError::Early
    );
    assert!(Decoder::length(0).is_done() && Decoder::empty().is_done());
    assert_eq!(Decoder::length(7).size_hint().exact(), Some(7));
    assert_eq!(Decoder::chunked().size_hint().exact(), None);
}

#[test]
fn what_follows_a_body_is_left() {
    let mut input = BytesMut::from(&b"abcHTTP/1.1"[..]);
    let mut decoder = Decoder::length(3);
    let frame = decoder.decode(&mut input).unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "abc");
    assert!(decoder.is_done() && input == "HTTP/1.1");

    let mut input = BytesMut::from(&b"0\r\n\r\nrest"[..]);
    let mut decoder = Decoder::chunked();
    assert!(decoder.decode(&mut input).unwrap().is_none());
    assert!(decoder.is_done() && input == "rest");
}

#[test]
fn a_body_may_end_with_its_connection() {
    let (data, _) = follow(Decoder::until_close(), &[b"a", b"b"]).unwrap();
    assert_eq!(data, b"ab");
}

#[test]
fn chunks_are_joined_and_extensions_dropped() {
    assert_eq!(
        chunked(b"3\r\nabc\r\n2;a=b;c\r\nde\r\n0\r\n\r\n").unwrap(),
        b"abcde"
    );
    assert_eq!(
        chunked(b"A  \r\n0123456789\r\n00\r\n\r\n").unwrap(),
        b"0123456789"
    );
}

#[test]
fn trailers_pass_without_framing() {
    let body = b"1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n";
    let (data, trailers) = follow(Decoder::chunked(), &[body]).unwrap();
    assert_eq!(data, b"a");
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["x-sum"], "1");
}

#[test]
fn chunks_that_two_readers_could_read_differently_are_refused() {
    for body in [
        &b"\r\na\r\n0\r\n\r\n"[..],
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3 3\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3\rx\r\nabc\r\n0\r\n\r\n",
        b"10000000000000000\r\n",
        b"g\r\n\r\n",
    ] {
        assert_eq!(
            chunked(body).unwrap_err(),
            FramingError::Chunk,
            "{}",
            body.escape_ascii()
        );
    }
    assert_eq!(
        chunked(b"0\r\nno colon\r\n\r\n").unwrap_err(),
        FramingError::Trailers
    );
    for body in [
        &b""[..],
        b"3",
        b"3\r\n",
        b"3\r\nab",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"0\r\nA: b\r\n",
    ] {
        assert_eq!(
            chunked(body).unwrap_err(),
            FramingError::Early,
            "{}",
            body.escape_ascii()
        );
    }
}

#[test]
fn what_has_no_end_is_not_kept() {
    let mut line = b"1;".to_vec();
    line.resize(MAX_SIZE_LINE, b'x');
    assert_eq!(chunked(&line).unwrap_err(), FramingError::Chunk);
    assert_eq!(chunked(&[b'0'; 17]).unwrap_err(), FramingError::Chunk);
    let mut trailers = b"0\r\nA: ".to_vec();
    trailers.resize(MAX_TRAILERS + 3, b'x');
    assert_eq!(chunked(&trailers).unwrap_err(), FramingError::Trailers);
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(0..200_usize, 0..12),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
        let (data, trailers) = follow(Decoder::chunked(), &pieces).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(trailers.len(), 1);
    }

    #[test]
    fn any_bytes_are_followed_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut input = BytesMut::from(body.as_slice());
        let mut decoder = Decoder::chunked();
        let mut taken = 0;
        while let Ok(Some(frame)) = decoder.decode(&mut input) {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
        prop_assert!(taken <= body.len());
    }
}
