//! `PUT /v1/files/{path}`: the body, or the first form part named `file`, becomes the file.

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use rustix::io::Errno;

use super::files::{FILES, no_content, path, query};
use super::reply;
use crate::api::App;
use crate::api::body;
use crate::api::multipart::{Event, Multipart, MultipartError};
use crate::api::stall::{self, Stalled};
use crate::files::{
    Condition, Dangling, FileError, FileMode, Owner, Upload, UploadOptions, Versions,
};

/// The mode of a new file when none is asked for.
const NEW_FILE: u32 = 0o644;

/// Why nothing was stored.
enum Failure {
    /// The client went away.
    Gone,
    /// The client sent nothing more.
    Stalled(Stalled),
    /// A query parameter.
    Query(String),
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

impl From<axum::Error> for Failure {
    fn from(error: axum::Error) -> Self {
        stall::cause(&error).map_or(Self::Gone, Self::Stalled)
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
        Ok((bytes, version)) => {
            app.metrics.uploaded(bytes);
            let mut response = no_content();
            if let Ok(etag) = HeaderValue::try_from(format!("\"{version}\"")) {
                response.headers_mut().insert(ETAG, etag);
            }
            response
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
            Self::Stalled(stalled) => reply::stalled(stalled.to_string()),
            Self::Query(text) => reply::invalid(text),
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

async fn store(
    app: &App,
    head: &Parts,
    body: &mut BodyDataStream,
) -> Result<(u64, String), Failure> {
    let options = options(head)?;
    let (path, _) = path(app, &head.uri, FILES)?;
    let mut upload = Upload::begin(&app.root, path, options).await?;
    let limit = app.config.max_upload_bytes;
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match Multipart::from_content_type(kind) {
        None => {
            while let Some(bytes) = body.next().await {
                add(&mut upload, bytes?, limit).await?;
            }
        }
        Some(form) => first_file(&mut upload, form?, body, limit).await?,
    }
    let written = upload.written();
    let version = upload.commit().await?;
    Ok((written, version))
}

/// What the query and the headers ask for.
fn options(head: &Parts) -> Result<UploadOptions, Failure> {
    let refused = |name: &str, value: &str, expected: &str| {
        Failure::Query(format!("{name} is {value:?}; expected {expected}"))
    };
    let mode = match query(&head.uri, "mode") {
        None => FileMode::KeptOr(NEW_FILE),
        Some(text) => FileMode::Exactly(parse_mode(&text).ok_or_else(|| {
            let expected = "four octal digits that begin with 0, such as 0644";
            refused("mode", &text, expected)
        })?),
    };
    let number = |name| match query(&head.uri, name) {
        None => Ok(None),
        // The largest number means "unchanged" to the system, and so nobody.
        Some(text) => match text.parse() {
            Ok(number) if number < u32::MAX => Ok(Some(number)),
            _ => Err(refused(name, &text, "a number, such as 1000")),
        },
    };
    let sync = match query(&head.uri, "sync").as_deref() {
        None | Some("data") => true,
        Some("none") => false,
        Some(other) => return Err(refused("sync", other, "data or none")),
    };
    Ok(UploadOptions {
        mode,
        dangling: Dangling::Replace,
        sync,
        owner: Owner {
            uid: number("owner")?,
            gid: number("group")?,
        },
        condition: Condition {
            only: versions(&head.headers, &IF_MATCH, Weak::Never)?,
            never: versions(&head.headers, &IF_NONE_MATCH, Weak::Counts)?,
        },
    })
}

/// Whether a weak tag stands for the version it names.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Weak {
    Counts,
    Never,
}

/// The versions that a header lists.
fn versions(
    headers: &HeaderMap,
    name: &HeaderName,
    weak: Weak,
) -> Result<Option<Versions>, Failure> {
    let mut listed = Vec::new();
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    for value in values {
        let refused = || {
            Failure::Query(format!(
                "{name} is {value:?}; expected * or tags as ETag has them, such as \"1-2-3.4\""
            ))
        };
        let tags = value.to_str().map_err(|_| refused())?.split(',');
        for tag in tags.map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag == "*" {
                return Ok(Some(Versions::Any));
            }
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = strong
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'));
            let inner = inner.ok_or_else(refused)?;
            if weak == Weak::Counts || strong == tag {
                listed.push(inner.to_owned());
            }
        }
    }
    Ok(Some(Versions::Listed(listed)))
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
                Some(Err(error)) => return Err(error.into()),
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
    fn tags_are_read_from_every_header_of_the_name() {
        for (values, weak, expected) in [
            (&[][..], Weak::Never, None),
            (&["*"], Weak::Never, Some(Versions::Any)),
            (
                &["\"a\", \"b\"", "\"c\""],
                Weak::Never,
                Some(listed(&["a", "b", "c"])),
            ),
            (&["W/\"a\""], Weak::Never, Some(listed(&[]))),
            (&["W/\"a\""], Weak::Counts, Some(listed(&["a"]))),
            (&["\"a\",", ""], Weak::Never, Some(listed(&["a"]))),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_MATCH, HeaderValue::from_static(value));
            }
            assert!(
                matches!(versions(&headers, &IF_MATCH, weak), Ok(found) if found == expected),
                "{values:?}"
            );
        }
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for value in ["a", "\"a", "\"a\", b", "W/a"] {
            let mut headers = HeaderMap::new();
            headers.append(IF_MATCH, HeaderValue::from_static(value));
            let read = versions(&headers, &IF_MATCH, Weak::Counts);
            assert!(matches!(read, Err(Failure::Query(_))), "{value}");
        }
    }

    fn listed(tags: &[&str]) -> Versions {
        Versions::Listed(tags.iter().map(|tag| (*tag).to_owned()).collect())
    }

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
