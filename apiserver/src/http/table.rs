//! `meta.k8s.io/v1` Tables.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::{Descriptor, Version};

/// What each row carries in `object`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`, the default.
    Metadata,
    /// The whole object.
    Object,
}

/// Renders objects (in the version's form) as a Table.
///
/// `metadata` becomes the Table's list metadata. Watches ask for one row per event and send the
/// column definitions only in the first one: `headers` says whether to include them.
pub fn render(
    _descriptor: &Descriptor,
    _version: &Version,
    _objects: &[Value],
    metadata: &Value,
    _include: IncludeObject,
    _headers: bool,
    _now: Timestamp,
) -> Value {
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [], "rows": [] })
}
