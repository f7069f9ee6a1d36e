//! Who may send a request from a web page: nobody but pages of the same address.
//!
//! A browser sends a page's requests to any address it is told, a port that a developer forwarded among
//! them, and opens web sockets to it. It always says whose page it is. Requests that came through a router
//! carry its routing header, which a page cannot set for another origin, and are the router's to judge.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{Response, StatusCode};
use axum::middleware::Next;

use super::legacy::reply;

/// The header with which a router was told where to bring a request.
const ROUTED: &str = "x-sandbox-id";

/// Lets a request pass or refuses it with 403.
pub(crate) async fn check(request: Request, next: Next) -> Response<Body> {
    if is_foreign(request.headers()) {
        let text = "Requests from pages of another origin are not served";
        return reply::detail(StatusCode::FORBIDDEN, text);
    }
    next.run(request).await
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    if headers.contains_key(ROUTED) {
        return false;
    }
    // A page without an origin of its own says "null".
    let Some((_, origin)) = origin.to_str().ok().and_then(|text| text.split_once("://")) else {
        return true;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_none_or(|host| !host.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_address_and_routed_requests_pass() {
        for (origin, host, routed, foreign) in [
            (None, Some("127.0.0.1:8888"), false, false),
            (
                Some("http://127.0.0.1:8888"),
                Some("127.0.0.1:8888"),
                false,
                false,
            ),
            (
                Some("https://Box.example"),
                Some("box.example"),
                false,
                false,
            ),
            (
                Some("http://evil.example"),
                Some("127.0.0.1:8888"),
                false,
                true,
            ),
            (
                Some("http://127.0.0.1:9999"),
                Some("127.0.0.1:8888"),
                false,
                true,
            ),
            (Some("http://127.0.0.1:8888"), None, false, true),
            (Some("null"), Some("127.0.0.1:8888"), false, true),
            (
                Some("http://app.example"),
                Some("127.0.0.1:8888"),
                true,
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ORIGIN, origin), (HOST, host)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            if routed {
                headers.insert(ROUTED, "box".parse().unwrap());
            }
            assert_eq!(is_foreign(&headers), foreign, "{origin:?} {host:?}");
        }
    }
}
