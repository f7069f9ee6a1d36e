//! Everything the router itself can answer instead of a sandbox: whose fault it is, the status, the
//! text a client reads, and whether trying again can help.
//!
//! Only this module turns a failure into a response. A response made here carries
//! `X-Sandbox-Router-Error` with a stable reason, so that clients and logs can tell it from an
//! answer of the sandbox with the same status. gRPC clients get the same facts as a gRPC status.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode, Version};

use crate::target::TargetError;

/// Marks a response the router made itself; the value is [`Error::reason`].
pub const ROUTER_ERROR: HeaderName = HeaderName::from_static("x-sandbox-router-error");

/// How long a client is asked to wait before it tries again.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// A request that the router answers itself.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The routing headers do not name a target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The request line or its framing headers cannot be forwarded safely.
    #[error("{0}")]
    BadRequest(&'static str),
    /// A method no sandbox can serve.
    #[error("CONNECT is not supported; send the request to the sandbox itself.")]
    Connect,
    /// The caller is not known. The text depends on the mode, as clients of earlier routers expect.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller is known and may not reach this sandbox.
    #[error("forbidden")]
    Forbidden,
    /// Whether the caller may reach the sandbox could not be found out.
    #[error("The authorization service could not be asked; try again.")]
    Authorizer,
    /// No such sandbox.
    #[error("Sandbox {id} was not found in namespace {namespace}.")]
    Unknown {
        /// Namespace asked for.
        namespace: String,
        /// Name asked for.
        id: String,
    },
    /// The namespace is none this router watches.
    #[error("This router serves namespace {served} only, not {namespace}.")]
    OutOfScope {
        /// Namespace asked for.
        namespace: String,
        /// The one served.
        served: String,
    },
    /// The sandbox exists and is suspended.
    #[error("Sandbox {id} is suspended; set its operatingMode to Running to use it.")]
    Suspended {
        /// Name asked for.
        id: String,
    },
    /// The sandbox has been deleted, has expired or has finished.
    #[error("Sandbox {id} is gone: it was deleted, has expired or has finished.")]
    Gone {
        /// Name asked for.
        id: String,
    },
    /// The request body is larger than the operator allows.
    #[error("The request body is larger than {limit} bytes.")]
    BodyTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The request body stopped arriving.
    #[error("The request body stopped arriving.")]
    BodyStalled,
    /// The sandbox exists and is not ready.
    #[error("Sandbox {id} is not ready yet.")]
    NotReady {
        /// Name asked for.
        id: String,
    },
    /// The address of the sandbox did not answer a moment ago.
    #[error("Sandbox {id} did not answer a moment ago; its pod may have moved.")]
    Unreachable {
        /// Name asked for.
        id: String,
    },
    /// The router has not loaded its table yet.
    #[error("The router is still loading its table of sandboxes.")]
    Loading,
    /// A limit of the router is reached.
    #[error("{0}")]
    Overloaded(&'static str),
    /// No connection to the sandbox could be made.
    #[error("Could not connect to the backend sandbox: {id}")]
    Dial {
        /// Name asked for.
        id: String,
    },
    /// The sandbox closed the connection or answered with something that is not HTTP.
    #[error("The backend sandbox broke off before it answered: {id}")]
    Broken {
        /// Name asked for.
        id: String,
    },
    /// The sandbox switched protocols without being asked to.
    #[error("The backend sandbox attempted an upgrade that the request did not ask for: {id}")]
    UnexpectedUpgrade {
        /// Name asked for.
        id: String,
    },
    /// The sandbox did not answer in time.
    #[error("Timed out waiting for the backend sandbox: {id}")]
    Timeout {
        /// Name asked for.
        id: String,
    },
}

impl Error {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Target(_) | Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Authorizer => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unknown { .. } | Self::OutOfScope { .. } => StatusCode::NOT_FOUND,
            Self::Suspended { .. } => StatusCode::CONFLICT,
            Self::Gone { .. } => StatusCode::GONE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::NotReady { .. }
            | Self::Unreachable { .. }
            | Self::Loading
            | Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Dial { .. } | Self::Broken { .. } | Self::UnexpectedUpgrade { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A stable word for logs, metrics and the [`ROUTER_ERROR`] header.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Target(_) => "bad-routing-header",
            Self::BadRequest(_) => "bad-request",
            Self::Connect => "method-not-allowed",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Authorizer => "authorizer-failed",
            Self::Unknown { .. } => "unknown-sandbox",
            Self::OutOfScope { .. } => "namespace-not-served",
            Self::Suspended { .. } => "suspended",
            Self::Gone { .. } => "gone",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyStalled => "body-stalled",
            Self::NotReady { .. } => "not-ready",
            Self::Unreachable { .. } => "unreachable",
            Self::Loading => "loading",
            Self::Overloaded(_) => "overloaded",
            Self::Dial { .. } => "dial",
            Self::Broken { .. } => "broken",
            Self::UnexpectedUpgrade { .. } => "unexpected-upgrade",
            Self::Timeout { .. } => "timeout",
        }
    }

    /// When trying again can help: how long to wait first.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SOON)
    }

    /// The response for a client that speaks `dialect`.
    pub fn response(&self, dialect: Dialect) -> Response {
        let mut response = match dialect {
            Dialect::Http => self.http(),
            Dialect::Grpc => self.grpc(),
        };
        let headers = response.headers_mut();
        headers.insert(ROUTER_ERROR, HeaderValue::from_static(self.reason()));
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }

    fn http(&self) -> Response {
        let detail = serde_json::json!({ "detail": self.to_string() }).to_string();
        let mut response = Response::new(Body::from(detail));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Unauthenticated(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Connect => {
                headers.insert(
                    ALLOW,
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                );
            }
            _ => {}
        }
        response
    }

    /// A trailers-only response: HTTP 200 with the outcome in `grpc-status`.
    fn grpc(&self) -> Response {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.grpc_code()));
        // The texts are ASCII without `%`, so the percent-encoding gRPC asks for changes nothing.
        if let Ok(message) = HeaderValue::from_str(&self.to_string()) {
            headers.insert("grpc-message", message);
        }
        response
    }

    /// The status code of gRPC nearest in meaning.
    fn grpc_code(&self) -> u16 {
        match self.status() {
            StatusCode::BAD_REQUEST => 3,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
            StatusCode::NOT_FOUND | StatusCode::GONE => 5,
            StatusCode::FORBIDDEN => 7,
            StatusCode::PAYLOAD_TOO_LARGE => 8,
            StatusCode::CONFLICT => 9,
            StatusCode::METHOD_NOT_ALLOWED => 12,
            StatusCode::INTERNAL_SERVER_ERROR => 13,
            StatusCode::UNAUTHORIZED => 16,
            _ => 14,
        }
    }
}

