//! The parsers that read what clients send, for the properties in `tests/fuzz`. No part of the API.

use std::ffi::{CStr, OsString};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use crate::api::content::range::{self, Selection};
use crate::api::grpc;
use crate::api::multipart::{Event, Multipart};
use crate::files::Root;
use crate::proto::process::v1::ProcessConfig;

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

/// A command as it would be run.
#[derive(Debug)]
pub struct Prepared {
    /// The argument list, program first.
    pub arguments: Vec<Vec<u8>>,
    /// What is laid over the server's environment.
    pub variables: Vec<(OsString, OsString)>,
    /// The working directory.
    pub directory: OwnedFd,
}

/// What the gRPC face would run for this message, or the number of the status with which it refuses. Nothing is
/// run.
///
/// # Errors
/// When there are no descriptors left.
pub fn prepared(root: &Root, config: Option<ProcessConfig>) -> io::Result<Result<Prepared, i32>> {
    match grpc::command(root, config) {
        Ok(command) => Ok(Ok(Prepared {
            arguments: command
                .arguments()
                .map(CStr::to_bytes)
                .map(<[u8]>::to_vec)
                .collect(),
            variables: command.variables(),
            directory: command.directory().try_clone()?,
        })),
        Err(status) => Ok(Err(status.code().into())),
    }
}
