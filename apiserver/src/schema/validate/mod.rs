//! Validation of values against a schema, with the messages kubectl users know.
//!
//! A pure walk over (schema, new value, old value). What an update leaves as it was is not refused
//! again, even if the schema has become stricter since ("ratcheting"). The checks and texts follow
//! the published behaviour of `apiextensions.k8s.io/v1`; CEL rules are [`super::Rules`]' business.

mod junctors;
mod scalars;

use serde_json::{Map, Value};

use super::correlate::OldItems;
use super::embedded;
use super::error::{FieldError, FieldReason};
use super::format::Format;
use super::lists;
use super::path::Path;
use super::render;
use super::structural::{Checks, Kind, Node, Structural};
use crate::format::quantity::Quantity;

/// Checks `new` against the schema. With `old`, values that did not change are not refused again.
pub fn validate(schema: &Structural, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk::default();
    walk.value(schema, new, old, &Path::ROOT);
    let mut errors = walk.errors;
    embedded::check(schema, new, &Path::ROOT, &mut errors);
    let mut old_duplicates = Vec::new();
    if let Some(old) = old {
        lists::check(schema, old, &Path::ROOT, &mut old_duplicates);
    }
    if old_duplicates.is_empty() {
        lists::check(schema, new, &Path::ROOT, &mut errors);
    }
    errors
}

/// The error to add instead of evaluating rules, when `errors` makes rules meaningless.
pub fn blocks_rules(errors: &[FieldError]) -> Option<FieldError> {
    errors
        .iter()
        .any(|error| {
            matches!(
                error.reason,
                FieldReason::NotSupported
                    | FieldReason::Required
                    | FieldReason::TooLong
                    | FieldReason::TooMany
                    | FieldReason::TypeInvalid
            )
        })
        .then(|| {
            FieldError::invalid(
                "",
                &Value::Null,
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            )
        })
}

/// Checks a value that is not part of an object yet, such as a default.
pub(super) fn standalone(schema: &Node, value: &Value) -> Vec<FieldError> {
    let mut walk = Walk::default();
    walk.value(schema, value, None, &Path::ROOT);
    embedded::check(schema, value, &Path::ROOT, &mut walk.errors);
    walk.errors
}

/// Collects errors, and how many checks ran: alternatives are compared by that.
#[derive(Debug, Default)]
struct Walk {
    errors: Vec<FieldError>,
    checked: usize,
}

impl Walk {
    fn value(&mut self, schema: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        let start = self.errors.len();
        self.check(schema, value, old, path);
        if self.errors.len() > start && old == Some(value) {
            self.errors.truncate(start);
        }
    }

    fn check(&mut self, schema: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        self.kind(schema, value, path);
        let checks = schema.checks();
        if value.is_null() {
            if let Some(checks) = checks {
                self.enumeration(checks, value, path);
            }
            return;
        }
        if let Some(checks) = checks {
            self.junctors(checks, value, path);
            self.scalar(checks, value, path);
        }
        self.format(schema, value, path);
        if let Value::Number(number) = value {
            self.range(schema, number, path);
        }
        if let Value::Array(items) = value {
            self.items(schema, items, old, path);
        }
        if let Some(checks) = checks {
            self.enumeration(checks, value, path);
        }
        if let Value::Object(map) = value {
            self.object(schema, map, old, path);
        }
    }

    /// The type, and for values that are no strings also the format.
    fn kind(&mut self, schema: &Node, value: &Value, path: &Path<'_>) {
        if schema.kind == Kind::Any && schema.format == Format::None {
            return;
        }
        let actual = Actual::of(value);
        if value.is_null() {
            if schema.kind != Kind::Any && !schema.nullable {
                self.wrong_type(path, schema.kind.as_str(), "null");
            }
            return;
        }
        if actual.fits(schema.kind) {
            self.checked += 1;
            return;
        }
        match value {
            Value::String(_) | Value::Array(_) => {
                if schema.kind != Kind::Any {
                    self.wrong_type(path, schema.kind.as_str(), actual.kind);
                }
            }
            _ if schema.format != Format::None => {
                self.wrong_type(path, schema.format.as_str(), actual.format);
            }
            _ => self.wrong_type(path, schema.kind.as_str(), actual.kind),
        }
    }

    fn wrong_type(&mut self, path: &Path<'_>, expected: &str, actual: &str) {
        self.errors.push(FieldError::type_invalid(
            path,
            &Value::String(actual.to_owned()),
            format_args!(
                "{path} in body must be of type {expected}: {}",
                render::quote(actual)
            ),
        ));
    }

    /// The format of a string.
    fn format(&mut self, schema: &Node, value: &Value, path: &Path<'_>) {
        let Value::String(text) = value else {
            return;
        };
        let name = if schema.kind == Kind::Quantity {
            if Quantity::parse(text).is_ok() {
                return;
            }
            "quantity"
        } else if schema.format == Format::None || schema.format.accepts(text) {
            return;
        } else {
            schema.format.as_str()
        };
        self.errors.push(FieldError::type_invalid(
            path,
            value,
            format_args!(
                "{path} in body must be of type {name}: {}",
                render::quote(text)
            ),
        ));
    }

