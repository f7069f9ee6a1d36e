//! Values seen through a schema: which parts merge field by field or item by item, and which are
//! replaced and owned as a whole.
//!
//! Where the schema says nothing (`x-kubernetes-preserve-unknown-fields`), the shape is deduced from
//! the value as Kubernetes does: objects are granular, lists atomic.

mod check;
mod compare;
mod extract;
mod merge;
mod remove;

pub(super) use check::check;
pub(super) use compare::{Diff, compare};
pub(super) use extract::{field_set, named_fields, reconcile};
pub(super) use merge::merge;
pub(super) use remove::remove;

use serde_json::Value;

use super::element::{Element, Scalar};
use crate::schema::{Kind, ListType, MapType, Node};

/// What is known about a value before looking at it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type<'s> {
    /// Described by a schema.
    Schema(&'s Node),
    /// Deduced: objects are granular, lists atomic.
    Deduced,
    /// A field that the schema does not declare; treated as deduced where one must go on.
    Undeclared,
}

/// How a value merges.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'s> {
    /// A unit: scalars, atomic lists and maps, and values of the wrong type.
    Leaf,
    /// Merges field by field.
    Map(Type<'s>),
    /// Merges item by item.
    List(List<'s>),
}

/// A list whose items can be told apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'s> {
    schema: &'s Node,
    /// Whether items are scalars, identified by themselves.
    is_set: bool,
}

impl<'s> Type<'s> {
    /// How `value` merges. Null takes the shape of what the schema describes.
    pub(super) fn shape(self, value: &Value) -> Shape<'s> {
        match (self, value) {
            (Self::Schema(schema), Value::Object(_)) => match schema.kind() {
                Kind::Object | Kind::Any if schema.map_type() != MapType::Atomic => {
                    Shape::Map(self)
                }
                _ => Shape::Leaf,
            },
            (Self::Schema(schema), Value::Array(_)) => {
                List::of(schema).map_or(Shape::Leaf, Shape::List)
            }
            (Self::Schema(schema), Value::Null) => match schema.kind() {
                Kind::Object if schema.map_type() != MapType::Atomic => Shape::Map(self),
                Kind::Array => List::of(schema).map_or(Shape::Leaf, Shape::List),
                _ => Shape::Leaf,
            },
            (Self::Deduced | Self::Undeclared, Value::Object(_)) => Shape::Map(Self::Deduced),
            _ => Shape::Leaf,
        }
    }

    /// The type of a field, and whether the field is declared by name.
    pub(super) fn field(self, name: &str) -> (Self, bool) {
        let Self::Schema(schema) = self else {
            return (Self::Deduced, false);
        };
        if let Some(property) = schema.property(name) {
            return (Type::Schema(property), true);
        }
        if let Some(additional) = schema.additional_properties() {
            return (Type::Schema(additional), false);
        }
        let open = schema.preserves_unknown()
            || schema.allows_any_field()
            || schema.properties().is_empty();
        (
            if open {
                Self::Deduced
            } else {
                Self::Undeclared
            },
            false,
        )
    }
}

impl<'s> List<'s> {
    /// The list that `schema` describes, unless it is atomic.
    fn of(schema: &'s Node) -> Option<Self> {
        if !matches!(schema.kind(), Kind::Array | Kind::Any) {
            return None;
        }
        let is_set = match schema.list_type() {
            ListType::Set => true,
            ListType::Map => false,
            ListType::Unset if schema.patch_merges() => schema.patch_merge_key().is_none(),
            ListType::Unset | ListType::Atomic => return None,
        };
        Some(Self { schema, is_set })
    }

    /// The type of the items.
    pub(super) fn item_type(self) -> Type<'s> {
        self.schema
            .items()
            .map_or(Type::Deduced, |schema| Type::Schema(schema))
    }

    /// What identifies an item; the error says why nothing does.
    pub(super) fn element(self, item: &Value) -> Result<Element, String> {
        if self.is_set {
            return match item {
                Value::Null => Err(
                    "associative list without keys has an element that's an explicit null"
                        .to_owned(),
                ),
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                scalar => Ok(Element::Value(Scalar(scalar.clone()))),
            };
        }
        let Value::Object(fields) = item else {
            return Err(if item.is_null() {
                "associative list with keys may not have a null element".to_owned()
            } else {
                "associative list with keys may not have non-map elements".to_owned()
            });
        };
        let item_schema = self.schema.items();
        let mut found = Vec::new();
        for name in self.keys() {
            let default = || item_schema?.property(name)?.default_value();
            if let Some(value) = fields.get(name).or_else(default) {
                found.push((Box::from(name), value.clone()));
            }
        }
        if found.is_empty() {
            let names: Vec<_> = self.keys().map(|name| format!("\"{name}\"")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(Element::key(found))
    }

    /// What identifies every item, in their order; `None` when an item cannot be identified, and the
    /// list has to be treated as a unit.
    pub(super) fn elements(self, items: &[Value]) -> Option<Vec<Element>> {
        items.iter().map(|item| self.element(item).ok()).collect()
    }

    fn keys(self) -> impl Iterator<Item = &'s str> {
        let declared = self.schema.list_map_keys().iter().map(|name| &**name);
        let from_patch = self
            .schema
            .list_map_keys()
            .is_empty()
            .then(|| self.schema.patch_merge_key())
            .flatten();
        declared.chain(from_patch)
    }
}

/// Whether a value is an empty container or null, which have no parts to merge.
pub(super) fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Equality where 1 is 1.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Scalar(a.clone()) == Scalar(b.clone()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
pub(super) mod tests;
