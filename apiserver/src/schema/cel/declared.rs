//! The CEL types that a schema declares, and how large their values can get.
//!
//! Sizes bound the cost of a rule: with the schema's limits when a CRD is checked, with an object's
//! actual sizes when a rule that could be expensive is evaluated. The size model (a request of 3 MiB,
//! four bytes for a character) is the published one of `k8s.io/apiserver/pkg/cel`.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::super::format::Format;
use super::super::structural::{Additional, Kind, ListType, Node, Structural};
use super::escape;

/// Bytes of the largest request, which no value can exceed.
pub(super) const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// A type and the largest size of its values: characters, bytes or entries; 1 for the rest.
#[derive(Debug, Clone)]
pub(super) struct Sized {
    pub(super) ty: Ty,
    pub(super) size: u64,
}

/// A CEL type as far as it is known.
#[derive(Debug, Clone)]
pub(super) enum Ty {
    /// Anything.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// The type of types.
    Type,
    /// A type of the Kubernetes library, such as `quantity`.
    Library(&'static str),
    Optional(Rc<Sized>),
    List(Rc<Sized>),
    /// Keys are strings; this is the type of the values.
    Map(Rc<Sized>),
    /// A list, map or object that a schema describes; looked into on demand.
    Schema(Structural, Place),
    /// An object with measured fields.
    Record(Rc<BTreeMap<String, Sized>>),
}

/// Whether a schema describes a whole object, of whose metadata rules see only the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Object,
    Metadata,
    Field,
}

impl Place {
    /// The place of a schema that is the root of an object, or not.
    pub(super) const fn of(schema: &Node, is_root: bool) -> Self {
        if is_root || schema.embedded {
            Self::Object
        } else {
            Self::Field
        }
    }

    /// The place of a property.
    pub(super) fn property(self, name: &str, schema: &Node) -> Self {
        if self == Self::Object && name == "metadata" {
            Self::Metadata
        } else {
            Self::of(schema, false)
        }
    }

    /// Whether rules can see a property here.
    pub(super) fn shows(self, name: &str) -> bool {
        self != Self::Metadata || matches!(name, "name" | "generateName")
    }
}

impl Sized {
    pub(super) const fn of(ty: Ty, size: u64) -> Self {
        Self { ty, size }
    }

    /// Anything of any size.
    pub(super) const ANY: Self = Self::of(Ty::Dyn, MAX_REQUEST);

    /// A value of fixed size.
    pub(super) const fn fixed(ty: Ty) -> Self {
        Self::of(ty, 1)
    }

    /// What values of `schema` can be.
    pub(super) fn declared(schema: &Structural, place: Place) -> Self {
        let checks = schema.checks();
        let text_size = || {
            checks
                .and_then(|checks| checks.max_length)
                .map_or(MAX_REQUEST - 2, |max| max.saturating_mul(4))
        };
        match schema.kind {
            Kind::Boolean => Self::fixed(Ty::Bool),
            Kind::Integer => Self::fixed(Ty::Int),
            Kind::Number => Self::fixed(Ty::Double),
            Kind::String => match schema.format {
                Format::DateTime => Self::of(Ty::Timestamp, 32),
                Format::Date => Self::of(Ty::Timestamp, 12),
                Format::Duration => Self::of(Ty::Duration, 32),
                Format::Byte => Self::of(Ty::Bytes, text_size()),
                _ => Self::of(Ty::String, enumerated(schema).unwrap_or_else(text_size)),
            },
            Kind::IntOrString | Kind::Quantity => Self::of(Ty::Dyn, text_size()),
            Kind::Any => Self::ANY,
            Kind::Array | Kind::Object => Self::of(
                Ty::Schema(schema.clone(), place),
                most_entries(schema).unwrap_or(1),
            ),
        }
    }

