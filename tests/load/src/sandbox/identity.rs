//! Who answers: what a sandbox says of itself in every answer, and what a client compares.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderValue};

/// The header of every answer that says who gave it.
pub(super) const ANSWERED_BY: &str = "x-answered-by";

/// One pod of one sandbox.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Identity {
    /// The Sandbox's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Which of its pods, one after the other.
    pub incarnation: u64,
}

/// Not the text of an identity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not NAMESPACE/NAME/UID/INCARNATION")]
pub struct NoIdentity(String);

impl Identity {
    /// The first pod of a sandbox whose UID follows from its name.
    pub fn first(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            incarnation: 0,
        }
    }

    /// Whose answer this is, if a sandbox gave it.
    ///
    /// # Errors
    /// When the header does not hold an identity, or more than one.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, NoIdentity> {
        let mut values = headers.get_all(ANSWERED_BY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        if values.next().is_some() {
            return Err(NoIdentity(text.into_owned()));
        }
        text.parse().map(Some)
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            name,
            uid,
            incarnation,
        } = self;
        write!(f, "{namespace}/{name}/{uid}/{incarnation}")
    }
}

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Self, NoIdentity> {
        let refused = || NoIdentity(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, name, uid, incarnation] = *parts.as_slice() else {
            return Err(refused());
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            incarnation: incarnation.parse().map_err(|_| refused())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_travels_in_a_header() {
        let identity = Identity {
            incarnation: 3,
            ..Identity::first("ns", "box")
        };
        let mut headers = HeaderMap::new();
        assert_eq!(Identity::of(&headers), Ok(None));
        headers.append(ANSWERED_BY, identity.header().unwrap());
        assert_eq!(Identity::of(&headers), Ok(Some(identity.clone())));
        headers.append(ANSWERED_BY, identity.header().unwrap());
        assert!(Identity::of(&headers).is_err());
        for text in ["", "a/b/c", "a/b/c/d", "a/b/c/1/2"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
