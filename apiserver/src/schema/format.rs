//! The string formats the API server checks, and the number formats that bound numbers.
//!
//! The set is the published one of `apiextensions.k8s.io/v1` (see the `format` field of
//! `JSONSchemaProps`); a name outside of it is ignored, as Kubernetes does. Used by validation and,
//! for the formats that have a type of their own, by CEL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::duration;
use super::structural::Kind;

/// A supported format.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// No format, or one that is not supported for the type.
    #[default]
    None,
    Int32,
    Int64,
    Float,
    Double,
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
}

/// String formats and their names without dashes, as names are compared.
const STRING_FORMATS: [(&str, Format); 26] = [
    ("bsonobjectid", Format::BsonObjectId),
    ("uri", Format::Uri),
    ("email", Format::Email),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("cidr", Format::Cidr),
    ("mac", Format::Mac),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid3),
    ("uuid4", Format::Uuid4),
    ("uuid5", Format::Uuid5),
    ("isbn", Format::Isbn),
    ("isbn10", Format::Isbn10),
    ("isbn13", Format::Isbn13),
    ("creditcard", Format::CreditCard),
    ("ssn", Format::Ssn),
    ("hexcolor", Format::HexColor),
    ("rgbcolor", Format::RgbColor),
    ("byte", Format::Byte),
    ("password", Format::Password),
    ("date", Format::Date),
    ("duration", Format::Duration),
    ("datetime", Format::DateTime),
    ("k8sshortname", Format::ShortName),
    ("k8slongname", Format::LongName),
];

impl Format {
    /// The format called `name` where it is supported for `kind`, else [`Format::None`].
    pub(super) fn parse(name: &str, kind: Kind) -> Self {
        match kind {
            Kind::Integer => match name {
                "int32" => Self::Int32,
                "int64" => Self::Int64,
                _ => Self::None,
            },
            Kind::Number => match name {
                "float" => Self::Float,
                "double" => Self::Double,
                _ => Self::None,
            },
            Kind::String | Kind::Any => {
                let plain = name.replace('-', "");
                STRING_FORMATS
                    .iter()
                    .find(|(known, _)| *known == plain)
                    .map_or(Self::None, |(_, format)| *format)
            }
            Kind::Object | Kind::Array | Kind::Boolean | Kind::IntOrString | Kind::Quantity => {
                Self::None
            }
        }
    }

    /// The name in messages.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::BsonObjectId => "bsonobjectid",
            Self::Uri => "uri",
            Self::Email => "email",
            Self::Hostname => "hostname",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Uuid => "uuid",
            Self::Uuid3 => "uuid3",
            Self::Uuid4 => "uuid4",
            Self::Uuid5 => "uuid5",
            Self::Isbn => "isbn",
            Self::Isbn10 => "isbn10",
            Self::Isbn13 => "isbn13",
            Self::CreditCard => "creditcard",
            Self::Ssn => "ssn",
            Self::HexColor => "hexcolor",
            Self::RgbColor => "rgbcolor",
            Self::Byte => "byte",
            Self::Password => "password",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::DateTime => "date-time",
            Self::ShortName => "k8s-short-name",
            Self::LongName => "k8s-long-name",
        }
    }

    /// Whether `text` has this format. Number formats accept every text.
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Self::None
            | Self::Int32
            | Self::Int64
            | Self::Float
            | Self::Double
            | Self::Password => true,
            Self::BsonObjectId => text.len() == 24 && is_hex(text),
            Self::Uri => is_uri(text),
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid => is_uuid(text, None),
            Self::Uuid3 => is_uuid(text, Some('3')),
            Self::Uuid4 => is_uuid(text, Some('4')),
            Self::Uuid5 => is_uuid(text, Some('5')),
            Self::Isbn => is_isbn10(text) || is_isbn13(text),
            Self::Isbn10 => is_isbn10(text),
            Self::Isbn13 => is_isbn13(text),
            Self::CreditCard => is_credit_card(text),
            Self::Ssn => is_ssn(text),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && is_hex(digits)
            }
            Self::RgbColor => is_rgb(text),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Date => is_date(text),
            Self::Duration => duration::parse(text).is_some(),
            Self::DateTime => is_date_time(text),
            Self::ShortName => text.len() <= 63 && is_name_segment(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(is_name_segment),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return false;
    }
    if !valid_escapes(text) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn valid_escapes(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|rest| rest.get(..2).is_some_and(is_hex))
}

