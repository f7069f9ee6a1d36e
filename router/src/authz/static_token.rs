//! One shared token for all sandboxes: how deployments of the Python router authenticate.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{bearer, same_secret};
use crate::error::Error;

/// The token, without the blanks around it.
pub struct StaticToken(Box<[u8]>);

/// A token that is empty or blank.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the static token is empty")]
pub struct EmptyToken;

impl StaticToken {
    /// Takes the token as configured.
    ///
    /// # Errors
    /// A token of nothing but blanks would open the router to everybody who sends nothing.
    pub fn new(token: &str) -> Result<Self, EmptyToken> {
        let token = token.trim();
        if token.is_empty() {
            return Err(EmptyToken);
        }
        Ok(Self(token.as_bytes().into()))
    }

    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        // Exactly a scheme and a token, as the Python router demanded.
        let token = bearer(headers)
            .filter(|token| !token.contains(char::is_whitespace))
            .filter(|_| headers.get_all(AUTHORIZATION).iter().count() == 1)
            .ok_or(Error::Unauthenticated(
                "Missing or invalid Authorization header.",
            ))?;
        if same_secret(token.as_bytes(), &self.0) {
            Ok(())
        } else {
            Err(Error::Unauthenticated("Invalid token."))
        }
    }
}

impl std::fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StaticToken")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_token_is_admitted() {
        let token = StaticToken::new("  s3cret\n").unwrap();
        let admit = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            token.admit(&headers).map_err(|error| error.to_string())
        };
        assert_eq!(admit(Some("bearer s3cret")), Ok(()));
        let malformed = Err("Missing or invalid Authorization header.".to_owned());
        for value in [
            None,
            Some("Basic s3cret"),
            Some("Bearer"),
            Some("Bearer s3 cret"),
        ] {
            assert_eq!(admit(value), malformed, "{value:?}");
        }
        assert_eq!(
            admit(Some("Bearer wrong")),
            Err("Invalid token.".to_owned())
        );
    }

    #[test]
    fn a_blank_token_is_refused_and_none_is_shown() {
        assert_eq!(StaticToken::new(" \n").unwrap_err(), EmptyToken);
        let shown = format!("{:?}", StaticToken::new("s3cret").unwrap());
        assert!(!shown.contains("s3cret"));
    }
}
