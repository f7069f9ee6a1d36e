//! `GET /v1/metadata`: what the sandbox was told through its environment, credentials aside.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Response, StatusCode};
use serde_json::json;

use super::{is_read, method_not_allowed};
use crate::api::App;
use crate::api::answer;
use crate::config::Config;

/// Variables whose name contains one of these are taken for credentials.
const CREDENTIALS: [&str; 10] = [
    "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CRED", "KEY", "AUTH", "BEARER", "PRIVATE", "CERT",
];

pub(super) async fn metadata(State(app): State<App>, method: Method) -> Response<Body> {
    if !is_read(&method) {
        return method_not_allowed("GET, HEAD");
    }
    answer::json(StatusCode::OK, &json!({"env": visible(&app.config)}))
}

fn visible(config: &Config) -> BTreeMap<String, String> {
    config
        .environment
        .iter()
        .map(|(name, value)| (name.to_string_lossy(), value.to_string_lossy()))
        .filter(|(name, _)| name.starts_with(&config.metadata_prefix))
        .filter(|(name, _)| {
            let name = name.to_uppercase();
            !CREDENTIALS.iter().any(|word| name.contains(word))
        })
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixed_variables_that_are_no_credentials() {
        let mut config = Config::new("/");
        for name in [
            "SANDBOX_NAME",
            "SANDBOX_",
            "SANDBOX_API_TOKEN",
            "SANDBOX_monkey",
            "SANDBOX_Author",
            "sandbox_lower",
            "OTHER",
            "XSANDBOX_NAME",
            "SANDBOX_CERTIFICATE",
        ] {
            config.environment.push((name.into(), "value".into()));
        }
        let names: Vec<String> = visible(&config).into_keys().collect();
        assert_eq!(names, ["SANDBOX_", "SANDBOX_NAME"]);
    }
}
