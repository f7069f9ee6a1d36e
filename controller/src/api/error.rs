//! What can go wrong with an API call, sorted by what the caller should do about it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// A failed API call.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 404: the object is not there.
    #[error("{0}")]
    NotFound(String),
    /// 409 on create: the name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// 409 on a write with preconditions: somebody else was faster.
    #[error("{0}")]
    Conflict(String),
    /// 422, or 400 from strict field validation: the object itself is wrong and the same call will
    /// never succeed.
    #[error("{0}")]
    Invalid(String),
    /// 403: not allowed, or a quota is exhausted.
    #[error("{0}")]
    Forbidden(String),
    /// 410: the revision or continue token is too old.
    #[error("{0}")]
    Expired(String),
    /// 429: the server asks for patience.
    #[error("the API server is busy: {message}")]
    Busy {
        /// What it said.
        message: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Any other answer.
    #[error("the API server answered {code}: {message}")]
    Server {
        /// HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// No answer. Whether a write happened is unknown.
    #[error("no answer from the API server: {0}")]
    Transport(String),
    /// The answer could not be understood. Whether a write happened is unknown.
    #[error("unreadable answer from the API server: {0}")]
    Unreadable(String),
    /// This replica is not (or no longer) the leader, so nothing was sent.
    #[error("this replica does not hold the lease; nothing was written")]
    NotLeader,
}

impl ApiError {
    /// The error for an answer with an error status.
    pub fn from_answer(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let status: Option<Status> = serde_json::from_slice(body).ok();
        let reason = status
            .as_ref()
            .and_then(|status| status.reason.clone())
            .unwrap_or_default();
        let message = status
            .as_ref()
            .and_then(|status| status.message.clone())
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(512).collect());
        match (code, reason.as_str()) {
            (404, _) => Self::NotFound(message),
            (409, "AlreadyExists") => Self::AlreadyExists(message),
            (409, _) => Self::Conflict(message),
            (422, _) => Self::Invalid(message),
            // Strict field validation answers BadRequest and names the unknown or duplicate field.
            (400, _) if message.contains("strict decoding error") => Self::Invalid(message),
            // A member of the wrong type fails to decode at all.
            (400, _) if message.contains("cannot unmarshal") || message.contains("json: ") => {
                Self::Invalid(message)
            }
            (403, _) => Self::Forbidden(message),
            (410, _) => Self::Expired(message),
            (429, _) => Self::Busy {
                message,
                retry_after: retry_after.or_else(|| {
                    let seconds = status?.details?.retry_after_seconds?;
                    Some(Duration::from_secs(u64::try_from(seconds).ok()?))
                }),
            },
            _ => Self::Server { code, message },
        }
    }

    /// Whether the call may have taken effect although it failed.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Unreadable(_) => true,
            Self::Server { code, .. } => *code >= 500,
            _ => false,
        }
    }

    /// Whether repeating the same call can never help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A short label for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "404",
            Self::AlreadyExists(_) | Self::Conflict(_) => "409",
            Self::Invalid(_) => "422",
            Self::Forbidden(_) => "403",
            Self::Expired(_) => "410",
            Self::Busy { .. } => "429",
            Self::Server { .. } => "5xx",
            Self::Transport(_) | Self::Unreadable(_) => "none",
            Self::NotLeader => "fenced",
        }
    }
}

/// The error for an answer, or a request, that is not what it should be.
pub(super) fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Unreadable(error.to_string())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, reason: &str, message: &str) -> ApiError {
        let body = json!({"kind": "Status", "reason": reason, "message": message,
            "details": {"retryAfterSeconds": 2}});
        ApiError::from_answer(code, None, body.to_string().as_bytes())
    }

    #[test]
    fn answers_are_sorted_by_what_to_do() {
        assert!(matches!(
            answer(404, "NotFound", "x"),
            ApiError::NotFound(_)
        ));
        assert!(matches!(
            answer(409, "AlreadyExists", "x"),
            ApiError::AlreadyExists(_)
        ));
        assert!(matches!(
            answer(409, "Conflict", "x"),
            ApiError::Conflict(_)
        ));
        let strict = answer(
            400,
            "BadRequest",
            "strict decoding error: unknown field \"spec.x\"",
        );
        assert!(strict.is_permanent());
        assert!(strict.to_string().contains("spec.x"));
        assert!(!answer(400, "BadRequest", "something else").is_permanent());
        assert_eq!(
            answer(429, "TooManyRequests", "x").retry_after(),
            Some(Duration::from_secs(2))
        );
        assert!(answer(500, "InternalError", "x").outcome_unknown());
        assert!(!answer(422, "Invalid", "x").outcome_unknown());
    }

    #[test]
    fn a_body_that_is_no_status_is_quoted_in_part() {
        let error = ApiError::from_answer(502, None, b"<html>bad gateway</html>");
        assert!(error.to_string().contains("bad gateway"));
    }
}
