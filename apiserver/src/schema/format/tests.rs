use super::*;

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn formats_accept_and_refuse() {
    let cases: &[(Format, &[&str], &[&str])] = &[
        (
            Format::DateTime,
            &[
                "2026-01-02T03:04:05Z",
                "2026-01-02t03:04:05.123z",
                "2026-01-02T03:04:05+01:00",
            ],
            &[
                "2026-01-02",
                "2026-13-02T03:04:05Z",
                "2026-01-02T24:04:05Z",
                "2026-01-02T03:04:05",
                "x",
                "",
            ],
        ),
        (
            Format::Date,
            &["2024-02-29"],
            &["2023-02-29", "2023-2-9", "20230209"],
        ),
        (
            Format::Duration,
            &["1h30m", "-1.5s", "22 ns", "2 days"],
            &["", "1", "x"],
        ),
        (Format::Byte, &["", "aGk="], &["aGk", "%%"]),
        (
            Format::Uri,
            &["http://a/b?c", "/x", "urn:a:b"],
            &["", "a b", "x", "http://a/%zz"],
        ),
        (
            Format::Email,
            &["a@b.c", "A B <a.b@c>"],
            &["a", "@b", "a@", "a b@c"],
        ),
        (
            Format::Hostname,
            &["a", "a-b.example.com"],
            &["", "-a", "a..b", "a.b1"],
        ),
        (Format::Ipv4, &["10.0.0.1"], &["10.0.0", "::1", "010.0.0.1"]),
        (Format::Ipv6, &["::1", "fe80::1"], &["1.2.3.4", ":"]),
        (
            Format::Cidr,
            &["10.0.0.0/8", "::/0"],
            &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"],
        ),
        (
            Format::Mac,
            &["00:11:22:33:44:55", "0011.2233.4455"],
            &["00:11:22", "0:1:2:3:4:5"],
        ),
        (
            Format::Uuid,
            &[
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            ],
            &[
                "a0eebc99-9c0b-4ef8-bb6d",
                "a0eebc999c-0b4ef8bb6d6bb9bd380a11",
                "-a0eebc999c0b4ef8bb6d6bb9bd380a11",
            ],
        ),
        (
            Format::Uuid4,
            &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
            &[
                "a0eebc99-9c0b-5ef8-bb6d-6bb9bd380a11",
                "a0eebc99-9c0b-4ef8-cb6d-6bb9bd380a11",
            ],
        ),
        (
            Format::Isbn,
            &["0321751043", "978-0321751041"],
            &["0321751044", "978-0321751042"],
        ),
        (
            Format::Isbn10,
            &["0321751043", "080442957X"],
            &["X321751043"],
        ),
        (
            Format::CreditCard,
            &["4111 1111 1111 1111"],
            &["4111 1111 1111 1112", "1234"],
        ),
        (
            Format::Ssn,
            &["123-45-6789", "123 45 6789", "123456789"],
            &["12-345-6789", "123-45-67890"],
        ),
        (Format::HexColor, &["#fff", "A1B2C3"], &["#ffff", "#ggg"]),
        (
            Format::RgbColor,
            &["rgb(1, 2,255)"],
            &["rgb(1,2,256)", "rgb(01,2,3)", "rgb(1,2)"],
        ),
        (
            Format::BsonObjectId,
            &["507f1f77bcf86cd799439011"],
            &["507f1f77bcf86cd79943901"],
        ),
        (Format::ShortName, &["a-1"], &["A", "-a", "a.b"]),
        (Format::LongName, &["a.b-c"], &["a..b", "a.-b"]),
    ];
    for (format, good, bad) in cases {
        for text in *good {
            assert!(format.accepts(text), "{} refuses {text:?}", format.as_str());
        }
        for text in *bad {
            assert!(
                !format.accepts(text),
                "{} accepts {text:?}",
                format.as_str()
            );
        }
    }
}

#[test]
fn unknown_and_misplaced_formats_are_ignored() {
    assert_eq!(Format::parse("int32", Kind::Integer), Format::Int32);
    assert_eq!(Format::parse("int32", Kind::String), Format::None);
    assert_eq!(Format::parse("date-time", Kind::String), Format::DateTime);
    assert_eq!(Format::parse("date-time", Kind::Object), Format::None);
    assert_eq!(
        Format::parse("k8s-short-name", Kind::String),
        Format::ShortName
    );
    assert_eq!(Format::parse("mine", Kind::String), Format::None);
    assert_eq!(Format::parse("double", Kind::Number), Format::Double);
}

#[test]
fn names_parse_back() {
    for (name, format) in STRING_FORMATS {
        assert_eq!(format.as_str().replace('-', ""), name);
    }
}
