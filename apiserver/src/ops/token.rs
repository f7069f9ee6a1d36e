//! `serviceaccounts/token`: signed tokens for pods and tools, and their verification.
//!
//! Tokens are JWTs (RFC 7519) signed with HMAC-SHA-256 (RFC 7515) under a key that lives as long as
//! the process. Nobody but this server has to verify them: others ask it by `TokenReview`.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Encoder, Engine, Target};
use crate::meta;
use crate::schema::FieldError;
use crate::status::ApiError;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;
/// Block size of SHA-256, for HMAC (RFC 2104).
const BLOCK: usize = 64;

/// Signs and verifies service-account tokens. Clones share the key.
#[derive(Clone)]
pub struct TokenIssuer {
    key: Arc<[u8; 32]>,
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenIssuer")
    }
}

impl Default for TokenIssuer {
    fn default() -> Self {
        let mut seed = [0; 32];
        let random = [Uuid::new_v4(), Uuid::new_v4()];
        for (slot, byte) in seed.iter_mut().zip(random.iter().flat_map(Uuid::as_bytes)) {
            *slot = *byte;
        }
        Self {
            key: Arc::new(Sha256::digest(seed).into()),
        }
    }
}

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub name: String,
    /// UID of the service account.
    pub uid: String,
    /// Groups of every service account of the namespace.
    pub groups: Vec<String>,
}

impl TokenIssuer {
    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "HS256", "typ": "JWT" });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac(&self.key, text.as_bytes()));
        format!("{text}.{signature}")
    }

    /// The owner of a token that was signed here and has not expired.
    pub fn verify(&self, token: &str, now: Timestamp) -> Option<TokenUser> {
        let (text, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !same(&signature, &hmac(&self.key, text.as_bytes())) {
            return None;
        }
        let (_, claims) = text.split_once('.')?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        if claims.get("exp")?.as_i64()? <= now.as_second() {
            return None;
        }
        let subject = claims.get("sub")?.as_str()?;
        let (namespace, _) = subject
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        let account = claims.get("kubernetes.io")?.get("serviceaccount")?;
        Some(TokenUser {
            name: subject.to_owned(),
            uid: account.get("uid")?.as_str()?.to_owned(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        })
    }
}

impl Engine {
    /// Answers a `TokenRequest` for a service account.
    pub fn request_token(&self, target: &Target, request: &Value) -> Result<Value, ApiError> {
        let account = Encoder::of(target).value(&*self.read(target)?);
        let spec = request.get("spec").cloned().unwrap_or_else(|| json!({}));
        let seconds = match spec.get("expirationSeconds").and_then(Value::as_i64) {
            None => DEFAULT_SECONDS,
            Some(seconds) if (SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds) => seconds,
            Some(seconds) => {
                let problem = if seconds < SHORTEST_SECONDS {
                    "may not specify a duration less than 10 minutes"
                } else {
                    "may not specify a duration larger than 2^32 seconds"
                };
                let path = "spec.expirationSeconds";
                let error = FieldError::invalid(path, &json!(seconds), problem);
                let group = "authentication.k8s.io";
                return Err(ApiError::invalid(group, "TokenRequest", "", &[error]));
            }
        };
        let audiences = match spec.get("audiences").and_then(Value::as_array) {
            Some(audiences) if !audiences.is_empty() => audiences.clone(),
            _ => vec![ISSUER.into()],
        };
        let now = self.clock.now();
        let expires = now.as_second().saturating_add(seconds);
        let claims = json!({
            "iss": ISSUER,
            "aud": audiences,
            "sub": format!("system:serviceaccount:{}:{}", target.namespace, target.name),
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": expires,
            "jti": self.ids.uid(),
            "kubernetes.io": {
                "namespace": target.namespace,
                "serviceaccount": { "name": target.name, "uid": meta::text(&account, "uid") },
            },
        });
        let expires = Timestamp::from_second(expires)
            .map_err(|_| ApiError::bad_request("spec.expirationSeconds: too far in the future"))?;
        Ok(json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": target.name,
                "namespace": target.namespace,
                "creationTimestamp": meta::time(now),
            },
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {
                "token": self.tokens.sign(&claims),
                "expirationTimestamp": meta::time(expires),
            },
        }))
    }
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK];
        for (slot, key) in block.iter_mut().zip(key) {
            *slot ^= key;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5C))
        .chain_update(inner)
        .finalize()
        .into()
}

/// Compares without telling by its duration where two signatures differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_has_the_published_value() {
        // RFC 4231, test case 1, with its key padded to the block by zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let digest = hmac(&key, b"Hi There");
        assert_eq!(digest[..4], [0xb0, 0x34, 0x4c, 0x61]);
        assert_eq!(digest[28..], [0x2e, 0x32, 0xcf, 0xf7]);
    }

    #[test]
    fn only_intact_unexpired_own_tokens_verify() {
        let issuer = TokenIssuer::default();
        let claims = json!({"sub": "system:serviceaccount:ns:robot", "exp": 100,
            "kubernetes.io": {"serviceaccount": {"name": "robot", "uid": "u"}}});
        let token = issuer.sign(&claims);
        let at = |second| Timestamp::from_second(second).unwrap();
        let user = issuer.verify(&token, at(99)).unwrap();
        assert_eq!(
            (user.name.as_str(), user.uid.as_str()),
            ("system:serviceaccount:ns:robot", "u")
        );
        assert!(issuer.verify(&token, at(100)).is_none());
        assert!(TokenIssuer::default().verify(&token, at(0)).is_none());
        let (head, _) = token.rsplit_once('.').unwrap();
        assert!(issuer.verify(&format!("{head}.AAAA"), at(0)).is_none());
        assert!(issuer.verify("", at(0)).is_none());
    }
}
