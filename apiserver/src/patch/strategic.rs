//! Strategic merge patches, driven by the list types of the schema.

use serde_json::Value;

use super::{PatchError, merge};
use crate::schema::Structural;

/// The object that results from applying `patch` to `current`.
pub fn apply(_schema: &Structural, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut next = current.clone();
    merge::apply(&mut next, patch);
    Ok(next)
}
