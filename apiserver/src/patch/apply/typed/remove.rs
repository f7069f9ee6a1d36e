//! Removing fields and items from an object.

use serde_json::Value;

use super::super::element::Element;
use super::super::fieldset::FieldSet;
use super::{Shape, Type};

/// `value` without the fields and items in `set`.
///
/// A container that loses everything stays as an empty one, unless it is in the set itself. Parts of
/// atomic lists and maps cannot be removed.
pub(in super::super) fn remove(ty: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    match (ty.shape(value), value) {
        (Shape::Map(ty), Value::Object(map)) => map
            .iter()
            .filter_map(|(name, value)| {
                let element = Element::field(name);
                let value = keep(ty.field(name).0, value, &element, set)?;
                Some((name.clone(), value))
            })
            .collect(),
        (Shape::List(list), Value::Array(items)) => {
            let Some(elements) = list.elements(items) else {
                return value.clone();
            };
            elements
                .iter()
                .zip(items)
                .filter_map(|(element, item)| keep(list.item_type(), item, element, set))
                .collect()
        }
        _ => value.clone(),
    }
}

/// What stays of a field or item.
fn keep(ty: Type<'_>, value: &Value, element: &Element, set: &FieldSet) -> Option<Value> {
    if set.has(element) {
        return None;
    }
    Some(match set.below(element) {
        Some(below) => remove(ty, value, below),
        None => value.clone(),
    })
}
