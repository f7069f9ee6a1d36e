//! `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`.

use serde_json::{Value, json};

use crate::registry::Snapshot;

/// `GET /api`; `address` is what `serverAddressByClientCIDRs` announces.
pub fn versions(_snapshot: &Snapshot, _address: &str) -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"] })
}

/// `GET /apis`
pub fn groups(_snapshot: &Snapshot) -> Value {
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })
}

/// `GET /apis/{group}`; `None` when no version of the group is served.
pub fn group(_snapshot: &Snapshot, _group: &str) -> Option<Value> {
    None
}

/// `GET /api/v1` and `GET /apis/{group}/{version}`; `None` when it is not served.
pub fn resources(_snapshot: &Snapshot, _group: &str, _version: &str) -> Option<Value> {
    None
}
