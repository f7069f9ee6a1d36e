//! Strategic merge patches: merge patches that know the lists of the schema.
//!
//! Lists whose schema says `x-kubernetes-patch-strategy: merge` merge item by item; other lists are
//! replaced, whatever their list type, because that is what clients compute their patches for.
//! Directives: `$patch` (`replace`, `delete`) in objects and list items, `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`. Behaviour and texts follow
//! `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod lists;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::render;
use crate::schema::{Node, Structural};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// The object that results from applying `patch` to `current`.
pub fn apply(schema: &Structural, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed(format!(
            "a strategic merge patch must be an object, got {}",
            kind(patch)
        )));
    };
    let mut next = match current {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    merge_map(&mut next, patch, Some(schema))?;
    Ok(Value::Object(next))
}

/// Merges `patch` into `original`.
fn merge_map(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Node>,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        match directive.as_str() {
            Some("replace") => {
                original.clone_from(patch);
                original.shift_remove(PATCH);
            }
            Some("delete") => original.clear(),
            _ => return Err(unknown_directive(directive, patch)),
        }
        return Ok(());
    }
    retain_keys(original, patch)?;
    for (directive, order) in patch {
        if let Some(name) = directive.strip_prefix(ORDER) {
            lists::merge_ordered(original, patch, name, order, child(schema, name))?;
        }
    }
    for (key, value) in patch {
        if key == RETAIN_KEYS || key.starts_with(ORDER) || is_ordered(patch, key) {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            lists::delete_from(original, name, value)?;
        } else {
            merge_field(original, key, value, child(schema, key))?;
        }
    }
    Ok(())
}

/// Merges one field of a patch.
fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
    schema: Option<&Node>,
) -> Result<(), PatchError> {
    if patch.is_null() {
        original.shift_remove(key);
        return Ok(());
    }
    match (original.get_mut(key), patch) {
        (Some(Value::Object(original)), Value::Object(patch)) => merge_map(original, patch, schema),
        (Some(Value::Array(original)), Value::Array(patch)) if merges(schema) => {
            lists::merge(original, patch, schema)
        }
        _ => {
            match plain(patch) {
                Some(value) => original.insert(key.to_owned(), value),
                None => original.shift_remove(key),
            };
            Ok(())
        }
    }
}

/// Whether `$setElementOrder` has taken care of the list `key`.
fn is_ordered(patch: &Map<String, Value>, key: &str) -> bool {
    patch
        .keys()
        .any(|other| other.strip_prefix(ORDER) == Some(key))
}

/// Whether lists of this schema merge item by item.
fn merges(schema: Option<&Node>) -> bool {
    schema.is_some_and(Node::patch_merges)
}

fn child<'s>(schema: Option<&'s Node>, key: &str) -> Option<&'s Node> {
    schema?.child(key).map(|schema| &**schema)
}

/// `$retainKeys`: drops every field of the original that is not listed.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(listed) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let listed = listed.as_array().ok_or_else(malformed)?;
    let is_listed = |key: &str| listed.iter().any(|name| name.as_str() == Some(key));
    let all_listed = patch
        .iter()
        .filter(|(key, value)| {
            !value.is_null()
                && *key != RETAIN_KEYS
                && !key.starts_with(ORDER)
                && !key.starts_with(DELETE_FROM)
        })
        .all(|(key, _)| is_listed(key));
    if !all_listed {
        return Err(malformed());
    }
    original.retain(|key, _| is_listed(key));
    Ok(())
}

/// A patch as a plain value: without nulls, which remove what is not there, and without
/// directives. `None` when nothing is left of it.
fn plain(patch: &Value) -> Option<Value> {
    match patch {
        Value::Object(map) => {
            if map
                .get(PATCH)
                .is_some_and(|directive| directive == "delete")
            {
                return None;
            }
            let fields = map
                .iter()
                .filter(|(key, value)| !is_directive(key) && !value.is_null())
                .filter_map(|(key, value)| Some((key.clone(), plain(value)?)))
                .collect();
            Some(Value::Object(fields))
        }
        Value::Array(items) => Some(items.iter().filter_map(plain_item).collect()),
        other => Some(other.clone()),
    }
}

/// An item of a new list; `{"$patch": "replace"}` alone only says that the list is replaced.
fn plain_item(item: &Value) -> Option<Value> {
    let marker_only = item
        .as_object()
        .is_some_and(|map| map.len() == 1 && map.contains_key(PATCH));
    if marker_only { None } else { plain(item) }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(ORDER) || key.starts_with(DELETE_FROM)
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    PatchError::Malformed(format!(
        "unknown patch type: {} in map: {}",
        directive
            .as_str()
            .map_or_else(|| render::json(directive), str::to_owned),
        render::json(&Value::Object(patch.clone()))
    ))
}

/// What a value is, for messages.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
