//! Tokens that open exactly one sandbox until they expire, checked without asking anybody.
//!
//! ```text
//! v1.<payload>.<signature>
//! payload   = base64url({"ns": namespace, "name": sandbox, "exp": unix seconds}), no padding
//! signature = base64url(HMAC-SHA256(key, "agent-sandbox/scoped-token/v1." || payload text))
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Subject, bearer, report, same_secret};
use crate::error::Error;
use crate::files::{Followed, ReadError};

/// Signed together with the payload, so that no other use of the key makes a valid token.
const CONTEXT: &str = "agent-sandbox/scoped-token/v1.";
const VERSION: &str = "v1";
const MIN_KEY: usize = 32;
/// Block size of SHA-256.
const BLOCK: usize = 64;

/// Checks and mints tokens with one or more keys.
pub struct ScopedTokens {
    keys: Followed<Vec<Key>, KeyError>,
    clock: Clock,
}

/// A signing key. Surrounding blanks of the file it came from do not count.
#[derive(Clone)]
pub struct Key(Box<[u8]>);

#[derive(Deserialize, Serialize)]
struct Payload {
    ns: String,
    name: String,
    exp: i64,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is too short to resist guessing.
    #[error("a scoped-token key needs at least {MIN_KEY} bytes, this one has {length}")]
    Short {
        /// Its length without surrounding blanks.
        length: usize,
    },
    /// Its file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why no token is minted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MintError {
    /// Namespace or name is empty.
    #[error("a token needs a namespace and a sandbox name")]
    Empty,
    /// The lifetime is shorter than the resolution of the expiry.
    #[error("a token lives for at least one second")]
    Lifetime,
    /// There is no key to sign with.
    #[error("there is no key to sign with")]
    NoKey,
    /// The time of expiry cannot be written.
    #[error("the token would expire beyond the end of time")]
    Overflow,
}

impl Key {
    /// Takes the content of a key file.
    ///
    /// # Errors
    /// A key too short to resist guessing.
    pub fn new(content: &[u8]) -> Result<Self, KeyError> {
        let content = content.trim_ascii();
        if content.len() < MIN_KEY {
            return Err(KeyError::Short {
                length: content.len(),
            });
        }
        Ok(Self(content.into()))
    }

