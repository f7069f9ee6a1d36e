//! This face's errors: `{"code", "message"}`.

use axum::body::Body;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use rustix::io::Errno;
use serde_json::json;

use crate::api::answer;
use crate::files::FileError;

/// An error answer.
pub(super) fn error(status: StatusCode, code: &str, message: impl AsRef<str>) -> Response<Body> {
    answer::json(status, &json!({"code": code, "message": message.as_ref()}))
}

/// The client's mistake.
pub(super) fn invalid(message: impl AsRef<str>) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}

/// The code for a body that did not come on.
pub(super) const STALLED: &str = "TIMEOUT";

/// A body that did not come on.
pub(super) fn stalled(text: impl AsRef<str>) -> Response<Body> {
    error(StatusCode::REQUEST_TIMEOUT, STALLED, text)
}

/// A worker thread that did not come back.
pub(super) fn stuck(error: &tokio::task::JoinError) -> Response<Body> {
    tracing::error!(%error, "file work was interrupted");
    self::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL",
        "the operation was interrupted",
    )
}

/// What the file engine failed with.
pub(super) fn file(failure: &FileError) -> Response<Body> {
    file_with(failure, &text(failure))
}

/// The words for what the file engine failed with.
pub(super) fn text(failure: &FileError) -> String {
    match failure {
        FileError::System { context, source } => format!("{context}: {source}"),
        other => other.to_string(),
    }
}

/// What the file engine failed with, in words of one's own.
pub(super) fn file_with(failure: &FileError, text: &str) -> Response<Body> {
    let (status, code) = match failure {
        FileError::Escapes => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        FileError::Nul | FileError::Special | FileError::Invalid(_) => {
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT")
        }
        FileError::Conflict(_) => (StatusCode::CONFLICT, "CONFLICT"),
        FileError::TooLarge { .. } | FileError::Unlistable { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE")
        }
        FileError::Condition => (StatusCode::PRECONDITION_FAILED, "CONDITION_FAILED"),
        // Of the cancelled, nobody is there to read it.
        FileError::Cancelled | FileError::Exhausted(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
        }
        FileError::System { .. } if failure.is_too_long() => {
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT")
        }
        FileError::System { .. } if failure.is_absent() => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        FileError::System { .. } if failure.is_full() => {
            (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE")
        }
        FileError::System { .. } => match failure.errno() {
            Some(Errno::ISDIR) => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                (StatusCode::FORBIDDEN, "PERMISSION_DENIED")
            }
            Some(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
                (StatusCode::CONFLICT, "CONFLICT")
            }
            _ => {
                tracing::warn!(error = text, "file operation failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL")
            }
        },
    };
    let mut response = error(status, code, text);
    if matches!(failure, FileError::Exhausted(_)) {
        let later = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, later);
    }
    response
}
