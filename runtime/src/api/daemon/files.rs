//! `GET`, `HEAD`, `PUT` and `DELETE` of `/v1/files/{path}`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use rustix::io::Errno;
use serde::Serialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{is_read, method_not_allowed, reply, upload};
use crate::api::App;
use crate::api::content::{self, Presentation};
use crate::api::listing::{self, Frame};
use crate::files::{FileError, Kind, Listed, Removal, TreePath};

/// Where files are.
pub(super) const FILES: &str = "/v1/files";

pub(super) async fn files(State(app): State<App>, request: Request) -> Response<Body> {
    let method = request.method();
    if is_read(method) {
        let (head, _) = request.into_parts();
        return read(&app, &head.method, &head.headers, &head.uri).await;
    }
    if method == Method::PUT {
        return upload::put(&app, request).await;
    }
    if method == Method::DELETE {
        return remove(&app, request.uri()).await;
    }
    method_not_allowed("DELETE, GET, HEAD, PUT")
}

/// The path of a request behind `prefix`, and its text as it was asked for.
pub(super) fn path(app: &App, uri: &Uri, prefix: &str) -> Result<(TreePath, String), FileError> {
    let raw = uri.path().strip_prefix(prefix).unwrap_or_default();
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    let path = app.root.parse_absolute(OsStr::from_bytes(&decoded))?;
    Ok((path, String::from_utf8_lossy(&decoded).into_owned()))
}

/// The value of a query parameter, the first of several.
pub(super) fn query(uri: &Uri, name: &str) -> Option<String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.into_owned())
}

async fn read(app: &App, method: &Method, headers: &HeaderMap, uri: &Uri) -> Response<Body> {
    let (path, text) = match path(app, uri, FILES) {
        Ok(path) => path,
        Err(error) => return reply::file(&error),
    };
    match app.root.open_file(&path) {
        Ok(file) => {
            content::respond(
                method,
                headers,
                file,
                Presentation {
                    etag: true,
                    ..Presentation::default()
                },
            )
            .await
        }
        Err(error) if error.errno() == Some(Errno::ISDIR) => list(app, path, &text).await,
        Err(error) => reply::file(&error),
    }
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    size: u64,
    r#type: &'static str,
    modified_at: String,
    mode: String,
}

async fn list(app: &App, path: TreePath, text: &str) -> Response<Body> {
    let text = match text.trim_start_matches('/') {
        "." => "",
        text => text,
    };
    let frame = Frame {
        before: format!("{{\"path\":{},\"entries\":[", json!(format!("/{text}"))),
        after: "]}",
        // What leads nowhere cannot be read, so it is not offered.
        entry: |listed: Listed| (listed.kind != Kind::BrokenLink).then(|| Entry::from(listed)),
    };
    match listing::answer(&app.root, path, frame, app.config.body_timeout).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => reply::file(&error),
        Err(error) => reply::stuck(&error),
    }
}

impl From<Listed> for Entry {
    fn from(listed: Listed) -> Self {
        Self {
            name: listed.name.to_string_lossy().into_owned(),
            size: listed.size,
            r#type: match listed.kind {
                Kind::Directory => "directory",
                Kind::File | Kind::BrokenLink => "file",
            },
            modified_at: whole_seconds(listed.modified).to_string(),
            mode: format!("{:04o}", listed.mode & 0o777),
        }
    }
}

/// Rounded down; a time beyond the calendar is the epoch.
fn whole_seconds(time: SystemTime) -> Timestamp {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok(),
        Err(before) => {
            let before = before.duration();
            let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            i64::try_from(seconds).ok().map(|seconds| -seconds)
        }
    };
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or_default()
}

async fn remove(app: &App, uri: &Uri) -> Response<Body> {
    let removal = match query(uri, "recursive").as_deref() {
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Removal::Single,
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Removal::Recursive,
        Some(other) => {
            return reply::invalid(format!("recursive is {other:?}; expected true or false"));
        }
    };
    let path = match path(app, uri, FILES) {
        Ok((path, _)) => path,
        Err(error) => return reply::file(&error),
    };
    let root = app.root.clone();
    match spawn_blocking(move || root.remove(&path, removal)).await {
        Ok(Ok(())) => no_content(),
        Ok(Err(error)) => reply::file(&error),
        Err(error) => reply::stuck(&error),
    }
}

pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_whole_seconds_in_utc() {
        let epoch = SystemTime::UNIX_EPOCH;
        for (time, text) in [
            (epoch, "1970-01-01T00:00:00Z"),
            (
                epoch + Duration::from_millis(1_700_000_000_999),
                "2023-11-14T22:13:20Z",
            ),
            (epoch - Duration::from_millis(500), "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(whole_seconds(time).to_string(), text);
        }
    }

    #[test]
    fn queries_are_decoded_and_the_first_value_counts() {
        let uri = Uri::from_static("/v1/files/x?other=1&mode=0%36%34%34&mode=0600");
        assert_eq!(query(&uri, "mode").as_deref(), Some("0644"));
        assert_eq!(query(&uri, "recursive"), None);
    }
}
