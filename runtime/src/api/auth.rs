//! The bearer token, when one is configured: every face asks for it, and everything fails closed.
//!
//! Only the health endpoints are open, because a kubelet has no token and they reveal nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::middleware::Next;
use parking_lot::Mutex;

use super::grpc;
use super::legacy::reply;

/// Where the token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// The token itself.
    Value(String),
    /// A file that holds it, read again when it changes. Each line is a token, blanks around it
    /// ignored: while a token is replaced, the old one and the new one are both good.
    File(PathBuf),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => formatter.write_str("Value(<secret>)"),
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why a configured token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no token in it.
    #[error("{what} is empty; remove the option or provide a token")]
    Empty {
        /// What is empty.
        what: String,
    },
}

/// Endpoints for probes.
const OPEN: [&str; 3] = ["/", "/healthz", "/v1/health"];

/// Decides about requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    source: Option<Arc<TokenSource>>,
    read: Arc<Mutex<Option<ReadToken>>>,
}

#[derive(Clone)]
struct ReadToken {
    /// Device, inode, size and modification time of the file the token was read from.
    identity: (u64, u64, u64, i64, i64),
    tokens: Tokens,
}

/// The tokens that are good now. Never empty.
type Tokens = Arc<[Box<[u8]>]>;

impl std::fmt::Debug for ReadToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("<secret>")
    }
}

impl Gate {
    /// A gate for this token; without one it is always open.
    ///
    /// # Errors
    /// When the token cannot be used now.
    pub(crate) fn new(source: Option<TokenSource>) -> Result<Self, TokenError> {
        let gate = Self {
            source: source.map(Arc::new),
            read: Arc::default(),
        };
        gate.tokens()?;
        Ok(gate)
    }

    fn tokens(&self) -> Result<Option<Tokens>, TokenError> {
        match self.source.as_deref() {
            None => Ok(None),
            Some(TokenSource::Value(value)) => checked(value.as_bytes(), "the token").map(Some),
            Some(TokenSource::File(path)) => self.read_file(path).map(Some),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Tokens, TokenError> {
        let unreadable = |source| TokenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let identity = (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        let mut read = self.read.lock();
        if let Some(known) = read.as_ref().filter(|known| known.identity == identity) {
            return Ok(known.tokens.clone());
        }
        let text = fs::read(path).map_err(unreadable)?;
        let tokens = checked(&text, &format!("the token file {}", path.display()))?;
        *read = Some(ReadToken {
            identity,
            tokens: tokens.clone(),
        });
        Ok(tokens)
    }
}

fn checked(text: &[u8], what: &str) -> Result<Tokens, TokenError> {
    let tokens: Tokens = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
        .map(Box::from)
        .collect();
    if tokens.is_empty() {
        return Err(TokenError::Empty {
            what: what.to_owned(),
        });
    }
    Ok(tokens)
}

/// Lets a request pass or answers it.
pub(crate) async fn check(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let path = request.uri().path();
    if OPEN.contains(&path) || grpc::is_health(path) {
        return next.run(request).await;
    }
    match gate.tokens() {
        Ok(None) => next.run(request).await,
        Ok(Some(tokens)) if presents(&request, &tokens) => next.run(request).await,
        Ok(Some(_)) => {
            let text = "A valid bearer token is required";
            let mut response = refused(&request, StatusCode::UNAUTHORIZED, text);
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "no request can be authenticated");
            let text = "The token to check requests against is unavailable";
            refused(&request, StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn refused(request: &Request, status: StatusCode, text: &str) -> Response<Body> {
    if grpc::is_call(request.headers()) {
        grpc::refusal(status, text)
    } else {
        reply::detail(status, text)
    }
}

/// The token by itself. `Authorization` is the router's own and ends there; this one passes.
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

fn presents(request: &Request, tokens: &[Box<[u8]>]) -> bool {
    let headers = request.headers();
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, presented) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(presented)
    });
    let bare = headers.get(ACCESS_TOKEN).map(HeaderValue::as_bytes);
    bearer.into_iter().chain(bare).any(|presented| {
        let presented = presented.trim_ascii();
        // Every token is compared, so that the time says nothing about which one it was.
        let good = tokens
            .iter()
            .filter(|token| equal(presented, token))
            .count();
        good > 0
    })
}

/// Takes the same time wherever the first difference is.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |difference, (a, b)| {
            std::hint::black_box(difference | (a ^ b))
        }) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: Option<&str>) -> Request {
        let mut request = Request::new(Body::empty());
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request
    }

    #[test]
    fn only_the_exact_token_passes() {
        let tokens = [Box::from(&b"secret"[..]), Box::from(&b"other"[..])];
        for (authorization, passes) in [
            (Some("Bearer other"), true),
            (Some("Bearer secret"), true),
            (Some("bearer  secret "), true),
            (Some("Bearer secre"), false),
            (Some("Bearer secret2"), false),
            (Some("Bearer Secret"), false),
            (Some("Basic secret"), false),
            (Some("secret"), false),
            (Some("Bearer"), false),
            (None, false),
        ] {
            assert_eq!(
                presents(&request(authorization), &tokens),
                passes,
                "{authorization:?}"
            );
        }
    }

    #[test]
    fn a_token_may_come_by_itself_where_a_router_takes_the_usual_header_away() {
        let tokens = [Box::from(&b"secret"[..])];
        for (authorization, token, passes) in [
            (None, "secret", true),
            (None, " secret ", true),
            (None, "Bearer secret", false),
            (None, "secre", false),
            (Some("Bearer other"), "secret", true),
            (Some("Bearer secret"), "other", true),
            (Some("Bearer other"), "other", false),
        ] {
            let mut request = request(authorization);
            let value = HeaderValue::from_str(token).unwrap();
            request.headers_mut().insert(ACCESS_TOKEN, value);
            assert_eq!(presents(&request, &tokens), passes, "{token:?}");
        }
    }

    #[test]
    fn the_file_is_read_again_and_never_replaced_by_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(Gate::new(Some(TokenSource::File(file.clone()))).is_err());
        fs::write(&file, " one\n").unwrap();
        let gate = Gate::new(Some(TokenSource::File(file.clone()))).unwrap();
        let good = || -> Vec<String> {
            let tokens = gate.tokens().unwrap().unwrap();
            tokens
                .iter()
                .map(|token| String::from_utf8(token.to_vec()).unwrap())
                .collect()
        };
        assert_eq!(good(), ["one"]);
        fs::write(&file, "one\n\n second\r\n").unwrap();
        assert_eq!(good(), ["one", "second"]);
        fs::write(&file, "second\n").unwrap();
        assert_eq!(good(), ["second"]);
        fs::write(&file, " \n").unwrap();
        assert!(matches!(gate.tokens(), Err(TokenError::Empty { .. })));
        fs::remove_file(&file).unwrap();
        assert!(matches!(gate.tokens(), Err(TokenError::Unreadable { .. })));
        assert!(Gate::new(Some(TokenSource::Value(" ".to_owned()))).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let gate = Gate::new(Some(TokenSource::Value("hush".to_owned()))).unwrap();
        assert!(!format!("{gate:?}").contains("hush"));
    }
}
