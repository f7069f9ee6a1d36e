//! The canonical text of a blueprint: what Go's `encoding/json` prints for the typed structures, from untyped JSON.
//!
//! Members come in declaration order and are left out as the table in [`order`](super::order) says; map keys are
//! sorted; quantities are in canonical form. Members that the table does not know, because a newer Kubernetes has them,
//! follow the known ones in the order of their names, so that a change to one changes the hash.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::order::{self, Absent, Kind, Member};
use super::quantity::Quantity;

/// The canonical text of a value of this structure.
pub(super) fn text<T: Serialize>(structure: &str, value: &T) -> String {
    // Blueprints are JSON objects with string keys, which always serialise.
    let value = serde_json::to_value(value).unwrap_or_default();
    render(structure, &value, Quantities::Canonical)
}

/// How quantities are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantities {
    /// As Kubernetes prints them: with the kind of suffix they were written with.
    Canonical,
    /// By value: equal amounts print equally, whatever they were written with.
    ByValue,
}

/// The text of an untyped value of this structure.
pub(super) fn render(structure: &str, value: &Value, quantities: Quantities) -> String {
    let mut printer = Printer {
        out: String::new(),
        quantities,
    };
    printer.structure(structure, value);
    printer.out
}

struct Printer {
    out: String,
    quantities: Quantities,
}

impl Printer {
    fn structure(&mut self, structure: &str, value: &Value) {
        if structure == order::QUANTITY {
            return self.quantity(value);
        }
        let Some(map) = value.as_object() else {
            return self.plain(value);
        };
        let known = order::members(structure);
        let mut members = Separator::new();
        self.out.push('{');
        for member in known {
            self.member(&mut members, member, map);
        }
        let newer: BTreeMap<_, _> = map
            .iter()
            .filter(|(name, value)| {
                !value.is_null() && known.iter().all(|m| m.name != name.as_str())
            })
            .collect();
        for (name, value) in newer {
            self.name(&mut members, name);
            self.plain(value);
        }
        self.out.push('}');
    }

    fn member(&mut self, members: &mut Separator, member: &Member, map: &Map<String, Value>) {
        let value = map.get(member.name).filter(|value| !value.is_null());
        match (value, member.absent) {
            (Some(value), absent) if absent != Absent::Omitted || !is_zero(member.kind, value) => {
                self.name(members, member.name);
                self.value(member.kind, value);
            }
            (_, Absent::Omitted) => {}
            (_, absent) => {
                self.name(members, member.name);
                match (absent, member.kind) {
                    (Absent::Text(text), _) => self.out.push_str(text),
                    (Absent::Empty, Kind::Object(structure)) => {
                        self.structure(structure, &Value::Object(Map::new()));
                    }
                    _ => self.out.push_str("null"),
                }
            }
        }
    }

    fn value(&mut self, kind: Kind, value: &Value) {
        match (kind, value) {
            (Kind::Object(structure), value) => self.structure(structure, value),
            (Kind::List(Some(structure)), Value::Array(items)) => {
                let mut between = Separator::new();
                self.out.push('[');
                for item in items {
                    between.write(&mut self.out);
                    self.structure(structure, item);
                }
                self.out.push(']');
            }
            (Kind::Map { quantities: true }, Value::Object(map)) => {
                self.map(map, Self::quantity);
            }
            (_, value) => self.plain(value),
        }
    }

    /// Prints a value that has no structure of its own.
    fn plain(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                let mut between = Separator::new();
                self.out.push('[');
                for item in items {
                    between.write(&mut self.out);
                    self.plain(item);
                }
                self.out.push(']');
            }
            Value::Object(map) => self.map(map, Self::plain),
            other => self.out.push_str(&other.to_string()),
        }
    }

    fn map(&mut self, map: &Map<String, Value>, print: impl Fn(&mut Self, &Value)) {
        let sorted: BTreeMap<_, _> = map.iter().collect();
        let mut members = Separator::new();
        self.out.push('{');
        for (key, value) in sorted {
            self.name(&mut members, key);
            print(self, value);
        }
        self.out.push('}');
    }

    /// Prints a quantity; one that is not a quantity stays as it was written.
    fn quantity(&mut self, value: &Value) {
        let written = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            // A quantity that is always printed and has no value.
            Value::Object(map) if map.is_empty() => "0".to_owned(),
            other => return self.plain(other),
        };
        let printed = Quantity::parse(&written).map(|quantity| match self.quantities {
            Quantities::Canonical => quantity.canonical(),
            Quantities::ByValue => quantity.by_value(),
        });
        self.string(&printed.unwrap_or(written));
    }

    fn name(&mut self, members: &mut Separator, name: &str) {
        members.write(&mut self.out);
        self.string(name);
        self.out.push(':');
    }

    /// Prints a string with the escapes of Go's encoder, which protects HTML and JavaScript as well.
    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.out.extend(["\\u", &format!("{:04x}", u32::from(c))]);
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Writes a comma before every item but the first.
struct Separator {
    first: bool,
}

impl Separator {
    fn new() -> Self {
        Self { first: true }
    }

    fn write(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.first) {
            out.push(',');
        }
    }
}

/// Whether a value that may be left out is the one that is.
fn is_zero(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Scalar, Value::String(text)) => text.is_empty(),
        (Kind::Scalar, Value::Bool(flag)) => !flag,
        (Kind::Scalar, Value::Number(number)) => number.as_f64() == Some(0.0),
        (Kind::List(_), Value::Array(items)) => items.is_empty(),
        (Kind::Map { .. }, Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}
