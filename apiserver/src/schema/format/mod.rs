//! The string formats the API server checks, and the number formats that bound numbers.
//!
//! The set is the published one of `apiextensions.k8s.io/v1` (see the `format` field of
//! `JSONSchemaProps`); a name outside of it is ignored, as Kubernetes does. Used by validation and,
//! for the formats that have a type of their own, by CEL.

mod address;
mod identifier;
mod instant;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::duration;
use super::structural::Kind;
use address::{is_cidr, is_email, is_hostname, is_mac, is_uri};
use identifier::{is_credit_card, is_isbn10, is_isbn13, is_ssn, is_uuid};
use instant::{is_date, is_date_time};

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

fn is_name_segment(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
