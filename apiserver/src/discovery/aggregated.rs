//! `APIGroupDiscoveryList`: everything in two documents.

use serde_json::{Value, json};

use crate::registry::Snapshot;

/// Which version of `apidiscovery.k8s.io` the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `v2`
    V2,
    /// `v2beta1`
    V2Beta1,
}

/// `GET /api`: the core group.
pub fn core(_snapshot: &Snapshot, _form: Form) -> Value {
    json!({})
}

/// `GET /apis`: every other group.
pub fn groups(_snapshot: &Snapshot, _form: Form) -> Value {
    json!({})
}
