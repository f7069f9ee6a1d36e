//! The parsers that read what clients send, for the properties in `tests/fuzz`. No part of the API.

use std::ops::Range;

use bytes::Bytes;

use crate::api::content::range::{self, Selection};
use crate::api::multipart::{Event, Multipart};

/// A part of a form: its name, its file name and its data.
pub type Part = (String, Option<String>, Vec<u8>);

/// Reads a form that arrives in these pieces. `None` when the content type is none of a form.
///
/// # Errors
/// Why it is no valid form.
pub fn form(content_type: &str, pieces: &[&[u8]]) -> Option<Result<Vec<Part>, String>> {
    let form = Multipart::from_content_type(content_type)?;
    Some(
        form.and_then(|form| read(form, pieces))
            .map_err(|error| error.to_string()),
    )
}

fn read(
    mut form: Multipart,
    pieces: &[&[u8]],
) -> Result<Vec<Part>, crate::api::multipart::MultipartError> {
    let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let mut parts: Vec<Part> = Vec::new();
    loop {
        match form.next()? {
            Event::NeedMore => match pieces.next() {
                Some(piece) => form.push(Bytes::copy_from_slice(piece)),
                None => return form.finish().map(|()| parts),
            },
            Event::Part(part) => parts.push((part.name, part.filename, Vec::new())),
            Event::Data(data) => {
                if let Some((_, _, whole)) = parts.last_mut() {
                    whole.extend_from_slice(&data);
                }
            }
            Event::PartEnd => {}
            Event::End => return Ok(parts),
        }
    }
}

/// What a `Range` header selects of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ranges {
    /// The header does not count.
    Whole,
    /// These bytes.
    Parts(Vec<Range<u64>>),
    /// Nothing of the file.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a file of `size` bytes.
pub fn ranges(value: &str, size: u64) -> Ranges {
    match range::parse(value, size) {
        Selection::Whole => Ranges::Whole,
        Selection::Parts(parts) => Ranges::Parts(parts),
        Selection::Unsatisfiable => Ranges::Unsatisfiable,
    }
}
