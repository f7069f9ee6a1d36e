//! Who may reach which sandbox.
//!
//! A request passes [`Authorizer::admit`] before its routing headers are read and
//! [`Authorizer::authorize`] once they name a sandbox, and again if resolution leads to another one
//! than named. Every failure closes: a request passes only if somebody said yes. Credentials are
//! compared in constant time, kept only as hashes, and never logged or forwarded.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::error::Error;

pub mod review;
pub mod scoped_token;
pub mod static_token;

use self::review::Reviews;
use self::scoped_token::ScopedTokens;
use self::static_token::StaticToken;

/// How callers are judged.
#[derive(Debug)]
pub enum Authorizer {
    /// Everybody reaches every sandbox.
    AllowAll,
    /// Whoever knows one shared token reaches every sandbox.
    Static(StaticToken),
    /// A token names the one sandbox it opens.
    Scoped(ScopedTokens),
    /// The cluster knows the caller, and possibly what it may reach.
    Review(Box<Reviews>),
}

/// The sandbox a caller wants to reach.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Authorizer {
    /// Judges the caller alone.
    ///
    /// # Errors
    /// When the caller is not known.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        match self {
            Self::Static(token) => token.admit(headers),
            Self::AllowAll | Self::Scoped(_) | Self::Review(_) => Ok(()),
        }
    }

    /// Judges whether the caller may reach `subject`.
    ///
    /// # Errors
    /// When the caller is not known, may not, or the question could not be answered.
    pub async fn authorize(&self, headers: &HeaderMap, subject: Subject<'_>) -> Result<(), Error> {
        match self {
            Self::AllowAll | Self::Static(_) => Ok(()),
            Self::Scoped(tokens) => tokens.authorize(headers, subject),
            Self::Review(reviews) => Box::pin(reviews.authorize(headers, subject)).await,
        }
    }

    /// Follows the files that secrets came from until cancelled.
    pub(crate) async fn follow(&self) {
        match self {
            Self::Static(token) => token.follow().await,
            Self::Scoped(tokens) => tokens.follow().await,
            Self::AllowAll | Self::Review(_) => std::future::pending().await,
        }
    }

    /// Whether a caller may reach one sandbox and not another.
    pub fn judges_sandboxes(&self) -> bool {
        match self {
            Self::AllowAll | Self::Static(_) => false,
            Self::Scoped(_) => true,
            Self::Review(reviews) => reviews.judge_sandboxes(),
        }
    }

    /// Looks at the files that secrets came from now, not only when their time has come.
    pub(crate) fn look_again(&self) {
        match self {
            Self::Static(token) => token.look_again(),
            Self::Scoped(tokens) => tokens.look_again(),
            Self::AllowAll | Self::Review(_) => {}
        }
    }

    /// Whether every request passes without being looked at.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::AllowAll)
    }
}

/// Says what became of a secret file that changed, without the secret.
fn report<E: std::error::Error>(what: &'static str) -> impl FnMut(Result<(), &E>) {
    move |outcome| match outcome {
        Ok(()) => tracing::info!(what, "secret reloaded"),
        Err(error) => {
            tracing::error!(what, %error, "secret not reloaded; the one before stays in use");
        }
    }
}

/// The bearer token of a request: scheme in any case, blanks trimmed, `None` for other schemes, an
/// empty token, and more than one `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares secrets without telling by the time taken where they differ.
pub(crate) fn same_secret(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && std::hint::black_box(
            one.iter()
                .zip(other)
                .fold(0_u8, |difference, (a, b)| difference | (a ^ b)),
        ) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn bearer_tokens_are_found_in_any_case_and_trimmed() {
        let token = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            bearer(&headers).map(ToOwned::to_owned)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER   abc "] {
            assert_eq!(token(value).as_deref(), Some("abc"), "{value}");
        }
        for value in ["Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc"] {
            assert_eq!(token(value), None, "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&twice), None);
    }

    #[test]
    fn secrets_compare_by_content() {
        assert!(same_secret(b"abc", b"abc"));
        assert!(!same_secret(b"abc", b"abd"));
        assert!(!same_secret(b"abc", b"ab"));
    }
}