    /// HMAC-SHA256 (RFC 2104) of `message`.
    fn sign(&self, message: &[&[u8]]) -> [u8; 32] {
        let hashed: [u8; 32];
        let key: &[u8] = if self.0.len() > BLOCK {
            hashed = Sha256::digest(&self.0).into();
            &hashed
        } else {
            &self.0
        };
        let pad = |fill: u8| {
            let mut block = [fill; BLOCK];
            for (slot, byte) in block.iter_mut().zip(key) {
                *slot ^= byte;
            }
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        for part in message {
            inner.update(part);
        }
        let mut outer = Sha256::new();
        outer.update(pad(0x5c));
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

impl ScopedTokens {
    /// Accepts tokens signed with any of `keys` and mints with the first.
    pub fn new(key: Key, older: Vec<Key>, clock: Clock) -> Self {
        let mut keys = vec![key];
        keys.extend(older);
        Self {
            keys: Followed::fixed(keys),
            clock,
        }
    }

    /// The same with keys from files, which are followed. The first one mints.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key.
    pub fn from_files(paths: Vec<PathBuf>, clock: Clock) -> Result<Self, KeyError> {
        let parse = |contents: &[Vec<u8>]| contents.iter().map(|key| Key::new(key)).collect();
        Ok(Self {
            keys: Followed::load(paths, parse)?,
            clock,
        })
    }

    pub(super) async fn follow(&self) {
        self.keys.follow(report("scoped-token keys")).await;
    }

    pub(super) fn look_again(&self) {
        self.keys.look_again();
    }

    /// Makes a token for one sandbox.
    ///
    /// # Errors
    /// An empty name or a lifetime below one second.
    pub fn mint(&self, subject: Subject<'_>, lifetime: Duration) -> Result<String, MintError> {
        if subject.namespace.is_empty() || subject.name.is_empty() {
            return Err(MintError::Empty);
        }
        if lifetime < Duration::from_secs(1) {
            return Err(MintError::Lifetime);
        }
        let exp = self
            .clock
            .now()
            .checked_add(lifetime)
            .map_err(|_| MintError::Overflow)?
            .as_second();
        let payload = Payload {
            ns: subject.namespace.to_owned(),
            name: subject.name.to_owned(),
            exp,
        };
        let payload = serde_json::to_vec(&payload).map_err(|_| MintError::Overflow)?;
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let keys = self.keys.current();
        let key = keys.first().ok_or(MintError::NoKey)?;
        let signature = key.sign(&[CONTEXT.as_bytes(), payload.as_bytes()]);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(format!("{VERSION}.{payload}.{signature}"))
    }

    pub(super) fn authorize(&self, headers: &HeaderMap, subject: Subject<'_>) -> Result<(), Error> {
        let payload = bearer(headers)
            .and_then(|token| self.verify(token))
            .ok_or(Error::Unauthenticated("unauthenticated"))?;
        if payload.ns == subject.namespace && payload.name == subject.name {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// The content of a token that is genuine and has not expired.
    fn verify(&self, token: &str) -> Option<Payload> {
        let (version, rest) = token.split_once('.')?;
        let (payload, signature) = rest.split_once('.')?;
        if version != VERSION {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let genuine = self.keys.current().iter().any(|key| {
            same_secret(
                &key.sign(&[CONTEXT.as_bytes(), payload.as_bytes()]),
                &signature,
            )
        });
        if !genuine {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let payload: Payload = serde_json::from_slice(&payload).ok()?;
        (self.clock.now().as_second() < payload.exp).then_some(payload)
    }
}

impl fmt::Debug for ScopedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedTokens")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const VECTOR: &str = "v1.eyJucyI6Im5zIiwibmFtZSI6ImJveC1hIiwiZXhwIjo0MTAyNDQ0ODAwfQ.r2JXrfWgrnRQrT4if-XrUGSWtMSeRAUXNzrdKb3T8qk";
    const BOX_A: Subject<'_> = Subject {
        namespace: "ns",
        name: "box-a",
    };

    fn tokens(key: &[u8], now: i64) -> ScopedTokens {
        let (clock, _hand) = Clock::manual(jiff::Timestamp::from_second(now).unwrap());
        ScopedTokens::new(Key::new(key).unwrap(), Vec::new(), clock)
    }

    fn judge(tokens: &ScopedTokens, token: &str, subject: Subject<'_>) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
        tokens.authorize(&headers, subject)
    }

    #[test]
    fn the_published_vector_opens_its_sandbox_only() {
        let tokens = tokens(KEY, 1_800_000_000);
        assert_eq!(judge(&tokens, VECTOR, BOX_A), Ok(()));
        for (namespace, name) in [("ns", "box-b"), ("other", "box-a")] {
            let other = Subject { namespace, name };
            assert_eq!(judge(&tokens, VECTOR, other), Err(Error::Forbidden));
        }
    }

    #[test]
    fn blanks_around_the_key_do_not_count() {
        let padded = [KEY, b"\n"].concat();
        assert_eq!(judge(&tokens(&padded, 0), VECTOR, BOX_A), Ok(()));
        let short = Key::new(&padded[..31]).unwrap_err().to_string();
        assert!(short.ends_with("this one has 31"), "{short}");
    }

    #[test]
    fn anything_but_a_genuine_token_is_unauthenticated() {
        let now = tokens(KEY, 1_800_000_000);
        let (head, signature) = VECTOR.rsplit_once('.').unwrap();
        let payload = head.split_once('.').unwrap().1;
        let without_context =
            URL_SAFE_NO_PAD.encode(Key::new(KEY).unwrap().sign(&[payload.as_bytes()]));
        for token in [
            head.to_owned(),
            format!("v2.{payload}.{signature}"),
            format!("{payload}.{signature}"),
            format!("v1.{payload}."),
            format!("v1.{payload}.{without_context}"),
            format!("v1.{payload}x.{signature}"),
            format!("{VECTOR}="),
            "v1".to_owned(),
        ] {
            let verdict = judge(&now, &token, BOX_A);
            assert_eq!(
                verdict,
                Err(Error::Unauthenticated("unauthenticated")),
                "{token}"
            );
        }
        let missing = now.authorize(&HeaderMap::new(), BOX_A);
        assert!(matches!(missing, Err(Error::Unauthenticated(_))));
        let wrong_key = tokens(b"another key of at least 32 bytes..", 0);
        assert!(judge(&wrong_key, VECTOR, BOX_A).is_err());
    }

    #[test]
    fn expiry_is_exclusive() {
        assert!(judge(&tokens(KEY, 4_102_444_799), VECTOR, BOX_A).is_ok());
        assert!(judge(&tokens(KEY, 4_102_444_800), VECTOR, BOX_A).is_err());
    }

    #[test]
    fn minted_tokens_verify_also_after_a_change_of_keys() {
        let old = tokens(KEY, 100);
        let token = old.mint(BOX_A, Duration::from_secs(1)).unwrap();
        assert_eq!(judge(&old, &token, BOX_A), Ok(()));
        let (clock, _hand) = Clock::manual(jiff::Timestamp::from_second(100).unwrap());
        let rotated = ScopedTokens::new(
            Key::new(b"the next key, also long enough...").unwrap(),
            vec![Key::new(KEY).unwrap()],
            clock,
        );
        assert_eq!(judge(&rotated, &token, BOX_A), Ok(()));
        let newer = rotated.mint(BOX_A, Duration::from_secs(60)).unwrap();
        assert!(judge(&old, &newer, BOX_A).is_err());
        assert_eq!(
            old.mint(BOX_A, Duration::from_millis(999)),
            Err(MintError::Lifetime)
        );
        let nobody = Subject {
            namespace: "",
            name: "a",
        };
        assert_eq!(
            old.mint(nobody, Duration::from_secs(1)),
            Err(MintError::Empty)
        );
    }

    #[test]
    fn the_mac_is_rfc_4231() {
        // Test case 6: a key longer than a block.
        let key = Key([0xaa; 131].into());
        let mac = key.sign(&[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(mac[..8], [0x60, 0xe4, 0x31, 0x59, 0x1e, 0xe0, 0xb6, 0x7f]);
    }
}
