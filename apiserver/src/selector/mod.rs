//! Label and field selectors: what `?labelSelector=` and `?fieldSelector=` mean.
//!
//! The handlers for list, watch and delete-collection parse them once per request and match every
//! candidate; matching takes a lookup function, so that it works on whatever form the caller holds.
//! Parsing is total: any string gives a selector or an error in the words of a real API server, never
//! a panic.

mod field;
mod label;

pub use field::{FieldSelector, FieldSelectorError, escape};
pub use label::{LabelSelector, LabelSelectorError};

/// A selector that cannot be parsed or names an unknown field: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    /// What is wrong, naming the offending part.
    pub message: String,
}

impl From<LabelSelectorError> for SelectorError {
    fn from(error: LabelSelectorError) -> Self {
        Self {
            message: error.to_string(),
        }
    }
}

impl From<FieldSelectorError> for SelectorError {
    fn from(error: FieldSelectorError) -> Self {
        Self {
            message: error.to_string(),
        }
    }
}
