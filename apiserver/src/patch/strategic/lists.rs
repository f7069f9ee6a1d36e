//! Lists that merge item by item.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::super::PatchError;
use super::{PATCH, kind, merge_map, merges, plain, unknown_directive};
use crate::schema::{Node, render};

/// Merges a list of a patch, whose order wins for the items it has.
pub(super) fn merge(
    original: &mut Vec<Value>,
    patch: &[Value],
    schema: Option<&Node>,
) -> Result<(), PatchError> {
    let (merged, order) = merge_items(original, patch, schema)?;
    *original = arrange(merged, &order, original, merge_key(schema))?;
    Ok(())
}

/// `$setElementOrder/NAME`: merges the list `name`, if the patch has it, and orders it.
pub(super) fn merge_ordered(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    name: &str,
    order: &Value,
    schema: Option<&Node>,
) -> Result<(), PatchError> {
    let order = list(order)?;
    let patched = patch.get(name).map(list).transpose()?;
    let current = original.get(name).map(list).transpose()?;
    let key = merge_key(schema);
    check_order(patched.map_or(&[], Vec::as_slice), order, key)?;
    let merged = match (current, patched) {
        (None, None) => return Ok(()),
        (Some(current), None) => current.clone(),
        (None, Some(patched)) => match plain(&Value::Array(patched.clone())) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        (Some(current), Some(patched)) if merges(schema) => {
            merge_items(current, patched, schema)?.0
        }
        (Some(_), Some(patched)) => patched.clone(),
    };
    let server_order = current.cloned().unwrap_or_default();
    let arranged = arrange(merged, order, &server_order, key)?;
    original.insert(name.to_owned(), Value::Array(arranged));
    Ok(())
}

/// `$deleteFromPrimitiveList/NAME`: removes the given scalars from the list `name`.
pub(super) fn delete_from(
    original: &mut Map<String, Value>,
    name: &str,
    deleted: &Value,
) -> Result<(), PatchError> {
    if deleted.is_null() {
        original.shift_remove(name);
        return Ok(());
    }
    let deleted = list(deleted)?;
    if let Some(Value::Array(items)) = original.get_mut(name) {
        items.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

fn merge_key(schema: Option<&Node>) -> Option<&str> {
    schema?.patch_merge_key()
}

fn list(value: &Value) -> Result<&Vec<Value>, PatchError> {
    value.as_array().ok_or_else(|| {
        PatchError::Malformed(format!("expected a list, but received {}", kind(value)))
    })
}

/// The items of both lists, merged where they are the same, and the patch items that give the order.
fn merge_items(
    original: &[Value],
    patch: &[Value],
    schema: Option<&Node>,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let has_objects = original.iter().chain(patch).any(Value::is_object);
    if original.iter().chain(patch).any(Value::is_array) {
        return Err(PatchError::Inapplicable(
            "lists of lists are not supported".to_owned(),
        ));
    }
    if !has_objects {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok((merged, patch.to_vec()));
    }
    let key = merge_key(schema)
        .ok_or_else(|| PatchError::Malformed("cannot merge lists without merge key".to_owned()))?;
    let (mut merged, rest) = apply_directives(original.to_vec(), patch, key)?;
    let Some(rest) = rest else {
        let order = merged.clone();
        return Ok((merged, order));
    };
    let item_schema = schema.and_then(Node::items).map(|schema| &**schema);
    for item in &rest {
        let value = key_of(item, key)?;
        let same = merged
            .iter_mut()
            .find(|known| known.get(key) == Some(value));
        match (same, item) {
            (Some(Value::Object(known)), Value::Object(item)) => {
                merge_map(known, item, item_schema)?;
            }
            _ => merged.extend(plain(item)),
        }
    }
    Ok((merged, rest))
}

/// Carries out the `$patch` items of a list patch. The second part of the result are the other
/// items, or nothing when they replace the list and are the first part already.
fn apply_directives(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<(Vec<Value>, Option<Vec<Value>>), PatchError> {
    let mut rest = Vec::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = item else {
            return Err(PatchError::Malformed(format!(
                "a list of objects cannot be merged with {}",
                kind(item)
            )));
        };
        match map
            .get(PATCH)
            .map(|directive| (directive, directive.as_str()))
        {
            None => rest.push(item.clone()),
            Some((_, Some("delete"))) => {
                let value = key_of(item, key)?;
                original.retain(|known| known.get(key) != Some(value));
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(PatchError::Malformed(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some((directive, _)) => return Err(unknown_directive(directive, map)),
        }
    }
    Ok(if replace {
        (rest, None)
    } else {
        (original, Some(rest))
    })
}

fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    item.get(key).ok_or_else(|| {
        PatchError::Malformed(format!(
            "map: {} does not contain declared merge key: {key}",
            render::json(item)
        ))
    })
}

/// Items that are in `order` come in that order; the others keep their places relative to what the
/// server had.
fn arrange(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key {
        for item in items.iter().chain(order) {
            key_of(item, key)?;
        }
    }
    let (mut ordered, mut others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| position(order, item, key).is_some());
    ordered.sort_by_key(|item| position(order, item, key));
    others.sort_by(|a, b| {
        match (
            position(server_order, a, key),
            position(server_order, b, key),
        ) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => Ordering::Equal,
        }
    });
    let mut arranged = Vec::with_capacity(ordered.len() + others.len());
    let mut ordered = ordered.into_iter().peekable();
    for other in others {
        let at = position(server_order, &other, key);
        while let Some(next) = ordered.peek() {
            let next_at = position(server_order, next, key);
            if matches!((at, next_at), (Some(at), Some(next_at)) if at < next_at) {
                break;
            }
            arranged.extend(ordered.next());
        }
        arranged.push(other);
    }
    arranged.extend(ordered);
    Ok(arranged)
}

/// Where `order` has the item.
fn position(order: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    order.iter().position(|known| same(known, item, key))
}

/// Whether two items are the same one.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some_and(|value| b.get(key) == Some(value)),
        None => a == b,
    }
}

/// A list in a patch must follow the order that the patch asks for.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    let follows = patch
        .iter()
        .filter(|item| item.get(PATCH).is_none())
        .all(|item| wanted.any(|known| same(known, item, key)));
    if follows {
        return Ok(());
    }
    Err(PatchError::Malformed(format!(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        render::json(&Value::Array(patch.to_vec())),
        render::json(&Value::Array(order.to_vec()))
    )))
}
