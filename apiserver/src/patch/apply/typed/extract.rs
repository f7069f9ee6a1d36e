//! The fields that a configuration sets, and adjustments of sets of fields to a schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::element::Element;
use super::super::fieldset::FieldSet;
use super::{List, Shape, Type};
use crate::schema::{Kind, ListType, MapType, Node};

/// The fields that `value` sets.
pub(in super::super) fn field_set(ty: Type<'_>, value: &Value) -> FieldSet {
    walk(ty, value).below
}

/// What a value sets below itself, and whether it is set as a unit.
#[derive(Default)]
struct Found {
    below: FieldSet,
    itself: bool,
}

fn walk(ty: Type<'_>, value: &Value) -> Found {
    match (ty.shape(value), value) {
        (Shape::Map(ty), Value::Object(map)) => {
            let mut below = FieldSet::default();
            for (name, value) in map {
                let (field_type, declared) = ty.field(name);
                let found = walk(field_type, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                below.set(
                    Element::field(name),
                    found.itself || empty || !declared,
                    found.below,
                );
            }
            Found {
                below,
                itself: false,
            }
        }
        (Shape::List(list), Value::Array(items)) => match list.elements(items) {
            Some(elements) => Found {
                below: items_set(list, items, elements),
                itself: false,
            },
            None => Found {
                itself: true,
                ..Found::default()
            },
        },
        (Shape::Map(_) | Shape::List(_), _) => Found::default(),
        (Shape::Leaf, _) => Found {
            itself: true,
            ..Found::default()
        },
    }
}

/// Every item is set; what is in items that are there twice is not told apart.
fn items_set(list: List<'_>, items: &[Value], elements: Vec<Element>) -> FieldSet {
    let mut groups: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (element, item) in elements.into_iter().zip(items) {
        groups.entry(element).or_default().push(item);
    }
    let mut set = FieldSet::default();
    for (element, items) in groups {
        let below = match items.as_slice() {
            [item] => walk(list.item_type(), item).below,
            _ => FieldSet::default(),
        };
        set.set(element, true, below);
    }
    set
}

/// The set with every declared field that has members below it added as a member: whoever owns
/// `spec.replicas` may remove `spec` when nothing else is in it.
pub(in super::super) fn named_fields(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    let mut named = FieldSet::default();
    for (element, member, below) in set.entries() {
        let (below_type, declared) = step(ty, element);
        named.set(
            element.clone(),
            member || declared && !below.is_empty(),
            named_fields(below_type, below),
        );
    }
    named
}

/// The set as the schema has it now: fields below something that has become atomic since are
/// replaced by the whole.
pub(in super::super) fn reconcile(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    let mut reconciled = FieldSet::default();
    for (element, member, below) in set.entries() {
        let (below_type, _) = step(ty, element);
        if !below.is_empty() && is_atomic(below_type) {
            reconciled.set(element.clone(), true, FieldSet::default());
        } else {
            reconciled.set(element.clone(), member, reconcile(below_type, below));
        }
    }
    reconciled
}

/// The type below a path element, and whether it is a field declared by name.
fn step<'s>(ty: Type<'s>, element: &Element) -> (Type<'s>, bool) {
    match (element, ty) {
        (Element::Field(name), ty) => ty.field(name),
        (_, Type::Schema(schema)) => (
            schema
                .items()
                .map_or(Type::Deduced, |schema| Type::Schema(schema)),
            false,
        ),
        _ => (Type::Deduced, false),
    }
}

fn is_atomic(ty: Type<'_>) -> bool {
    let Type::Schema(schema) = ty else {
        return false;
    };
    match schema.kind() {
        Kind::Object => schema.map_type() == MapType::Atomic,
        Kind::Array => is_atomic_list(schema),
        _ => false,
    }
}

fn is_atomic_list(schema: &Node) -> bool {
    match schema.list_type() {
        ListType::Atomic => true,
        ListType::Unset => !schema.patch_merges(),
        ListType::Set | ListType::Map => false,
    }
}