    fn enumeration(&mut self, checks: &Checks, value: &Value, path: &Path<'_>) {
        if checks.enumeration.is_empty() {
            return;
        }
        self.checked += 1;
        if checks
            .enumeration
            .iter()
            .any(|allowed| same(allowed, value))
        {
            return;
        }
        let allowed: Vec<String> = checks
            .enumeration
            .iter()
            .map(|allowed| match allowed {
                Value::String(text) => text.clone(),
                other => render::json(other),
            })
            .collect();
        self.errors.push(FieldError::not_supported(
            path,
            value,
            allowed.iter().map(String::as_str),
        ));
    }

    fn items(&mut self, schema: &Node, items: &[Value], old: Option<&Value>, path: &Path<'_>) {
        if let Some(item_schema) = schema.items() {
            let old_items = OldItems::of(schema, old);
            for (i, item) in items.iter().enumerate() {
                let old = old_items.get(schema, item);
                self.value(item_schema, item, old, &path.index(i));
            }
        }
        let Some(checks) = schema.checks() else {
            return;
        };
        let length = items.len();
        if let Some(min) = checks.min_items
            && (length as u64) < min
        {
            self.errors.push(FieldError::invalid(
                path,
                &Value::from(length),
                format_args!("{path} in body should have at least {min} items"),
            ));
        }
        if let Some(max) = checks.max_items
            && length as u64 > max
        {
            self.errors.push(FieldError::too_many(path, length, max));
        }
        if checks.unique_items {
            let mut texts: Vec<_> = items.iter().map(render::json).collect();
            texts.sort_unstable();
            texts.dedup();
            if texts.len() < length {
                self.errors.push(FieldError::invalid(
                    path,
                    &Value::String(String::new()),
                    format_args!("{path} in body shouldn't contain duplicates"),
                ));
            }
        }
        self.checked += 1;
    }

    fn object(
        &mut self,
        schema: &Node,
        map: &Map<String, Value>,
        old: Option<&Value>,
        path: &Path<'_>,
    ) {
        if let Some(checks) = schema.checks() {
            self.sizes(checks, map, path);
        }
        let old = old.and_then(Value::as_object);
        for (name, value) in map {
            if let Some(schema) = schema.child(name) {
                let old = old.and_then(|old| old.get(name));
                self.value(schema, value, old, &path.field(name));
            }
        }
        for name in schema.required() {
            if !map.contains_key(&**name) {
                self.errors.push(FieldError::required(path.field(name), ""));
            }
        }
        self.checked += 1;
    }

    /// How many entries a map may have.
    fn sizes(&mut self, checks: &Checks, map: &Map<String, Value>, path: &Path<'_>) {
        let length = map.len();
        if let Some(min) = checks.min_properties
            && (length as u64) < min
        {
            self.errors.push(FieldError::invalid(
                path,
                &Value::from(length),
                format_args!("{path} in body should have at least {min} properties"),
            ));
        }
        if let Some(max) = checks.max_properties
            && length as u64 > max
        {
            self.errors.push(FieldError::too_many(path, length, max));
        }
    }
}

/// The type and number format of a value, as messages name them.
struct Actual {
    kind: &'static str,
    format: &'static str,
    /// Whether a number has no fraction and is exact as a float.
    integral: bool,
}

impl Actual {
    fn of(value: &Value) -> Self {
        let (kind, format, integral) = match value {
            Value::Null => ("null", "", false),
            Value::Bool(_) => ("boolean", "", false),
            Value::String(_) => ("string", "", false),
            Value::Array(_) => ("array", "", false),
            Value::Object(_) => ("object", "", false),
            Value::Number(n) if n.is_i64() => ("integer", "int64", true),
            Value::Number(n) => {
                const EXACT: f64 = 9_007_199_254_740_991.0;
                let integral = n
                    .as_f64()
                    .is_some_and(|f| f.fract() == 0.0 && f.abs() <= EXACT);
                ("number", "float64", integral)
            }
        };
        Self {
            kind,
            format,
            integral,
        }
    }

    fn fits(&self, kind: Kind) -> bool {
        let number = matches!(self.kind, "integer" | "number");
        match kind {
            Kind::Any => false,
            Kind::Object => self.kind == "object",
            Kind::Array => self.kind == "array",
            Kind::String => self.kind == "string",
            Kind::Boolean => self.kind == "boolean",
            Kind::Integer => self.integral,
            Kind::Number => number,
            Kind::IntOrString => self.integral || self.kind == "string",
            Kind::Quantity => number || self.kind == "string",
        }
    }
}

/// Equality where 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