    /// What `value` is, measured where its size can matter.
    pub(super) fn measured(schema: &Structural, place: Place, value: &Value) -> Self {
        match value {
            Value::Array(items) => {
                let item_schema = schema.items();
                let item = items
                    .iter()
                    .map(|item| match item_schema {
                        Some(schema) => Self::measured(schema, Place::of(schema, false), item),
                        None => Self::of(Ty::Dyn, bytes(item)),
                    })
                    .reduce(|a, b| a.or(&b))
                    .unwrap_or(Self::fixed(Ty::Dyn));
                Self::of(Ty::List(Rc::new(item)), items.len() as u64)
            }
            Value::Object(map) if schema.kind == Kind::Object => {
                let entries = map.iter().filter_map(|(name, value)| {
                    let schema = schema.child(name)?;
                    let place = place.property(name, schema);
                    Some((name, Self::measured(schema, place, value)))
                });
                if schema.additional == Additional::None {
                    let mut fields: BTreeMap<_, _> = entries
                        .filter_map(|(name, sized)| Some((escape(name)?, sized)))
                        .collect();
                    for (name, property) in schema.properties() {
                        if let Some(name) = escape(name) {
                            fields.entry(name).or_insert_with(|| {
                                Self::of(Self::declared(property, Place::Field).ty, 0)
                            });
                        }
                    }
                    return Self::of(Ty::Record(Rc::new(fields)), 1);
                }
                let entry = entries
                    .map(|(_, sized)| sized)
                    .reduce(|a, b| a.or(&b))
                    .unwrap_or(Self::fixed(Ty::Dyn));
                Self::of(Ty::Map(Rc::new(entry)), map.len() as u64)
            }
            other => Self::of(Self::declared(schema, place).ty, bytes(other)),
        }
    }

    /// What is either of both.
    pub(super) fn or(&self, other: &Self) -> Self {
        let size = self.size.max(other.size);
        let ty = match (&self.ty, &other.ty) {
            (Ty::List(a), Ty::List(b)) => Ty::List(Rc::new(a.or(b))),
            (Ty::Map(a), Ty::Map(b)) => Ty::Map(Rc::new(a.or(b))),
            (Ty::Optional(a), Ty::Optional(b)) => Ty::Optional(Rc::new(a.or(b))),
            (Ty::Record(a), Ty::Record(b)) => {
                let mut fields = (**a).clone();
                for (name, sized) in &**b {
                    let joined = fields
                        .get(name)
                        .map_or_else(|| sized.clone(), |a| a.or(sized));
                    fields.insert(name.clone(), joined);
                }
                Ty::Record(Rc::new(fields))
            }
            (Ty::Schema(a, place), Ty::Schema(b, _)) if a.same(b) => Ty::Schema(a.clone(), *place),
            (a, b) if a.name() == b.name() && a.is_scalar() => a.clone(),
            _ => Ty::Dyn,
        };
        Self { ty, size }
    }

    /// The entries of a list or map.
    pub(super) fn element(&self) -> Self {
        match &self.ty {
            Ty::List(element) | Ty::Map(element) => (**element).clone(),
            Ty::Schema(schema, _) => schema
                .items()
                .or_else(|| schema.additional_properties())
                .map_or(Self::ANY, |schema| {
                    Self::declared(schema, Place::of(schema, false))
                }),
            _ => Self::ANY,
        }
    }

    /// The field `name`, in its escaped form; `None` when there is no such field.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match &self.ty {
            Ty::Dyn => Some(Self::ANY),
            Ty::Record(fields) => fields.get(name).cloned(),
            Ty::Map(_) => Some(self.element()),
            Ty::Schema(schema, place) if is_object(schema) => schema
                .properties()
                .iter()
                .filter(|(raw, _)| place.shows(raw))
                .find(|(raw, _)| escape(raw).as_deref() == Some(name))
                .map(|(raw, schema)| Self::declared(schema, place.property(raw, schema))),
            Ty::Schema(schema, _) if schema.kind == Kind::Object => Some(self.element()),
            Ty::Optional(inner) => inner.field(name),
            _ => None,
        }
    }
}

