//! Virtual resources: questions that are answered and never stored.
//!
//! There is no authorisation, so every access review says yes; what matters is that the answers
//! have the published form, because `kubectl auth can-i` and operators' start-up checks read it.

use serde_json::{Value, json};

use super::Api;
use crate::auth::User;
use crate::ops::Target;
use crate::registry::{Descriptor, Verb};
use crate::status::ApiError;

/// Whether a resource only answers creates and stores nothing.
pub(super) fn is_virtual(descriptor: &Descriptor) -> bool {
    descriptor.verbs == [Verb::Create]
}

/// Answers a question about `user` or somebody else.
pub(super) fn answer(
    api: &Api,
    target: &Target,
    mut review: Value,
    user: &User,
) -> Result<Value, ApiError> {
    if !review.is_object() {
        return Err(ApiError::bad_request("the body must be one JSON object"));
    }
    let status = match target.kind() {
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            json!({ "allowed": true, "reason": "authorization is disabled" })
        }
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        }),
        "SelfSubjectReview" => json!({
            "userInfo": { "username": user.name, "groups": user.groups },
        }),
        "TokenReview" => {
            let spec = review.get("spec");
            let token = spec
                .and_then(|spec| spec.get("token"))
                .and_then(Value::as_str);
            match token.and_then(|token| api.engine.tokens.verify(token, api.engine.clock.now())) {
                Some(user) => json!({
                    "authenticated": true,
                    "user": { "username": user.name, "uid": user.uid, "groups": user.groups },
                }),
                None => json!({ "authenticated": false, "error": "invalid bearer token" }),
            }
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    if let Some(review) = review.as_object_mut() {
        review.insert("kind".to_owned(), target.kind().into());
        review.insert("apiVersion".to_owned(), target.api_version().into());
        review.entry("metadata").or_insert_with(|| json!({}));
        review.insert("status".to_owned(), status);
    }
    Ok(review)
}
