//! RFC 6902 JSON patches.

use serde_json::Value;

use super::PatchError;

/// Applies `patch`, an array of operations; on error the target is unchanged.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(error.to_string()))?;
    json_patch::patch(target, &patch).map_err(|error| PatchError::Inapplicable(error.to_string()))
}
