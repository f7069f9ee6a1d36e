//! Who makes a request: bearer tokens, and what anonymous callers may see.
//!
//! The listener is wrapped in [`Authenticator::layer`]; the in-process client is not, because whoever
//! holds it already is the process. There is no authorisation behind it: a valid token may do
//! everything, which is what a single-user development server needs.

use std::sync::Arc;

use agent_sandbox_service::clock::Clock;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ops::TokenIssuer;
use crate::status::ApiError;

/// Paths that say nothing about what is stored, so that probes and version checks need no token.
const ANONYMOUS_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
const ANONYMOUS: &str = "system:anonymous";

/// The user a request runs as; handlers find it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User name, as in `kubernetes-admin`.
    pub name: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` included.
    pub groups: Vec<String>,
}

impl User {
    /// A user with full rights.
    pub fn admin() -> Self {
        let groups = ["system:masters", "system:authenticated"]
            .map(str::to_owned)
            .to_vec();
        Self {
            name: "kubernetes-admin".to_owned(),
            groups,
        }
    }

    fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }
}

/// Knows the tokens that are accepted. Only their digests are kept: neither a log nor a comparison
/// can leak one.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    users: Arc<Vec<([u8; 32], User)>>,
    accounts: Option<(TokenIssuer, Clock)>,
}

impl Authenticator {
    /// Accepts the given tokens and nothing else.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, User)>) -> Self {
        let users = tokens
            .into_iter()
            .map(|(token, user)| (digest(token), user))
            .collect();
        Self {
            users: Arc::new(users),
            accounts: None,
        }
    }

    /// Accepts the tokens of service accounts too: `issuer` is the server's
    /// ([`crate::ops::Engine::tokens`]).
    #[must_use]
    pub fn with_service_accounts(mut self, issuer: TokenIssuer, clock: Clock) -> Self {
        self.accounts = Some((issuer, clock));
        self
    }

    /// A fresh token: 244 random bits in hexadecimal.
    pub fn generate_token() -> String {
        format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
    }

    /// Puts the check in front of `router`. A request without a valid token gets 401, one without
    /// any token 403 unless its path is harmless.
    pub fn layer(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, check))
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Option<User>, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(None);
        };
        let token = value
            .to_str()
            .ok()
            .and_then(bearer)
            .ok_or_else(ApiError::unauthorized)?;
        let presented = digest(token);
        let known = self.users.iter().find(|(known, _)| *known == presented);
        known
            .map(|(_, user)| user.clone())
            .or_else(|| self.account(token))
            .map(Some)
            .ok_or_else(ApiError::unauthorized)
    }

    fn account(&self, token: &str) -> Option<User> {
        let (issuer, clock) = self.accounts.as_ref()?;
        let account = issuer.verify(token, clock.now())?;
        Some(User {
            name: account.name,
            groups: account.groups,
        })
    }
}

async fn check(State(auth): State<Authenticator>, mut request: Request, next: Next) -> Response {
    let user = match auth.authenticate(request.headers()) {
        Ok(Some(user)) => user,
        Ok(None) if is_anonymous(request.method(), request.uri().path()) => User::anonymous(),
        Ok(None) => {
            return refuse(&ApiError::anonymous(
                request.method().as_str(),
                request.uri().path(),
            ));
        }
        Err(error) => return refuse(&error),
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

fn refuse(error: &ApiError) -> Response {
    (error.code(), Json(error.to_value())).into_response()
}

fn is_anonymous(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && ANONYMOUS_PATHS.contains(&path)
}

/// The token of a `Bearer` credential; the scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::body::Body;
    use axum::http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, authorization: Option<&str>) -> (StatusCode, String) {
        async fn who(Extension(user): Extension<User>) -> String {
            user.name
        }
        let auth = Authenticator::new([("secret", User::admin())]);
        let router = auth.layer(Router::new().fallback(who));
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn tokens_decide() {
        let admin = (StatusCode::OK, "kubernetes-admin".to_owned());
        assert_eq!(ask("/api/v1/pods", Some("Bearer secret")).await, admin);
        assert_eq!(ask("/api/v1/pods", Some("bearer  secret ")).await, admin);
        for wrong in ["Bearer other", "Bearer ", "Basic c2VjcmV0", "secret"] {
            let (status, body) = ask("/healthz", Some(wrong)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong}");
            assert!(body.contains("\"reason\":\"Unauthorized\""), "{body}");
        }
    }

    #[tokio::test]
    async fn anonymous_callers_see_only_health_and_version() {
        assert_eq!(
            ask("/healthz", None).await,
            (StatusCode::OK, ANONYMOUS.to_owned())
        );
        let (status, body) = ask("/api/v1/secrets", None).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(body.contains("system:anonymous"), "{body}");
    }

    #[test]
    fn generated_tokens_differ() {
        assert_eq!(Authenticator::generate_token().len(), 64);
        assert_ne!(
            Authenticator::generate_token(),
            Authenticator::generate_token()
        );
    }
}