impl Ty {
    /// The name in messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Type => "type",
            Self::Library(name) => name,
            Self::Optional(_) => "optional_type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Record(_) => "object",
            Self::Schema(schema, _) => match schema.kind {
                Kind::Array => "list",
                _ if is_object(schema) => "object",
                _ => "map",
            },
        }
    }

    pub(super) const fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(super) const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether values have no parts.
    pub(super) const fn is_scalar(&self) -> bool {
        !matches!(
            self,
            Self::Dyn
                | Self::Optional(_)
                | Self::List(_)
                | Self::Map(_)
                | Self::Schema(..)
                | Self::Record(_)
        )
    }

    /// Whether values have a length that operators walk along.
    pub(super) const fn has_length(&self) -> bool {
        matches!(self, Self::String | Self::Bytes) || !self.is_scalar()
    }

    /// The schema whose values have lists in which the order does not count.
    pub(super) fn unordered(&self) -> Option<&Structural> {
        match self {
            Self::Schema(schema, _) if has_unordered(schema) => Some(schema),
            _ => None,
        }
    }
}

/// Whether a schema describes fields, and not a map.
fn is_object(schema: &Node) -> bool {
    schema.kind == Kind::Object && schema.additional == Additional::None
}

/// Whether a value of the schema can hold a list of type set or map.
pub(super) fn has_unordered(schema: &Node) -> bool {
    if matches!(schema.list_type, ListType::Set | ListType::Map) {
        return true;
    }
    !schema.recursive
        && schema
            .properties
            .iter()
            .map(|(_, property)| property)
            .chain(&schema.items)
            .chain(schema.additional_properties())
            .any(|below| has_unordered(below))
}

/// The most entries a list or map can have; `None` for objects with fields.
pub(super) fn most_entries(schema: &Structural) -> Option<u64> {
    let checks = schema.checks();
    match schema.kind {
        Kind::Array => Some(checks.and_then(|c| c.max_items).unwrap_or_else(|| {
            let smallest = schema.items().map_or(1, |items| smallest(items));
            (MAX_REQUEST - 2) / (smallest + 1)
        })),
        Kind::Object if !is_object(schema) => {
            Some(checks.and_then(|c| c.max_properties).unwrap_or_else(|| {
                let smallest = schema
                    .additional_properties()
                    .map_or(1, |value| smallest(value));
                (MAX_REQUEST - 2) / (smallest + 6)
            }))
        }
        _ => None,
    }
}

/// The fewest bytes a value takes as JSON.
pub(super) fn smallest(schema: &Node) -> u64 {
    match schema.kind {
        Kind::Boolean => 4,
        Kind::Integer | Kind::Number | Kind::IntOrString | Kind::Quantity | Kind::Any => 1,
        Kind::Array => 2,
        Kind::String => match schema.format {
            Format::DateTime => 21,
            Format::Date => 12,
            Format::Duration => 3,
            _ => 2,
        },
        Kind::Object => {
            let required = schema.required().iter().filter_map(|name| {
                let property = schema.property(name)?;
                property
                    .default_value()
                    .is_none()
                    .then(|| name.len() as u64 + smallest(property) + 4)
            });
            2 + required.sum::<u64>()
        }
    }
}

/// The length of the longest allowed value, when values are enumerated.
fn enumerated(schema: &Node) -> Option<u64> {
    let checks = schema.checks()?;
    if checks.max_length.is_some() {
        return None;
    }
    let texts = checks.enumeration.iter().filter_map(Value::as_str);
    texts.map(|text| text.len() as u64).max()
}

/// About the size of a value as JSON.
fn bytes(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(|item| bytes(item) + 1).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| name.len() as u64 + bytes(value) + 1)
            .sum(),
    }
}
