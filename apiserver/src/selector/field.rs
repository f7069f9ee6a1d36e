//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! Unlike labels, only a few fields of each kind can be selected on. `metadata.name` and
//! `metadata.namespace` work for every kind; the rest is part of the kind's descriptor. A field that
//! is absent from an object counts as the empty string (or, for booleans, as `false`), as the API
//! conventions say.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use thiserror::Error;

/// A parsed field selector: all terms must hold. Without terms it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

/// Why a field selector was refused; the text is the message a client shows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    /// A term without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Malformed {
        /// The whole selector.
        selector: String,
        /// The term that cannot be read.
        term: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A `=` inside a value without a backslash. A real server prints the character's number.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
    /// The kind cannot be selected by this field.
    #[error("field label not supported: {0}")]
    Unsupported(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: String,
    negated: bool,
    value: String,
}

impl FieldSelector {
    /// Parses the value of a `fieldSelector` query parameter. `supported` says whether the kind can
    /// be selected by a path; `metadata.name` and `metadata.namespace` need no entry there.
    pub fn parse(
        text: &str,
        supported: impl Fn(&str) -> bool,
    ) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (path, operator, value) = split_term(part).ok_or_else(|| {
                FieldSelectorError::Malformed { selector: text.to_owned(), term: part.to_owned() }
            })?;
            let value = unescape(value)?;
            if !matches!(path, "metadata.name" | "metadata.namespace") && !supported(path) {
                return Err(FieldSelectorError::Unsupported(path.to_owned()));
            }
            terms.push(Term { path: path.to_owned(), negated: operator == "!=", value });
        }
        Ok(Self { terms })
    }

    /// Whether the selector restricts nothing.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value `path` must have, if the selector pins it to one: a list by name can then be served
    /// by a lookup.
    pub fn pinned(&self, path: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.path == path && !term.negated)
            .map(|term| term.value.as_str())
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| term.matches(&field_text(object, &term.path)))
    }

    /// As [`Self::matches`], but for fields that are computed rather than stored: the values in
    /// `fields` go before those of the object.
    pub fn matches_with(&self, object: &Value, fields: &BTreeMap<&str, String>) -> bool {
        self.terms.iter().all(|term| match fields.get(term.path.as_str()) {
            Some(value) => term.matches(value),
            None => term.matches(&field_text(object, &term.path)),
        })
    }
}

/// The canonical text, with values escaped again.
impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.path, escape(&term.value))?;
        }
        Ok(())
    }
}

impl Term {
    fn matches(&self, value: &str) -> bool {
        (value == self.value) != self.negated
    }
}

/// The text of the field at a dotted path: strings as they are, booleans and numbers spelled out, an
/// absent field as the empty string. A leading dot (as in a CRD's `selectableFields`) is allowed.
pub fn field_text(object: &Value, path: &str) -> String {
    let mut value = object;
    for segment in path.trim_start_matches('.').split('.') {
        match value.get(segment) {
            Some(inner) => value = inner,
            None => return String::new(),
        }
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Escapes a literal for use as a value: `\`, `,` and `=` get a backslash.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => return Err(FieldSelectorError::Escape(format!("\\{other}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let separator = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separator
    })
    .collect()
}

/// Splits at the first operator: path, operator, value.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    // A `!` without `=` is part of the path, so the first `=` decides.
    let (left, value) = term.split_once('=')?;
    if let Some(path) = left.strip_suffix('!') {
        return Some((path, "!=", value));
    }
    match value.strip_prefix('=') {
        Some(value) => Some((left, "==", value)),
        None => Some((left, "=", value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pods(path: &str) -> bool {
        matches!(path, "spec.nodeName" | "status.phase" | "spec.hostNetwork" | "status.n")
    }

    #[test]
    fn matching() {
        let pod = json!({
            "metadata": {"name": "a,b", "namespace": "ns"},
            "spec": {"hostNetwork": true},
            "status": {"phase": "Running", "n": 3},
        });
        for (selector, expected) in [
            ("", true),
            (",", true),
            ("metadata.name=a\\,b", true),
            ("metadata.name==a\\,b,metadata.namespace=ns", true),
            ("metadata.name!=a\\,b", false),
            ("status.phase=Running", true),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
            ("spec.hostNetwork=true", true),
            ("status.n=3", true),
        ] {
            let selector = FieldSelector::parse(selector, pods).expect(selector);
            assert_eq!(selector.matches(&pod), expected, "{selector}");
        }
    }

    #[test]
    fn refusals_are_worded_as_on_a_real_server() {
        for (selector, message) in [
            ("status.phase", "invalid selector: 'status.phase'; can't understand 'status.phase'"),
            ("spec.x=1", "field label not supported: spec.x"),
            ("metadata.name=a\\b", "invalid field selector: invalid escape sequence: \\b"),
            ("metadata.name=a\\", "invalid field selector: invalid escape sequence: \\"),
            ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ] {
            let error = FieldSelector::parse(selector, pods).expect_err(selector);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn pinned_values_and_computed_fields() {
        let selector = FieldSelector::parse("metadata.name=x,status.phase!=y", pods).expect("valid");
        assert_eq!(selector.pinned("metadata.name"), Some("x"));
        assert_eq!(selector.pinned("status.phase"), None);
        let fields = BTreeMap::from([("status.phase", "y".to_owned())]);
        assert!(!selector.matches_with(&json!({"metadata": {"name": "x"}}), &fields));
        assert!(selector.matches(&json!({"metadata": {"name": "x"}})));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[\\PC=!\\\\,]*") {
            let _outcome = FieldSelector::parse(&text, |_| true);
        }

        #[test]
        fn any_value_can_be_escaped(value in "\\PC*") {
            let text = format!("metadata.name={}", escape(&value));
            let selector = FieldSelector::parse(&text, |_| false).expect("escaped value parses");
            prop_assert_eq!(selector.pinned("metadata.name").unwrap_or_default(), value.as_str());
            let object = json!({"metadata": {"name": value}});
            prop_assert!(selector.matches(&object));
        }
    }
}