/// How the client expects to be told of an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// A status and a JSON body.
    Http,
    /// A gRPC status in trailers.
    Grpc,
}

impl Dialect {
    /// gRPC is HTTP/2 with its content type; gRPC-Web is ordinary HTTP.
    pub fn of(version: Version, headers: &HeaderMap) -> Self {
        let grpc = version == Version::HTTP_2
            && headers.get(CONTENT_TYPE).is_some_and(|value| {
                value
                    .as_bytes()
                    .strip_prefix(b"application/grpc")
                    .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
            });
        if grpc { Self::Grpc } else { Self::Http }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_error_is_json_with_a_mark() {
        let error = Error::Dial {
            id: "box".to_owned(),
        };
        let response = error.response(Dialect::Http);
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[ROUTER_ERROR], "dial");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"detail":"Could not connect to the backend sandbox: box"}"#
        );
    }

    #[test]
    fn only_unavailable_asks_to_retry() {
        assert_eq!(
            Error::Loading.response(Dialect::Http).headers()[RETRY_AFTER],
            "1"
        );
        let error = Error::Timeout { id: "a".to_owned() };
        assert_eq!(error.retry_after(), None);
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let error = Error::Unknown {
            namespace: "ns".to_owned(),
            id: "box".to_owned(),
        };
        let response = error.response(Dialect::Grpc);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(
            response.headers()["grpc-message"],
            "Sandbox box was not found in namespace ns."
        );
    }

    #[test]
    fn the_dialect_follows_version_and_content_type() {
        let dialect = |version, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            Dialect::of(version, &headers)
        };
        assert_eq!(dialect(Version::HTTP_2, "application/grpc"), Dialect::Grpc);
        assert_eq!(
            dialect(Version::HTTP_2, "application/grpc+proto"),
            Dialect::Grpc
        );
        assert_eq!(
            dialect(Version::HTTP_2, "application/grpc-web"),
            Dialect::Http
        );
        assert_eq!(dialect(Version::HTTP_11, "application/grpc"), Dialect::Http);
    }
}
