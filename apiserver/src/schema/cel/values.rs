//! JSON as the values that rules see.
//!
//! The schema decides: fields have escaped names, formatted strings are times, durations and bytes,
//! numbers are integers or doubles. Of the metadata of an object only the name is visible.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_cel::cel::functions::{duration, timestamp};
use kube_cel::cel::objects::{Key, Map as CelMap, Value as CelValue};
use serde_json::Value;

use super::super::duration as durations;
use super::super::format::Format;
use super::super::render;
use super::super::structural::{Kind, ListType, Node, Structural};
use super::declared::Place;
use super::escape;

/// The value of `json`.
pub(super) fn convert(schema: Option<&Structural>, place: Place, json: &Value) -> CelValue {
    match json {
        Value::Null => CelValue::Null,
        Value::Bool(on) => CelValue::Bool(*on),
        Value::Number(number) => {
            let double = schema.is_some_and(|schema| schema.kind == Kind::Number);
            match (number.as_i64(), number.as_u64()) {
                (Some(int), _) if !double => CelValue::Int(int),
                (None, Some(uint)) if !double => CelValue::UInt(uint),
                _ => whole(schema, number.as_f64().unwrap_or(f64::NAN)),
            }
        }
        Value::String(text) => schema
            .and_then(|schema| formatted(schema, text))
            .unwrap_or_else(|| string(text)),
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items());
            let place = schema.map_or(Place::Field, |schema| Place::of(schema, false));
            let items = items.iter().map(|item| convert(schema, place, item));
            CelValue::List(Arc::new(items.collect()))
        }
        Value::Object(map) => {
            let mut entries = HashMap::with_capacity(map.len());
            for (name, value) in map {
                let property = schema.and_then(|schema| schema.property(name));
                let (key, value) = match (schema, property) {
                    (Some(_), Some(property)) => {
                        if !place.shows(name) {
                            continue;
                        }
                        let Some(escaped) = escape(name) else {
                            continue;
                        };
                        let place = place.property(name, property);
                        (escaped, convert(Some(property), place, value))
                    }
                    (schema, _) => {
                        let schema = schema.and_then(|schema| schema.additional_properties());
                        let place = schema.map_or(Place::Field, |schema| Place::of(schema, false));
                        (name.clone(), convert(schema, place, value))
                    }
                };
                entries.insert(Key::String(Arc::new(key)), value);
            }
            CelValue::Map(CelMap {
                map: Arc::new(entries),
            })
        }
    }
}

/// A whole number that came as a float is an integer where the schema says so.
fn whole(schema: Option<&Structural>, number: f64) -> CelValue {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let integer = schema.is_some_and(|schema| schema.kind == Kind::Integer);
    if integer && number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
        let number = number as i64;
        return CelValue::Int(number);
    }
    CelValue::Float(number)
}

/// The value of a string whose format has a type of its own; `None` when it is just a string.
fn formatted(schema: &Node, text: &str) -> Option<CelValue> {
    if schema.kind != Kind::String {
        return None;
    }
    match schema.format {
        Format::DateTime => timestamp(Arc::new(text.to_uppercase())).ok(),
        Format::Date => timestamp(Arc::new(format!("{text}T00:00:00Z"))).ok(),
        Format::Duration => {
            let nanos = durations::parse(text)?;
            let sign = if nanos < 0 { "-" } else { "" };
            let nanos = nanos.unsigned_abs();
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            duration(Arc::new(format!("{sign}{seconds}s{rest}ns"))).ok()
        }
        Format::Byte => Some(CelValue::Bytes(Arc::new(STANDARD.decode(text).ok()?))),
        _ => None,
    }
}

fn string(text: &str) -> CelValue {
    CelValue::String(Arc::new(text.to_owned()))
}

/// Whether both values are the same, whatever the order in lists of type set and map.
pub(super) fn equal(schema: &Structural, a: &CelValue, b: &CelValue) -> bool {
    match (a, b) {
        (CelValue::List(a), CelValue::List(b)) => {
            a.len() == b.len()
                && match schema.list_type {
                    ListType::Set => {
                        let items: HashSet<String> = b.iter().map(text_of).collect();
                        a.iter().all(|item| items.contains(&text_of(item)))
                    }
                    ListType::Map => equal_by_key(schema, a, b),
                    ListType::Unset | ListType::Atomic => schema.items().map_or(a == b, |items| {
                        a.iter().zip(b.iter()).all(|(a, b)| equal(items, a, b))
                    }),
                }
        }
        (CelValue::Map(a), CelValue::Map(b)) => {
            a.map.len() == b.map.len()
                && a.map.iter().all(|(key, a)| {
                    b.map.get(key).is_some_and(|b| match child(schema, key) {
                        Some(schema) => equal(schema, a, b),
                        None => a == b,
                    })
                })
        }
        _ => a == b,
    }
}

fn equal_by_key(schema: &Structural, a: &[CelValue], b: &[CelValue]) -> bool {
    let Some(items) = schema.items() else {
        return a == b;
    };
    let index = |list: &'_ [CelValue]| -> HashMap<String, usize> {
        list.iter()
            .enumerate()
            .map(|(i, item)| (key_of(schema, item), i))
            .collect()
    };
    let places = index(b);
    a.iter().all(|item| {
        places
            .get(&key_of(schema, item))
            .and_then(|at| b.get(*at))
            .is_some_and(|other| equal(items, item, other))
    })
}

/// A text that equal values share.
fn text_of(value: &CelValue) -> String {
    format!("{value:?}")
}

/// The key fields of an item, as a text.
fn key_of(schema: &Node, item: &CelValue) -> String {
    let CelValue::Map(map) = item else {
        return text_of(item);
    };
    let mut text = String::new();
    for name in schema.list_map_keys() {
        let value = escape(name).and_then(|name| map.map.get(&Key::String(Arc::new(name))));
        text.push_str(&render::quote(&format!("{value:?}")));
    }
    text
}

fn child<'s>(schema: &'s Structural, key: &Key) -> Option<&'s Structural> {
    let Key::String(name) = key else {
        return None;
    };
    schema
        .properties()
        .iter()
        .find(|(raw, _)| escape(raw).as_deref() == Some(name.as_str()))
        .map(|(_, schema)| schema)
        .or_else(|| schema.additional_properties())
}
