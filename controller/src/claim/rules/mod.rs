//! What a claim may ask for on top of its template. Each rule is a plain function of claim and
//! template that returns the merged value or a [`Rejection`]; a rejection is the user's mistake, so it
//! becomes a condition with a stable reason and is not retried.

pub mod env;
pub mod metadata;
pub mod volumes;

/// A claim that asks for something it may not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// The condition reason; clients give up on it.
    pub reason: &'static str,
    /// Which entry, and what was expected.
    pub message: String,
}

impl Rejection {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
