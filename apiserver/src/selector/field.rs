//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! Unlike labels, only a few fields of each kind can be selected on. `metadata.name` and
//! `metadata.namespace` work for every kind; the rest is part of the kind's descriptor. A field that
//! is absent from an object counts as the empty string.

use std::fmt;

use thiserror::Error;

use super::SelectorError;
use crate::registry::{Descriptor, Origin, Version};

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
    /// The kind cannot be selected by any field but its name and namespace.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    OnlyMetadata(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: String,
    negated: bool,
    value: String,
}

impl FieldSelector {
    /// Parses the value of a `fieldSelector` query parameter. Fields other than `metadata.name`,
    /// `metadata.namespace` and the version's selectable fields are refused.
    pub fn parse(
        text: &str,
        descriptor: &Descriptor,
        version: &Version,
    ) -> Result<Self, SelectorError> {
        Ok(Self {
            terms: parse_terms(text, descriptor, version)?,
        })
    }

    /// Whether the selector restricts nothing.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if the selector fixes it with `=`: a list by name can then
    /// be served by a lookup.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.path == field && !term.negated)
            .map(|term| term.value.as_str())
    }

    /// Whether fields, given as a lookup by selector name, satisfy the selector; an absent field is
    /// the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.terms
            .iter()
            .all(|term| (field(&term.path) == term.value) != term.negated)
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

fn parse_terms(
    text: &str,
    descriptor: &Descriptor,
    version: &Version,
) -> Result<Vec<Term>, FieldSelectorError> {
    let selectable = |path: &str| {
        path == "metadata.name"
            || (path == "metadata.namespace" && descriptor.is_namespaced())
            || version
                .selectable_fields
                .iter()
                .any(|field| field.label == path)
    };
    let mut parts = split_terms(text);
    parts.sort_unstable();
    let mut terms = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let (path, negated, value) =
            split_term(part).ok_or_else(|| FieldSelectorError::Malformed {
                selector: text.to_owned(),
                term: part.to_owned(),
            })?;
        let value = unescape(value)?;
        if !selectable(path) {
            let plain =
                descriptor.origin == Origin::BuiltIn && version.selectable_fields.is_empty();
            return Err(if plain {
                FieldSelectorError::OnlyMetadata(path.to_owned())
            } else {
                FieldSelectorError::Unsupported(path.to_owned())
            });
        }
        terms.push(Term {
            path: path.to_owned(),
            negated,
            value,
        });
    }
    Ok(terms)
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

/// Splits at the first operator: path, whether it is `!=`, value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    // A `!` without `=` is part of the path, so the first `=` decides.
    let (left, value) = term.split_once('=')?;
    match left.strip_suffix('!') {
        Some(path) => Some((path, true, value)),
        None => Some((left, false, value.strip_prefix('=').unwrap_or(value))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Scope, SelectableField, strategy_for};
    use crate::schema::Structural;

    fn descriptor(origin: Origin, fields: &[&str]) -> Descriptor {
        let version = Version {
            name: "v1".to_owned(),
            served: true,
            storage: true,
            deprecation: None,
            schema: Arc::new(Structural::default()),
            rules: Arc::default(),
            openapi: None,
            columns: Vec::new(),
            selectable_fields: fields
                .iter()
                .map(|path| SelectableField::dotted(path))
                .collect(),
            subresources: Vec::new(),
        };
        Descriptor {
            group: String::new(),
            plural: "pods".to_owned(),
            singular: "pod".to_owned(),
            kind: "Pod".to_owned(),
            list_kind: "PodList".to_owned(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            verbs: Vec::new(),
            versions: vec![Arc::new(version)],
            generation: false,
            create_on_update: false,
            unconditional_update: false,
            returns_deleted: false,
            stored_as: None,
            origin,
            strategy: strategy_for("", "none"),
        }
    }

    fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let pods = descriptor(Origin::BuiltIn, &["spec.nodeName", "status.phase"]);
        FieldSelector::parse(text, &pods, &pods.versions[0])
    }

    fn pod_field(path: &str) -> &'static str {
        match path {
            "metadata.name" => "a,b",
            "metadata.namespace" => "ns",
            "status.phase" => "Running",
            _ => "",
        }
    }

    #[test]
    fn matching() {
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
        ] {
            let selector = parse(selector).expect(selector);
            assert_eq!(selector.matches(pod_field), expected, "{selector}");
        }
        let selector = parse("metadata.name=x,status.phase!=y").expect("valid");
        assert_eq!(selector.exact("metadata.name"), Some("x"));
        assert_eq!(
            selector.exact("status.phase"),
            None,
            "an inequality fixes nothing"
        );
    }

    #[test]
    fn refusals_are_worded_as_on_a_real_server() {
        for (selector, message) in [
            (
                "status.phase",
                "invalid selector: 'status.phase'; can't understand 'status.phase'",
            ),
            ("spec.x=1", "field label not supported: spec.x"),
            (
                "metadata.name=a\\b",
                "invalid field selector: invalid escape sequence: \\b",
            ),
            (
                "metadata.name=a\\",
                "invalid field selector: invalid escape sequence: \\",
            ),
            (
                "metadata.name=a=b",
                "invalid field selector: unescaped character in value: 61",
            ),
        ] {
            assert_eq!(parse(selector).expect_err(selector).to_string(), message);
        }
        for (origin, message) in [
            (
                Origin::BuiltIn,
                "\"spec.x\" is not a known field selector: only \"metadata.name\", \
                 \"metadata.namespace\"",
            ),
            (
                Origin::Custom {
                    uid: "u".to_owned(),
                },
                "field label not supported: spec.x",
            ),
        ] {
            let plain = descriptor(origin, &[]);
            let error = FieldSelector::parse("spec.x=1", &plain, &plain.versions[0]);
            assert_eq!(error.expect_err("not selectable").to_string(), message);
        }
        let mut cluster = descriptor(Origin::BuiltIn, &["spec.unschedulable"]);
        cluster.scope = Scope::Cluster;
        FieldSelector::parse("metadata.namespace=x", &cluster, &cluster.versions[0])
            .expect_err("a cluster-scoped kind has no namespace");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[\\PC=!\\\\,]*") {
            let _outcome = parse(&text);
        }

        #[test]
        fn any_value_can_be_escaped(value in "\\PC*") {
            let text = format!("metadata.name={}", escape(&value));
            let selector = parse(&text).expect("escaped value parses");
            prop_assert_eq!(selector.exact("metadata.name").unwrap_or_default(), value.as_str());
        }
    }
}
