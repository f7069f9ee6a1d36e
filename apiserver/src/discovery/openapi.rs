//! OpenAPI v3 documents per group-version.

use bytes::Bytes;

use crate::registry::Snapshot;

/// `GET /openapi/v3`: the index with a content hash in each URL, as JSON text.
pub fn index(_snapshot: &Snapshot) -> Bytes {
    Bytes::from_static(b"{\"paths\":{}}")
}

/// `GET /openapi/v3/{path}` where `path` is `api/v1` or `apis/{group}/{version}`, as JSON text.
pub fn document(_snapshot: &Snapshot, _path: &str) -> Option<Bytes> {
    None
}
