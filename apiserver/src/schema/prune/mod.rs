//! Pruning: fields a schema does not know are dropped, or reported.
//!
//! [`prune`] and [`unknown_fields`] walk the same way, one changing and one reading: an object has
//! unknown fields exactly when pruning changes it. Kept are fields below
//! `x-kubernetes-preserve-unknown-fields` (except below declared properties in there, which prune
//! again) and the implied fields of objects.

use serde_json::Value;

use super::path::Path;
use super::structural::{Additional, Node, Structural};

/// Removes fields the schema does not know, except below `x-kubernetes-preserve-unknown-fields`.
pub fn prune(schema: &Structural, object: &mut Value) {
    prune_value(schema, object);
}

pub(super) fn prune_value(schema: &Node, value: &mut Value) {
    walk(Some(schema), value, Mode::of(schema));
}

/// The fields that [`prune`] would remove, as the warnings `unknown field "spec.foo"`, sorted.
pub fn unknown_fields(schema: &Structural, object: &Value) -> Vec<String> {
    let mut found = unknown_fields_in_order(schema, object);
    found.sort_unstable();
    found
}

/// Like [`unknown_fields`], in the order of the document, as a typed decoder meets them.
pub fn unknown_fields_in_order(schema: &Structural, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    search(
        Some(schema),
        object,
        Mode::of(schema),
        &Path::ROOT,
        &mut found,
    );
    found
}

/// What happens to fields that are not declared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Remove,
    Keep,
}

impl Mode {
    const fn of(schema: &Node) -> Self {
        if schema.preserve_unknown {
            Self::Keep
        } else {
            Self::Remove
        }
    }
}

/// What a schema says about one field.
enum Field<'s> {
    /// Described by a schema; without one, nothing below it is known.
    Known(Option<&'s Node>),
    Unknown,
}

fn field<'s>(schema: &'s Node, name: &str) -> Field<'s> {
    if let Some(property) = schema.property(name) {
        return Field::Known(Some(property));
    }
    match &schema.additional {
        Additional::Schema(schema) => Field::Known(Some(schema)),
        Additional::Any => Field::Known(None),
        Additional::None => Field::Unknown,
    }
}

/// How the value of a known field is treated.
fn mode_below(schema: Option<&Node>) -> Mode {
    schema.map_or(Mode::Remove, Mode::of)
}

/// How list items are treated: items in a list that keeps unknown fields keep theirs.
fn items_mode(items: Option<&Node>, mode: Mode) -> Mode {
    if mode == Mode::Keep {
        Mode::Keep
    } else {
        mode_below(items)
    }
}

fn walk(schema: Option<&Node>, value: &mut Value, mode: Mode) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            match schema.map_or(Field::Unknown, |schema| field(schema, name)) {
                Field::Known(schema) => {
                    walk(schema, value, mode_below(schema));
                    true
                }
                Field::Unknown => mode == Mode::Keep,
            }
        }),
        Value::Array(items) => {
            let schema = schema.and_then(Node::items).map(|items| &**items);
            if schema.is_none() && mode == Mode::Keep {
                return;
            }
            for item in items {
                walk(schema, item, items_mode(schema, mode));
            }
        }
        _ => {}
    }
}

fn search(
    schema: Option<&Node>,
    value: &Value,
    mode: Mode,
    path: &Path<'_>,
    found: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = path.field(name);
                match schema.map_or(Field::Unknown, |schema| field(schema, name)) {
                    Field::Known(schema) => {
                        search(schema, value, mode_below(schema), &path, found);
                    }
                    Field::Unknown if mode == Mode::Remove => {
                        found.push(format!("unknown field \"{path}\""));
                    }
                    Field::Unknown => {}
                }
            }
        }
        Value::Array(items) => {
            let schema = schema.and_then(Node::items).map(|items| &**items);
            if schema.is_none() && mode == Mode::Keep {
                return;
            }
            for (i, item) in items.iter().enumerate() {
                search(
                    schema,
                    item,
                    items_mode(schema, mode),
                    &path.index(i),
                    found,
                );
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
