//! `PUT /v1/files/{path}`: the body, or the first form part named `file`, becomes the file.

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use rustix::io::Errno;

use super::files::{FILES, no_content, path, query};
use super::reply;
use crate::api::App;
use crate::api::body;
use crate::api::multipart::{Event, Multipart, MultipartError};
use crate::files::{Dangling, FileError, FileMode, Upload, UploadOptions};

/// The mode of a new file when none is asked for.
const NEW_FILE: u32 = 0o644;

/// Why nothing was stored.
enum Failure {
    /// The client went away.
    Gone,
    Mode(String),
    Form(MultipartError),
    NoFile,
    TooLarge {
        limit: u64,
    },
    File(FileError),
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<MultipartError> for Failure {
    fn from(error: MultipartError) -> Self {
        Self::Form(error)
    }
}

pub(super) async fn put(app: &App, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut body = body.into_data_stream();
    match store(app, &head, &mut body).await {
        Ok(bytes) => {
            app.metrics.uploaded(bytes);
            no_content()
        }
        Err(failure) => {
            body::drain(&mut body).await;
            failure.answer()
        }
    }
}

impl Failure {
    fn answer(self) -> Response<Body> {
        match self {
            Self::Gone => reply::invalid("the request body ended early"),
            Self::Mode(mode) => reply::invalid(format!(
                "mode is {mode:?}; expected four octal digits that begin with 0, such as 0644"
            )),
            Self::Form(error) => reply::invalid(error.to_string()),
            Self::NoFile => reply::invalid("the form has no part named \"file\""),
            Self::TooLarge { limit } => reply::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "TOO_LARGE",
                format!("the file is larger than the limit of {limit} bytes"),
            ),
            // Below a file there can be nothing, which is a conflict when something is to be put there.
            Self::File(error) if error.errno() == Some(Errno::NOTDIR) => reply::error(
                StatusCode::CONFLICT,
                "CONFLICT",
                "a parent of the path is not a directory",
            ),
            Self::File(error) => reply::file(&error),
        }
    }
}

async fn store(app: &App, head: &Parts, body: &mut BodyDataStream) -> Result<u64, Failure> {
    let mode = match query(&head.uri, "mode") {
        None => FileMode::KeptOr(NEW_FILE),
        Some(text) => FileMode::Exactly(parse_mode(&text).ok_or(Failure::Mode(text))?),
    };
    let (path, _) = path(app, &head.uri, FILES)?;
    let options = UploadOptions {
        mode,
        dangling: Dangling::Replace,
        sync: true,
    };
    let mut upload = Upload::begin(&app.root, path, options).await?;
    let limit = app.config.max_upload_bytes;
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match Multipart::from_content_type(kind) {
        None => {
            while let Some(bytes) = body.next().await {
                add(&mut upload, bytes.map_err(|_| Failure::Gone)?, limit).await?;
            }
        }
        Some(form) => first_file(&mut upload, form?, body, limit).await?,
    }
    let written = upload.written();
    upload.commit().await?;
    Ok(written)
}

/// Exactly `0` and three octal digits.
fn parse_mode(text: &str) -> Option<u32> {
    match text.as_bytes() {
        [b'0', b'0'..=b'7', b'0'..=b'7', b'0'..=b'7'] => u32::from_str_radix(text, 8).ok(),
        _ => None,
    }
}

async fn add(upload: &mut Upload, bytes: Bytes, limit: Option<u64>) -> Result<(), Failure> {
    match limit {
        Some(limit) if upload.written() + bytes.len() as u64 > limit => {
            Err(Failure::TooLarge { limit })
        }
        _ => Ok(upload.write(bytes).await?),
    }
}

/// Stores the first part named `file`, whatever its file name; the rest is read and ignored.
async fn first_file(
    upload: &mut Upload,
    mut form: Multipart,
    body: &mut BodyDataStream,
    limit: Option<u64>,
) -> Result<(), Failure> {
    let mut found = false;
    let mut inside = false;
    loop {
        match form.next()? {
            Event::NeedMore => match body.next().await {
                Some(Ok(bytes)) => form.push(bytes),
                Some(Err(_)) => return Err(Failure::Gone),
                None => {
                    form.finish()?;
                    break;
                }
            },
            Event::Part(part) => {
                inside = !found && part.name == "file";
                found |= inside;
            }
            Event::Data(bytes) if inside => add(upload, bytes, limit).await?,
            Event::Data(_) => {}
            Event::PartEnd => inside = false,
            Event::End => {
                body::drain(body).await;
                break;
            }
        }
    }
    if found { Ok(()) } else { Err(Failure::NoFile) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_exactly_four_octal_digits() {
        for (text, mode) in [
            ("0644", Some(0o644)),
            ("0755", Some(0o755)),
            ("0000", Some(0)),
            ("0999", None),
            ("777", None),
            ("01777", None),
            ("1777", None),
            ("abcd", None),
            ("", None),
            ("+644", None),
            ("0 64", None),
        ] {
            assert_eq!(parse_mode(text), mode, "{text:?}");
        }
    }
}
