//! Config maps and secrets: data that can be frozen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Context, Strategy, child, default, text};
use crate::format::names;
use crate::meta;
use crate::schema::FieldError;

/// Keys and values of one object together.
const MAX_BYTES: usize = 1 << 20;

/// Config maps.
#[derive(Debug)]
pub(super) struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = frozen(new, old, &["data", "binaryData"]);
        check_keys(new, "data", &mut errors);
        check_keys(new, "binaryData", &mut errors);
        check_base64(new, "binaryData", &mut errors);
        let both = members(new, "data")
            .filter(|(key, _)| members(new, "binaryData").any(|(other, _)| other == *key));
        errors.extend(both.map(|(key, _)| {
            let problem = "duplicate of key present in binaryData";
            FieldError::invalid(format_args!("data[{key}]"), &json!(key), problem)
        }));
        check_size(new, &["data", "binaryData"], &mut errors);
        errors
    }
}

/// Secrets: `stringData` is a way to write `data`.
#[derive(Debug)]
pub(super) struct Secret;

impl Strategy for Secret {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        default(object, "type", "Opaque");
        fold_string_data(object);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if let Some(kind) = old.get("type").cloned() {
            default(new, "type", kind);
        }
        fold_string_data(new);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = frozen(new, old, &["data"]);
        if let Some(old) = old.filter(|old| text(old, "type") != text(new, "type")) {
            let kind = new
                .get("type")
                .or_else(|| old.get("type"))
                .unwrap_or(&Value::Null);
            errors.push(FieldError::invalid("type", kind, "field is immutable"));
        }
        check_keys(new, "data", &mut errors);
        check_base64(new, "data", &mut errors);
        check_size(new, &["data"], &mut errors);
        errors.extend(missing_keys(new));
        errors.extend(unsound_content(new));
        errors
    }
}

fn fold_string_data(object: &mut Value) {
    let plain = object
        .as_object_mut()
        .and_then(|map| map.shift_remove("stringData"));
    let Some(Value::Object(plain)) = plain.filter(|plain| plain != &json!({})) else {
        return;
    };
    let data = child(object, "data").and_then(Value::as_object_mut);
    if let Some(data) = data {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or(""));
            data.insert(key, encoded.into());
        }
    }
}

/// Keys that the secret's type promises.
fn missing_keys(secret: &Value) -> Vec<FieldError> {
    let required: &[&str] = match text(secret, "type") {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    required
        .iter()
        .filter(|key| members(secret, "data").all(|(present, _)| present != **key))
        .map(|key| FieldError::required(format_args!("data[{key}]"), ""))
        .collect()
}

/// What else the secret's type promises.
fn unsound_content(secret: &Value) -> Vec<FieldError> {
    let has = |key: &str| members(secret, "data").any(|(present, _)| present == key);
    let json_key = match text(secret, "type") {
        "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
        "kubernetes.io/dockercfg" => ".dockercfg",
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            return ["username", "password"]
                .map(|key| FieldError::required(format_args!("data[{key}]"), ""))
                .into();
        }
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let annotations = meta::get(secret, "annotations").unwrap_or(&Value::Null);
            if !text(annotations, key).is_empty() {
                return Vec::new();
            }
            let path = format_args!("metadata.annotations[{key}]");
            return vec![FieldError::required(path, "")];
        }
        _ => return Vec::new(),
    };
    let unreadable = members(secret, "data")
        .filter(|(key, _)| *key == json_key)
        .filter_map(|(_, value)| STANDARD.decode(value.as_str()?).ok())
        .find_map(|bytes| serde_json::from_slice::<Value>(&bytes).err());
    unreadable
        .map(|error| {
            let path = format_args!("data[{json_key}]");
            // The value is a secret: it is not repeated.
            let hidden = json!("<secret contents redacted>");
            FieldError::invalid(path, &hidden, error)
        })
        .into_iter()
        .collect()
}

/// Refuses changes of an object that was declared immutable.
fn frozen(new: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let is_frozen = |object: &Value| object.get("immutable").and_then(Value::as_bool) == Some(true);
    let Some(old) = old.filter(|old| is_frozen(old)) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    if !is_frozen(new) {
        errors.push(FieldError::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in fields {
        let empty = Value::Object(Map::new());
        if new.get(field).unwrap_or(&empty) != old.get(field).unwrap_or(&empty) {
            let problem = "field is immutable when `immutable` is set";
            errors.push(FieldError::forbidden(field, problem));
        }
    }
    errors
}

fn check_keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, _) in members(object, field) {
        let problems = names::config_map_key_errors(key);
        errors.extend(problems.into_iter().map(|problem| {
            FieldError::invalid(format_args!("{field}[{key}]"), &json!(key), problem)
        }));
    }
}

fn check_base64(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in members(object, field) {
        let valid = value
            .as_str()
            .is_none_or(|text| STANDARD.decode(text).is_ok());
        if !valid {
            // The value may be a secret: it is not repeated.
            let problem = "must be standard base64 with padding";
            errors.push(FieldError::invalid_omitted(
                format_args!("{field}[{key}]"),
                problem,
            ));
        }
    }
}

fn check_size(object: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    let bytes: usize = fields
        .iter()
        .flat_map(|field| members(object, field))
        .map(|(_, value)| value.as_str().map_or(0, str::len))
        .sum();
    // Encoded data is a third larger than what the limit counts.
    let encoded = fields.contains(&"data") && fields.len() == 1;
    let limit = if encoded {
        MAX_BYTES / 3 * 4
    } else {
        MAX_BYTES
    };
    if bytes > limit {
        errors.push(FieldError::too_long("data", MAX_BYTES as u64));
    }
}

fn members<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}
