//! One shared token for all sandboxes: how deployments of the Python router authenticate.

use std::path::PathBuf;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{bearer, report, same_secret};
use crate::error::Error;
use crate::files::{Followed, ReadError};

/// The token.
#[derive(Debug)]
pub struct StaticToken(Followed<Secret, StaticTokenError>);

/// The token without the blanks around it.
struct Secret(Box<[u8]>);

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StaticTokenError {
    /// A token of nothing but blanks would open the router to everybody who sends nothing.
    #[error("the static token is empty")]
    Empty,
    /// Its file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StaticToken {
    /// Takes a token that never changes.
    ///
    /// # Errors
    /// An empty token.
    pub fn new(token: &str) -> Result<Self, StaticTokenError> {
        Ok(Self(Followed::fixed(Secret::new(token.as_bytes())?)))
    }

    /// Takes the token in a file, and the next one when the file changes.
    ///
    /// # Errors
    /// A file that cannot be read or is empty.
    pub fn from_file(path: PathBuf) -> Result<Self, StaticTokenError> {
        let parse = |contents: &[Vec<u8>]| Secret::new(&contents.concat());
        Followed::load(vec![path], parse).map(Self)
    }

    pub(super) async fn follow(&self) {
        self.0.follow(report("static token")).await;
    }

    pub(super) fn look_again(&self) {
        self.0.look_again();
    }

    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        // Exactly a scheme and a token, as the Python router demanded.
        let token = bearer(headers)
            .filter(|token| !token.contains(char::is_whitespace))
            .filter(|_| headers.get_all(AUTHORIZATION).iter().count() == 1)
            .ok_or(Error::Unauthenticated(
                "Missing or invalid Authorization header.",
            ))?;
        if same_secret(token.as_bytes(), &self.0.current().0) {
            Ok(())
        } else {
            Err(Error::Unauthenticated("Invalid token."))
        }
    }
}

impl Secret {
    fn new(token: &[u8]) -> Result<Self, StaticTokenError> {
        let token = token.trim_ascii();
        if token.is_empty() {
            return Err(StaticTokenError::Empty);
        }
        Ok(Self(token.into()))
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
        assert!(StaticToken::new(" \n").is_err());
        let shown = format!("{:?}", StaticToken::new("s3cret").unwrap());
        assert!(!shown.contains("s3cret"));
    }
}
