//! What clients send, cut at every place.

use proptest::prelude::*;

use super::*;

const TYPE: &str = "multipart/form-data; boundary=BB";

/// Everything the parser finds when the body arrives in these pieces, data joined.
fn parse(pieces: &[&[u8]]) -> Result<Vec<Event>, MultipartError> {
    let mut parser = Multipart::from_content_type(TYPE).unwrap().unwrap();
    let mut events: Vec<Event> = Vec::new();
    let mut pieces = pieces.iter();
    loop {
        match parser.next()? {
            Event::NeedMore => match pieces.next() {
                Some(piece) => parser.push(Bytes::copy_from_slice(piece)),
                None => return parser.finish().map(|()| events),
            },
            Event::End => return parser.finish().map(|()| events),
            Event::Data(new) => match events.last_mut() {
                Some(Event::Data(old)) => *old = [old.as_ref(), new.as_ref()].concat().into(),
                _ => events.push(Event::Data(new)),
            },
            event => events.push(event),
        }
    }
}

fn part(disposition: &str, data: &str) -> String {
    format!("--BB\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{data}\r\n")
}

fn begins(name: &str, filename: Option<&str>) -> Event {
    Event::Part(Part {
        name: name.to_owned(),
        filename: filename.map(str::to_owned),
    })
}

#[test]
fn file_names_arrive_as_sent() {
    for (disposition, name, filename) in [
        (r#"name="file"; filename="a.txt""#, "file", Some("a.txt")),
        (
            r#"name="file"; filename="dir/b c.txt""#,
            "file",
            Some("dir/b c.txt"),
        ),
        (
            r#"name="file"; filename="a%2Fb%22.txt""#,
            "file",
            Some("a%2Fb%22.txt"),
        ),
        (
            r#"name="file"; filename="é\"x\\y\z.txt""#,
            "file",
            Some(r#"é"x\y\z.txt"#),
        ),
        (
            r#"name="file"; filename="a;b=c.txt""#,
            "file",
            Some("a;b=c.txt"),
        ),
        (
            r#"filename="first.txt"; name="file""#,
            "file",
            Some("first.txt"),
        ),
        ("name=file; filename=plain.txt", "file", Some("plain.txt")),
        (r#"NAME="file"; FileName="a""#, "file", Some("a")),
        (r#"name="file"; filename="""#, "file", Some("")),
        (
            r#"name="file"; filename*=UTF-8''x; filename="a""#,
            "file",
            Some("a"),
        ),
        (r#"name="file""#, "file", None),
        (
            r#"name="file"; filename="never closed"#,
            "file",
            Some("never closed"),
        ),
    ] {
        let body = part(disposition, "data") + "--BB--\r\n";
        let expected = [
            begins(name, filename),
            Event::Data("data".into()),
            Event::PartEnd,
        ];
        assert_eq!(
            parse(&[body.as_bytes()]).unwrap(),
            expected,
            "{disposition}"
        );
    }
    let latin = b"--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\xff\"\r\n\r\n\r\n--BB--";
    assert_eq!(parse(&[latin]).unwrap()[0], begins("file", Some("a\u{ff}")));
}

#[test]
fn several_and_empty_parts() {
    let body = part(r#"name="a""#, "") + &part(r#"name="b""#, "\r\n--B\r\n") + "--BB--trailing";
    let expected = [
        begins("a", None),
        Event::PartEnd,
        begins("b", None),
        Event::Data("\r\n--B\r\n".into()),
        Event::PartEnd,
    ];
    assert_eq!(parse(&[body.as_bytes()]).unwrap(), expected);
    assert_eq!(parse(&[]).unwrap(), []);
    assert_eq!(parse(&[b"--BB--"]).unwrap(), []);
    assert_eq!(parse(&[b"\r\n\r\n--BB--"]).unwrap(), []);
}

#[test]
fn what_is_no_form_is_refused() {
    let whole = part(r#"name="file"; filename="a""#, "data");
    for (body, error) in [
        ("garbage".to_owned(), MultipartError::Malformed),
        ("preamble\r\n--BB--".to_owned(), MultipartError::Malformed),
        ("--BBx".to_owned(), MultipartError::Malformed),
        ("--BB\rx".to_owned(), MultipartError::Malformed),
        ("--BB\r\n\r\ndata".to_owned(), MultipartError::NoName),
        (part("filename=\"a\"", "x"), MultipartError::NoName),
        (whole.clone(), MultipartError::Truncated),
        (whole.clone() + "--BB", MultipartError::Truncated),
        (
            whole.clone() + "--BB\r\nContent-",
            MultipartError::Truncated,
        ),
        ("--B".to_owned(), MultipartError::Truncated),
        (
            format!("--BB\r\nX: {}", "x".repeat(MAX_HEADERS)),
            MultipartError::HeadersTooLarge,
        ),
    ] {
        assert_eq!(parse(&[body.as_bytes()]), Err(error), "{body:.60}");
    }
}

#[test]
fn content_types() {
    for (value, expected) in [
        ("application/json", None),
        ("multipart/mixed; boundary=x", None),
        ("multipart/form-data", Some(Err(MultipartError::NoBoundary))),
        (
            "multipart/form-data; boundary=",
            Some(Err(MultipartError::NoBoundary)),
        ),
        ("multipart/form-data; boundary=x", Some(Ok(()))),
        (
            "Multipart/Form-Data; charset=utf-8; boundary=\"x y\"",
            Some(Ok(())),
        ),
    ] {
        let found = Multipart::from_content_type(value).map(|made| made.map(drop));
        assert_eq!(found, expected, "{value}");
    }
    let long = format!(
        "multipart/form-data; boundary={}",
        "b".repeat(MAX_BOUNDARY + 1)
    );
    assert_eq!(
        Multipart::from_content_type(&long).unwrap().unwrap_err(),
        MultipartError::NoBoundary
    );
}

proptest! {
    /// However the network cuts it, a form reads the same, and file data is exact.
    #[test]
    fn cuts_do_not_matter(
        data in proptest::collection::vec(prop_oneof![
            Just(b"\r\n--BB".to_vec()), Just(b"\r\n--B".to_vec()), Just(b"\r".to_vec()),
            Just(b"--".to_vec()), proptest::collection::vec(any::<u8>(), 0..8),
        ], 0..12),
        cuts in proptest::collection::vec(1usize..30, 1..40),
    ) {
        let data = data.concat();
        // Data cannot contain its own delimiter; clients choose another boundary then.
        prop_assume!(memchr::memmem::find(&data, b"\r\n--BB").is_none());
        let mut body = part(r#"name="file"; filename="f""#, "").into_bytes();
        body.truncate(body.len() - 2);
        body.extend_from_slice(&data);
        body.extend_from_slice(b"\r\n--BB--\r\n");
        let mut expected = vec![begins("file", Some("f"))];
        if !data.is_empty() {
            expected.push(Event::Data(data.into()));
        }
        expected.push(Event::PartEnd);
        let mut pieces = Vec::new();
        let mut rest = body.as_slice();
        for cut in cuts {
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = left;
        }
        pieces.push(rest);
        prop_assert_eq!(parse(&pieces).unwrap(), expected);
    }

    #[test]
    fn arbitrary_bytes_are_judged_without_a_panic(pieces in proptest::collection::vec(
        prop_oneof![
            Just(b"--BB".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"".to_vec()), Just(b"\"".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..20)) {
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let whole = pieces.concat();
        prop_assert_eq!(parse(&slices), parse(&[&whole]));
    }
}
