//! Patches: JSON (RFC 6902), merge (RFC 7386), strategic merge and server-side apply.
//!
//! Pure functions over values; the write path calls them and decides about conflicts, retries and
//! storage.

pub mod apply;
pub mod json;
pub mod merge;
#[cfg(test)]
mod robustness;
pub mod strategic;

/// A patch that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch document itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object (a failed `test`, a missing path): 422.
    #[error("{0}")]
    Inapplicable(String),
    /// The patch has too many operations, or makes the object too large or too deep: 413.
    #[error("{0}")]
    TooLarge(String),
}
