//! The paths of the GET endpoints, which the original decoded twice.
//!
//! Clients encode once, so a file named `a%20b` was out of reach for them, while some wrote to the second
//! decoding and encode twice. Both are served: the path as the client's URL says it, and, when
//! nothing is there, as the original read it. A third reading finds files uploaded under a name with a
//! quotation mark, which the SDKs' multipart encoders spell `%22`.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::files::{FileError, TreePath};

/// A path of a request and what it names.
#[derive(Debug)]
pub(super) struct Named<T> {
    /// The decoded text, for answers that repeat it.
    pub(super) text: String,
    pub(super) path: TreePath,
    /// What is there.
    pub(super) found: Option<T>,
}

/// What the part of `uri` behind `/endpoint` or `/endpoint/` names, where `look` finds something.
///
/// # Errors
/// What `look` says; that nothing is there is no error.
pub(super) fn named<T>(
    uri: &Uri,
    endpoint: &str,
    look: impl Fn(&TreePath) -> Result<T, FileError>,
) -> Result<Named<T>, FileError> {
    let raw = uri.path().strip_prefix(endpoint).unwrap_or_default();
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    let readings = readings(raw);
    let mut absent = None;
    for (reading, text) in readings.into_iter().enumerate() {
        let path = TreePath::parse(&text)?;
        match look(&path) {
            Ok(found) => {
                return Ok(Named {
                    text,
                    path,
                    found: Some(found),
                });
            }
            // Nothing there means what it meant to the original, which read twice.
            Err(error) if error.is_absent() => {
                if reading <= 1 {
                    absent = Some(Named {
                        text,
                        path,
                        found: None,
                    });
                }
            }
            Err(error) => return Err(error),
        }
    }
    absent.ok_or(FileError::Nul)
}

/// The ways to read a path, most literal first, without repetitions at the end: decoded once, decoded
/// twice, and decoded once with the multipart spelling of quotation marks.
fn readings(raw: &str) -> Vec<String> {
    let once = decode(raw);
    let twice = decode(&once);
    let form = once.replace('"', "%22");
    let mut readings = vec![once];
    for other in [twice, form] {
        if !readings.contains(&other) {
            readings.push(other);
        }
    }
    readings
}

/// Bytes that are no UTF-8 become U+FFFD, a percent sign without two digits stays.
fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_tried_from_literal_to_legacy() {
        for (raw, expected) in [
            ("", vec![""]),
            ("a/b", vec!["a/b"]),
            ("a%20b", vec!["a b"]),
            ("%2Fa%2Fb", vec!["/a/b"]),
            ("a%2520b", vec!["a%20b", "a b"]),
            ("a%252520b", vec!["a%2520b", "a%20b"]),
            ("100%25.txt", vec!["100%.txt"]),
            ("100%", vec!["100%"]),
            ("a%22b", vec!["a\"b", "a%22b"]),
            ("%FF", vec!["\u{fffd}"]),
            ("a+b", vec!["a+b"]),
        ] {
            assert_eq!(readings(raw), expected, "{raw}");
        }
    }
}
