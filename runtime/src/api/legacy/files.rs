//! `GET /download`, `/list` and `/exists`.
//!
//! Looking a path up and opening a file are left on the event loop: they take microseconds, a thread
//! would take longer. Listings are not, directories can be large.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;

use super::paths::{Named, named};
use super::{python, reply};
use crate::api::App;
use crate::api::content::{self, Presentation};
use crate::api::listing::{self, Frame};
use crate::files::{FileError, Kind, Listed};

pub(super) async fn download(
    State(app): State<App>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Response<Body> {
    let not_found = || reply::message(StatusCode::NOT_FOUND, "File not found");
    match named(&uri, "/download", |path| app.root.open_file(path)) {
        Ok(Named {
            text,
            found: Some(file),
            ..
        }) => {
            let presentation = Presentation {
                etag: true,
                disposition: disposition(&text),
            };
            content::respond(&method, &headers, file, presentation).await
        }
        // Nothing, or a directory, a FIFO, a device: nothing that can be downloaded.
        Ok(Named { found: None, .. }) | Err(FileError::Special) => not_found(),
        Err(error) if error.errno() == Some(rustix::io::Errno::ISDIR) => not_found(),
        Err(error) => refused(&app, "Download failed", &error),
    }
}

pub(super) async fn list(State(app): State<App>, uri: Uri) -> Response<Body> {
    let not_a_directory = || reply::message(StatusCode::NOT_FOUND, "Path is not a directory");
    let path = match named(&uri, "/list", |path| app.root.metadata(path)) {
        Ok(named)
            if named
                .found
                .as_ref()
                .is_some_and(cap_std::fs::Metadata::is_dir) =>
        {
            named.path
        }
        Ok(_) => return not_a_directory(),
        Err(error) => return refused(&app, "List files failed", &error),
    };
    let frame = Frame {
        before: "[".to_owned(),
        after: "]",
        entry: |listed| Some(Entry::from(listed)),
    };
    match listing::answer(&app.root, path, frame, app.config.body_timeout).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_absent() => not_a_directory(),
        Ok(Err(error)) => refused(&app, "List files failed", &error),
        Err(error) => {
            let text = format!("List files failed: {error}");
            reply::message(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

pub(super) async fn exists(State(app): State<App>, uri: Uri) -> Response<Body> {
    match named(&uri, "/exists", |path| app.root.metadata(path)) {
        Ok(named) => reply::json(
            StatusCode::OK,
            &json!({"path": named.text, "exists": named.found.is_some()}),
        ),
        Err(error) => refused(&app, "Exists check failed", &error),
    }
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    size: u64,
    r#type: &'static str,
    mod_time: f64,
}

impl From<Listed> for Entry {
    fn from(listed: Listed) -> Self {
        Self {
            name: listed.name.to_string_lossy().into_owned(),
            size: listed.size,
            // Clients know no third type.
            r#type: match listed.kind {
                Kind::Directory => "directory",
                Kind::File | Kind::BrokenLink => "file",
            },
            mod_time: match listed.modified.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => since.as_secs_f64(),
                Err(before) => -before.duration().as_secs_f64(),
            },
        }
    }
}

/// Failures that are the same for every operation.
pub(super) fn refused(app: &App, operation: &str, error: &FileError) -> Response<Body> {
    match error {
        FileError::Escapes | FileError::Nul => reply::access_denied(),
        FileError::Exhausted(text) => reply::busy(format!("{operation}: {text}")),
        error => {
            tracing::warn!(operation, %error, "file operation failed");
            let name = app.root.path().to_string_lossy();
            let text = format!("{operation}: {}", describe(error, &name));
            reply::message(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// The original's words for what went wrong with `name`.
pub(super) fn describe(error: &FileError, name: &str) -> String {
    match error {
        FileError::System { source, .. } => python::os_error(source, name),
        other => format!("{other}: {}", python::repr(name)),
    }
}

/// What `urllib.parse.quote` leaves alone.
const UNQUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b'/');

fn disposition(name: &str) -> Option<HeaderValue> {
    let quoted = utf8_percent_encode(name, UNQUOTED).to_string();
    let value = if quoted == name {
        format!("attachment; filename=\"{name}\"")
    } else {
        format!("attachment; filename*=utf-8''{quoted}")
    };
    HeaderValue::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_survive_any_name() {
        for (name, value) in [
            ("dir/a.txt", "attachment; filename=\"dir/a.txt\""),
            ("a b", "attachment; filename*=utf-8''a%20b"),
            ("é\"\n", "attachment; filename*=utf-8''%C3%A9%22%0A"),
        ] {
            assert_eq!(disposition(name).unwrap(), value);
        }
    }
}
