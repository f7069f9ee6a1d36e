//! Label and field selectors: parsing from query strings and matching against objects.
//!
//! Matching takes a lookup function, so that it works on whatever form the caller holds.

use crate::registry::{Descriptor, Version};

/// A selector that cannot be parsed or names an unknown field: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    /// What is wrong, naming the offending part.
    pub message: String,
}

/// A parsed `labelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses the query parameter; the empty string selects everything.
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        Ok(Self {})
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whether labels, given as a lookup by key, satisfy the selector.
    pub fn matches<'a>(&self, _label: impl Fn(&str) -> Option<&'a str>) -> bool {
        true
    }
}

/// A parsed `fieldSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Parses the query parameter. Fields other than `metadata.name`, `metadata.namespace` and the
    /// version's selectable fields are refused.
    pub fn parse(
        _text: &str,
        _descriptor: &Descriptor,
        _version: &Version,
    ) -> Result<Self, SelectorError> {
        Ok(Self {})
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// The value that `field` must have, if the selector fixes it with `=`.
    pub fn exact(&self, _field: &str) -> Option<&str> {
        None
    }

    /// Whether fields, given as a lookup by selector name, satisfy the selector; an absent field is
    /// the empty string.
    pub fn matches<'a>(&self, _field: impl Fn(&str) -> &'a str) -> bool {
        true
    }
}
