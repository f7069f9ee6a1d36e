//! Merging an applied configuration into an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::element::Element;
use super::{List, Shape, Type, is_hollow};

/// `object` with everything that `applied` says; nothing is removed.
///
/// Lists keep the object's order, except that the items of `applied` come in the order of `applied`.
pub(in super::super) fn merge(ty: Type<'_>, object: &Value, applied: &Value) -> Value {
    if is_hollow(object) && is_hollow(applied) {
        return applied.clone();
    }
    if applied.is_null() && !matches!(ty.shape(object), Shape::Leaf) {
        // Nothing is said about the parts.
        return object.clone();
    }
    match (ty.shape(applied), object, applied) {
        (Shape::Map(ty), Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) => {
            merge_maps(ty, object.as_object(), applied.as_object())
        }
        (Shape::List(list), Value::Array(_) | Value::Null, Value::Array(_) | Value::Null) => {
            let items = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
            let (object, applied) = (items(object), items(applied));
            match (list.elements(&object), list.elements(&applied)) {
                (Some(object_elements), Some(applied_elements)) => {
                    let known = Items::new(&object, object_elements);
                    let wanted = Items::new(&applied, applied_elements);
                    Value::Array(merge_lists(list, &known, &wanted))
                }
                _ => Value::Array(applied),
            }
        }
        _ => applied.clone(),
    }
}

fn merge_maps(
    ty: Type<'_>,
    object: Option<&Map<String, Value>>,
    applied: Option<&Map<String, Value>>,
) -> Value {
    let mut merged = object.cloned().unwrap_or_default();
    for (name, value) in applied.into_iter().flatten() {
        let value = match merged.get(name) {
            Some(known) => merge(ty.field(name).0, known, value),
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// The items of a list with what identifies them.
struct Items<'v> {
    values: &'v [Value],
    elements: Vec<Element>,
    /// Where an element is; `None` when it is there twice.
    places: BTreeMap<Element, Option<usize>>,
}

impl<'v> Items<'v> {
    fn new(values: &'v [Value], elements: Vec<Element>) -> Self {
        let mut places = BTreeMap::new();
        for (i, element) in elements.iter().enumerate() {
            places
                .entry(element.clone())
                .and_modify(|place| *place = None)
                .or_insert(Some(i));
        }
        Self {
            values,
            elements,
            places,
        }
    }

    fn has(&self, element: &Element) -> bool {
        self.places.contains_key(element)
    }

    fn get(&self, element: &Element) -> Option<&'v Value> {
        let place = *self.places.get(element)?;
        self.values.get(place?)
    }
}

fn merge_lists(list: List<'_>, object: &Items<'_>, applied: &Items<'_>) -> Vec<Value> {
    let mut merged = Vec::with_capacity(object.values.len() + applied.values.len());
    let mut wanted = applied.elements.iter().zip(applied.values);
    // Items of both lists, in the order that is wanted.
    let mut shared = applied
        .elements
        .iter()
        .filter(|element| object.has(element))
        .peekable();
    let take = |element: &Element, item: &Value| match object.get(element) {
        Some(known) => merge(list.item_type(), known, item),
        None => item.clone(),
    };
    for (element, item) in object.elements.iter().zip(object.values) {
        if !applied.has(element) {
            merged.push(item.clone());
        } else if shared.next_if_eq(&element).is_some() {
            // This is the place of the next shared item; new ones that are wanted before it come
            // with it.
            for (next, item) in wanted.by_ref() {
                merged.push(take(next, item));
                if next == element {
                    break;
                }
            }
        }
        // Other shared items have their place where the applied list has them.
    }
    for (element, item) in wanted {
        merged.push(take(element, item));
    }
    merged
}
