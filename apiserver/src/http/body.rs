//! Request bodies: size, media type, and decoding to one JSON value.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, Options};

use crate::ops::{FieldValidation, PatchKind};
use crate::schema::duplicate_fields;
use crate::status::ApiError;
use crate::wire::protobuf::{self, ProtobufError};

/// Media types of whole objects.
const OBJECTS: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// Media types of patches.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

/// A decoded body.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// The document.
    pub value: Value,
    /// Duplicate fields, as texts for warnings or refusals.
    pub problems: Vec<String>,
}

/// Reads a whole body, up to `limit` bytes.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Err(error) => Err(ApiError::bad_request(format!(
            "the body ended early: {error}"
        ))),
    }
}

/// Decodes an object. A client that names no media type means JSON.
pub fn object(
    headers: &HeaderMap,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    match media_type(headers).as_str() {
        "" | "application/json" => json(body, validation),
        "application/yaml" => yaml(body, validation),
        "application/vnd.kubernetes.protobuf" => match protobuf::decode(body) {
            Ok(value) => Ok(Decoded {
                value,
                problems: Vec::new(),
            }),
            Err(error @ ProtobufError::Malformed(_)) => {
                Err(ApiError::bad_request(error.to_string()))
            }
            Err(ProtobufError::Unsupported { .. }) => Err(ApiError::unsupported_media_type(&[
                "application/json",
                "application/yaml",
            ])),
        },
        _ => Err(ApiError::unsupported_media_type(&OBJECTS)),
    }
}

/// Which kind of patch the media type announces, among those the resource takes.
pub fn patch_kind(
    headers: &HeaderMap,
    strategic: bool,
    force: bool,
) -> Result<PatchKind, ApiError> {
    let [json, merge, apply, _] = PATCHES;
    match media_type(headers).as_str() {
        text if text == json => Ok(PatchKind::Json),
        text if text == merge => Ok(PatchKind::Merge),
        text if text == apply => Ok(PatchKind::Apply { force }),
        "application/strategic-merge-patch+json" if strategic => Ok(PatchKind::Strategic),
        _ if strategic => Err(ApiError::unsupported_media_type(&PATCHES)),
        _ => Err(ApiError::unsupported_media_type(&[json, merge, apply])),
    }
}

/// Decodes a patch document.
pub fn patch(
    kind: PatchKind,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    match kind {
        PatchKind::Apply { .. } => {
            // Applied configurations are usually JSON, which is much cheaper to read than YAML.
            json(body, validation).or_else(|_| yaml(body, validation))
        }
        PatchKind::Json | PatchKind::Merge | PatchKind::Strategic => json(body, validation),
    }
}

fn json(body: &[u8], validation: FieldValidation) -> Result<Decoded, ApiError> {
    let refuse = |error: serde_json::Error| {
        ApiError::bad_request(format!("error decoding the body as JSON: {error}"))
    };
    let value = serde_json::from_slice(body).map_err(refuse)?;
    let problems = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => {
            duplicate_fields(body).map_err(refuse)?
        }
    };
    Ok(Decoded { value, problems })
}

fn yaml(body: &[u8], validation: FieldValidation) -> Result<Decoded, ApiError> {
    let parse = |policy| {
        let mut options = Options::default();
        options.duplicate_keys = policy;
        options.with_snippet = false;
        serde_saphyr::from_slice_with_options::<Value>(body, options)
    };
    let value = parse(DuplicateKeyPolicy::LastWins).map_err(|error| {
        ApiError::bad_request(format!("error decoding the body as YAML: {error}"))
    })?;
    let duplicate = match validation {
        FieldValidation::Ignore => None,
        FieldValidation::Warn | FieldValidation::Strict => parse(DuplicateKeyPolicy::Error).err(),
    };
    let problems = duplicate.map(|error| match error {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.unwrap_or_default();
            format!("line {}: key \"{key}\" already set in map", location.line())
        }
        other => other.to_string(),
    });
    Ok(Decoded {
        value,
        problems: problems.into_iter().collect(),
    })
}

/// The media type without parameters, in lower case; empty when the client sent none.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    value
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn typed(content_type: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers
    }

    #[test]
    fn objects_come_as_json_or_yaml_and_json_is_the_default() {
        let strict = FieldValidation::Strict;
        let expected = json!({"a": {"b": [1, "x", true, null]}});
        let text = br#"{"a": {"b": [1, "x", true, null]}}"#;
        assert_eq!(
            object(&HeaderMap::new(), text, strict).unwrap().value,
            expected
        );
        let json = typed("Application/JSON; charset=utf-8");
        assert_eq!(object(&json, text, strict).unwrap().value, expected);
        let text = b"a:\n  b: [1, x, true, null]\n";
        assert_eq!(
            object(&typed("application/yaml"), text, strict)
                .unwrap()
                .value,
            expected
        );
        assert_eq!(
            object(&typed("text/plain"), b"{}", strict)
                .unwrap_err()
                .code(),
            415
        );
        assert_eq!(object(&json, b"{", strict).unwrap_err().code(), 400);
        assert_eq!(object(&json, b"{} {}", strict).unwrap_err().code(), 400);
    }

    #[test]
    fn duplicate_keys_are_reported_unless_ignored() {
        let problems = |content_type: &str, text: &[u8], validation| {
            object(&typed(content_type), text, validation)
                .unwrap()
                .problems
        };
        let text = br#"{"a": 1, "a": 2}"#;
        let found = problems("application/json", text, FieldValidation::Warn);
        assert_eq!(found, ["duplicate field \"a\""]);
        assert!(problems("application/json", text, FieldValidation::Ignore).is_empty());
        let text = b"a: 1\na: 2\n";
        let found = problems("application/yaml", text, FieldValidation::Strict);
        assert_eq!(found, ["line 2: key \"a\" already set in map"]);
        assert!(problems("application/yaml", text, FieldValidation::Ignore).is_empty());
    }

    #[test]
    fn patches_are_told_apart_by_their_media_type() {
        let kind = |text: &str, strategic| patch_kind(&typed(text), strategic, true);
        assert_eq!(
            kind("application/json-patch+json", true),
            Ok(PatchKind::Json)
        );
        assert_eq!(
            kind("application/merge-patch+json", true),
            Ok(PatchKind::Merge)
        );
        let strategic = "application/strategic-merge-patch+json";
        assert_eq!(kind(strategic, true), Ok(PatchKind::Strategic));
        assert_eq!(kind(strategic, false).unwrap_err().code(), 415);
        let apply = PatchKind::Apply { force: true };
        assert_eq!(kind("application/apply-patch+yaml", false), Ok(apply));
        assert_eq!(kind("application/json", true).unwrap_err().code(), 415);
        let yaml = patch(apply, b"spec:\n  a: 1\n", FieldValidation::Strict).unwrap();
        assert_eq!(yaml.value, json!({"spec": {"a": 1}}));
    }

    #[tokio::test]
    async fn bodies_have_a_limit() {
        let error = read(Body::from("12345"), 4).await.unwrap_err();
        assert_eq!(error.code(), 413);
        assert_eq!(read(Body::from("1234"), 4).await.unwrap(), "1234");
    }
}