/// `local@domain`, optionally as `Name <local@domain>`.
fn is_email(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(inner) => inner,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom = |s: &str| {
        !s.is_empty()
            && s.chars().all(|c| {
                c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
            })
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (quoted || local.split('.').all(atom)) && domain.split('.').all(atom)
}

fn is_hostname(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let label = |s: &str| {
        !s.is_empty()
            && s.chars().count() <= 63
            && !s.starts_with('-')
            && !s.ends_with('-')
            && s.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let labels: Vec<_> = text.split('.').collect();
    let top_ok = match labels.as_slice() {
        [_, .., top] => top.chars().count() >= 2 && top.chars().all(char::is_alphabetic),
        _ => true,
    };
    top_ok && labels.into_iter().all(label)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let limit = if address.is_ipv4() { 32 } else { 128 };
    is_digits(prefix) && prefix.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

/// 6, 8 or 20 bytes, in pairs with `:` or `-`, or in groups of four with `.`.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| -> Option<usize> {
        let parts: Vec<_> = text.split(separator).collect();
        (parts.len() > 1 && parts.iter().all(|p| p.len() == width && is_hex(p)))
            .then_some(parts.len() * width / 2)
    };
    groups(':', 2)
        .or_else(|| groups('-', 2))
        .or_else(|| groups('.', 4))
        .is_some_and(|bytes| matches!(bytes, 6 | 8 | 20))
}

/// A UUID whose dashes are optional; versions 4 and 5 also fix the variant.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    const DASHES: [usize; 4] = [8, 12, 16, 20];
    let mut digits = String::with_capacity(32);
    let mut dash_allowed = true;
    for c in text.chars() {
        if c == '-' {
            if !dash_allowed || !DASHES.contains(&digits.len()) {
                return false;
            }
            dash_allowed = false;
        } else {
            digits.push(c.to_ascii_lowercase());
            dash_allowed = true;
        }
    }
    if digits.len() != 32 || !is_hex(&digits) || !dash_allowed {
        return false;
    }
    let at = |i: usize| digits.chars().nth(i);
    match version {
        None => true,
        Some('3') => at(12) == Some('3'),
        Some(version) => {
            at(12) == Some(version) && at(16).is_some_and(|c| matches!(c, '8' | '9' | 'a' | 'b'))
        }
    }
}

/// The decimal digits of `text` when nothing but spaces and dashes is around them.
fn separated_digits(text: &str) -> Option<Vec<u32>> {
    text.chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| c.to_digit(10))
        .collect()
}

fn is_isbn10(text: &str) -> bool {
    let body: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if body.chars().count() != 10 {
        return false;
    }
    let mut sum = 0;
    for (i, c) in (1_u32..).zip(body.chars()) {
        let digit = match c.to_digit(10) {
            Some(digit) => digit,
            None if i == 10 && c == 'X' => 10,
            None => return false,
        };
        sum += i * digit;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let Some(digits) = separated_digits(text) else {
        return false;
    };
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(i, digit)| if i % 2 == 0 { *digit } else { digit * 3 })
        .sum();
    digits.len() == 13 && sum.is_multiple_of(10)
}

/// A number of a known issuer with a correct Luhn sum; anything but digits is ignored.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let prefix = |n: usize| digits.iter().take(n).fold(0, |acc, d| acc * 10 + d);
    let issuer = match digits.len() {
        13 => prefix(1) == 4,
        14 => matches!(prefix(3), 300..=305) || matches!(prefix(2), 36 | 38),
        15 => matches!(prefix(2), 34 | 37) || matches!(prefix(4), 2131 | 1800),
        16 => {
            prefix(1) == 4
                || matches!(prefix(2), 51..=55 | 35)
                || prefix(4) == 6011
                || prefix(2) == 65
        }
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (i % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    issuer && sum.is_multiple_of(10)
}

/// `ddd-dd-dddd`, where the dashes may be spaces or absent.
fn is_ssn(text: &str) -> bool {
    let mut rest = text;
    for (width, last) in [(3, false), (2, false), (4, true)] {
        let Some((digits, tail)) = rest.split_at_checked(width) else {
            return false;
        };
        if !is_digits(digits) {
            return false;
        }
        rest = if last {
            tail
        } else {
            tail.strip_prefix(['-', ' ']).unwrap_or(tail)
        };
    }
    rest.is_empty()
}

/// `rgb(r,g,b)` with components of 0 to 255.
fn is_rgb(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')')) else {
        return false;
    };
    let parts: Vec<_> = inner.split(',').map(str::trim).collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            is_digits(part)
                && (*part == "0" || !part.starts_with('0'))
                && part.parse::<u8>().is_ok()
        })
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return false;
    }
    let number = |s: &str| is_digits(s).then(|| s.parse::<i16>().ok()).flatten();
    let (Some(year), Some(month), Some(day)) = (number(year), number(month), number(day)) else {
        return false;
    };
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else {
        return false;
    };
    jiff::civil::Date::new(year, month, day).is_ok()
}

/// RFC 3339, with `t` and `z` in either case.
fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else {
        return false;
    };
    if !is_date(date) {
        return false;
    }
    let Some((clock, rest)) = time.split_at_checked(8) else {
        return false;
    };
    let mut parts = clock.split(':');
    for limit in [23, 59, 59] {
        let ok = parts.next().is_some_and(|p| {
            p.len() == 2 && is_digits(p) && p.parse::<u8>().is_ok_and(|n| n <= limit)
        });
        if !ok {
            return false;
        }
    }
    if parts.next().is_some() {
        return false;
    }
    let (fraction, zone) = if let Some(fraction) = rest.strip_suffix('z') {
        (fraction, "+00:00")
    } else if let Some(at) = rest.rfind(['+', '-']) {
        rest.split_at(at)
    } else {
        return false;
    };
    let mut fraction = fraction.chars();
    let fraction_ok = fraction.next().is_none() || is_digits(fraction.as_str());
    let zone_ok = zone
        .strip_prefix(['+', '-'])
        .and_then(|zone| zone.split_once(':'))
        .is_some_and(|(h, m)| h.len() == 2 && m.len() == 2 && is_digits(h) && is_digits(m));
    fraction_ok && zone_ok
}

fn is_name_segment(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
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
}
