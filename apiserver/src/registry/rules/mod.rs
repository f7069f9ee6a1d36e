//! What the built-in kinds demand beyond their types: the rules clients rely on, worded as a real
//! API server words them.
//!
//! The kinds' strategies call these after defaulting. Texts that must not be empty are found by type
//! (see [`crate::wire::typed`]), so a rule here is about what a type cannot say: names, numbers,
//! uniqueness, and fields that depend on each other.

mod access;
mod container;
mod networking;
mod pod;
mod probe;
mod volume;
mod workload;

pub(super) use access::{binding, role};
pub(super) use networking::{NOT_AN_ADDRESS, service};
pub(super) use networking::{disruption_budget, endpoint_slice, ingress, lease, network_policy};
pub(super) use pod::pod;
pub(super) use volume::claim;
pub(super) use workload::stateful_set;
pub(super) use workload::{cron_job, daemon_set, deployment, job, pod_template, replica_set};

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::format::names;
use crate::schema::FieldError;

/// Collects what is wrong with an object.
#[derive(Debug, Default)]
struct Findings(Vec<FieldError>);

impl Findings {
    fn required(&mut self, path: impl Display, detail: &str) {
        self.0.push(FieldError::required(path, detail));
    }

    fn invalid(&mut self, path: impl Display, value: impl Into<Value>, detail: impl Display) {
        self.0
            .push(FieldError::invalid(path, &value.into(), detail));
    }

    fn forbidden(&mut self, path: impl Display, detail: &str) {
        self.0.push(FieldError::forbidden(path, detail));
    }

    fn duplicate(&mut self, path: impl Display, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path, &value.into()));
    }

    fn not_found(&mut self, path: impl Display, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(path, &value.into()));
    }

    fn not_supported(&mut self, path: impl Display, value: &str, supported: &[&str]) {
        let supported = supported.iter().copied();
        self.0
            .push(FieldError::not_supported(path, &value.into(), supported));
    }

    /// One finding for each violated rule about a text.
    fn text(&mut self, path: impl Display, text: &str, errors: Vec<String>) {
        for error in errors {
            self.invalid(&path, text, error);
        }
    }

    /// A text that must be one of a few; an empty one is missing.
    fn one_of(&mut self, path: impl Display, text: &str, supported: &[&str]) {
        if text.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&text) {
            self.not_supported(path, text, supported);
        }
    }

    /// A DNS label, unless it is empty, which is reported elsewhere.
    fn label(&mut self, path: impl Display, text: &str) {
        if !text.is_empty() {
            self.text(path, text, names::dns1123_label_errors(text));
        }
    }

    /// A number that is zero or more, if it is there.
    fn non_negative(&mut self, path: impl Display, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number < 0) {
            self.invalid(path, number, "must be greater than or equal to 0");
        }
    }

    /// Keys and values of a map of labels.
    fn labels(&mut self, path: &str, labels: &Value) {
        for (key, value) in labels.as_object().into_iter().flatten() {
            self.text(path, key, names::label_key_errors(key));
            let value = value.as_str().unwrap_or_default();
            self.text(path, value, names::label_value_errors(value));
        }
    }
}

/// The text of a member; empty when absent.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A member; null when absent.
fn member<'a>(object: &'a Value, field: &str) -> &'a Value {
    object.get(field).unwrap_or(&Value::Null)
}

/// The elements of a list, with their paths.
fn elements<'a>(
    object: &'a Value,
    field: &str,
    path: &str,
) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
    let items = object
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let path = format!("{path}.{field}");
    items
        .enumerate()
        .map(move |(index, item)| (format!("{path}[{index}]"), item))
}

/// The entries of a map.
fn entries<'a>(
    object: &'a Value,
    field: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}

/// A port given by number or by name.
fn port_errors(port: &Value) -> Vec<String> {
    match port {
        Value::String(name) => names::port_name_errors(name),
        other => names::port_number_errors(other.as_i64().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
