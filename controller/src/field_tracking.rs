//! Ends the API server's field tracking (`metadata.managedFields`) of objects that the operator made.
//!
//! Tracking who owns which field is about half of what a patch of a Sandbox or a pod costs the API
//! server, and more than a third of the object's bytes in etcd and on every watch. The server stops
//! tracking an object whose list is empty, and a patch may empty it in the same write; it starts again
//! at the first server-side apply, which then begins with the state it finds.
//!
//! Used by the patches that bind a pool's member and relabel its pod, the dearest writes of a claim.
//! Never for objects that users made: claims, templates, pools and adopted pods keep their record.
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields>.

use serde_json::{Value, json};

/// The member of `metadata` that a patch sets to [`ended`].
pub const MEMBER: &str = "managedFields";

/// The value that makes the API server forget the record: a list with one empty entry. An empty list
/// would be ignored.
pub fn ended() -> Value {
    json!([{}])
}
