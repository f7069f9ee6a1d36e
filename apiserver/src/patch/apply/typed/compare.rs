//! What differs between two objects, as sets of fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::element::Element;
use super::super::fieldset::FieldSet;
use super::{List, Shape, Type, is_hollow, same};

/// The fields that differ. No field is in more than one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Diff {
    pub(in super::super) added: FieldSet,
    pub(in super::super) modified: FieldSet,
    pub(in super::super) removed: FieldSet,
}

/// What happened to a field as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Modified,
    Removed,
}

/// A difference and what it means for the field itself.
#[derive(Debug, Default)]
struct Outcome {
    below: Diff,
    itself: Option<Change>,
}

impl From<Change> for Outcome {
    fn from(change: Change) -> Self {
        Self {
            below: Diff::default(),
            itself: Some(change),
        }
    }
}

impl Diff {
    fn put(&mut self, element: Element, outcome: Outcome) {
        let Outcome { below, itself } = outcome;
        self.added
            .set(element.clone(), itself == Some(Change::Added), below.added);
        self.modified.set(
            element.clone(),
            itself == Some(Change::Modified),
            below.modified,
        );
        self.removed
            .set(element, itself == Some(Change::Removed), below.removed);
    }
}

/// How `new` differs from `old`.
pub(in super::super) fn compare(ty: Type<'_>, old: &Value, new: &Value) -> Diff {
    walk(ty, Some(old), Some(new)).below
}

fn walk(ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Outcome {
    if old == new {
        return Outcome::default();
    }
    let hollow = |value: Option<&Value>| value.is_none_or(is_hollow);
    if hollow(old) && hollow(new) {
        return unit(old, new);
    }
    let shape = |value: Option<&Value>| value.map(|value| ty.shape(value));
    let below = match (shape(old), shape(new)) {
        (Some(Shape::Map(ty)), Some(Shape::Map(_)) | None) | (None, Some(Shape::Map(ty))) => {
            maps(ty, old, new)
        }
        (Some(Shape::List(list)), Some(Shape::List(_)) | None)
        | (None, Some(Shape::List(list))) => match lists(list, old, new) {
            Some(below) => below,
            None => return unit(old, new),
        },
        // The shape itself changed: its parts went or came, and the field is another.
        (Some(Shape::Map(ty)), Some(_)) => {
            return Outcome {
                below: maps(ty, old, None),
                itself: Some(Change::Modified),
            };
        }
        (Some(_), Some(Shape::Map(ty))) => {
            return Outcome {
                below: maps(ty, None, new),
                itself: Some(Change::Modified),
            };
        }
        _ => return unit(old, new),
    };
    let itself = match (old, new) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        _ => None,
    };
    Outcome { below, itself }
}

/// Compares values that are owned as a whole.
fn unit(old: Option<&Value>, new: Option<&Value>) -> Outcome {
    match (old, new) {
        (None, _) => Change::Added.into(),
        (_, None) => Change::Removed.into(),
        (Some(old), Some(new)) if !same(old, new) => Change::Modified.into(),
        _ => Outcome::default(),
    }
}

fn maps(ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Diff {
    let (old, new) = (
        old.and_then(Value::as_object),
        new.and_then(Value::as_object),
    );
    let mut diff = Diff::default();
    let mut compare = |name: &str| {
        let outcome = walk(
            ty.field(name).0,
            old.and_then(|map| map.get(name)),
            new.and_then(|map| map.get(name)),
        );
        diff.put(Element::field(name), outcome);
    };
    for name in old.into_iter().flat_map(Map::keys) {
        compare(name);
    }
    for name in new.into_iter().flat_map(Map::keys) {
        if !old.is_some_and(|old| old.contains_key(name)) {
            compare(name);
        }
    }
    diff
}

/// `None` when an item cannot be identified.
fn lists(list: List<'_>, old: Option<&Value>, new: Option<&Value>) -> Option<Diff> {
    let mut groups: BTreeMap<Element, Group<'_>> = BTreeMap::new();
    for item in items(old) {
        groups
            .entry(list.element(item).ok()?)
            .or_default()
            .old
            .push(item);
    }
    for item in items(new) {
        groups
            .entry(list.element(item).ok()?)
            .or_default()
            .new
            .push(item);
    }
    let mut diff = Diff::default();
    for (element, group) in groups {
        diff.put(element, group.compare(list.item_type()));
    }
    Some(diff)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The items with the same identity in the old and the new list.
#[derive(Default)]
struct Group<'v> {
    old: Vec<&'v Value>,
    new: Vec<&'v Value>,
}

impl Group<'_> {
    /// Compares one with one; items that are there twice are owned as one unit.
    fn compare(&self, ty: Type<'_>) -> Outcome {
        match (self.old.as_slice(), self.new.as_slice()) {
            (old @ ([] | [_]), new @ ([] | [_])) => {
                walk(ty, old.first().copied(), new.first().copied())
            }
            ([_, _, ..], [_, _, ..]) if self.old == self.new => Outcome::default(),
            ([_, _, ..], [_, _, ..]) => Change::Modified.into(),
            ([_, _, ..], new) => Outcome {
                below: walk(ty, None, new.first().copied()).below,
                itself: Some(Change::Removed),
            },
            (old, _) => Outcome {
                below: walk(ty, old.first().copied(), None).below,
                itself: Some(Change::Added),
            },
        }
    }
}
