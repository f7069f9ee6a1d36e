//! Which item of an old list a new item continues.
//!
//! Only items of lists of type map can be told apart, by their keys. Validation uses this to
//! forgive what did not change, CEL to bind `oldSelf`.

use std::collections::HashMap;

use serde_json::Value;

use super::render;
use super::structural::{ListType, Node};

/// The items of an old list, by key.
pub(super) struct OldItems<'o> {
    by_key: HashMap<String, &'o Value>,
}

impl<'o> OldItems<'o> {
    /// The items of `old`, a value of the list that `schema` describes.
    pub(super) fn of(schema: &Node, old: Option<&'o Value>) -> Self {
        let mut by_key = HashMap::new();
        if schema.list_type == ListType::Map
            && let Some(Value::Array(items)) = old
        {
            for item in items {
                if let Some(key) = key(schema, item) {
                    by_key.entry(key).or_insert(item);
                }
            }
        }
        Self { by_key }
    }

    /// The old item with the keys of `item`.
    pub(super) fn get(&self, schema: &Node, item: &Value) -> Option<&'o Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&key(schema, item)?).copied()
    }
}

/// The values of all key fields, if they are there and scalar.
fn key(schema: &Node, item: &Value) -> Option<String> {
    let mut text = String::new();
    for name in schema.list_map_keys() {
        let value = item.get(&**name)?;
        if value.is_array() || value.is_object() || value.is_null() {
            return None;
        }
        text.push_str(&render::value(value));
        text.push('\0');
    }
    Some(text)
}
