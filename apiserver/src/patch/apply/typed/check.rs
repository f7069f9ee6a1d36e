//! Whether a configuration can be applied: declared fields, right types, no item twice.

use serde_json::Value;

use super::super::element::Element;
use super::{List, Shape, Type};
use crate::schema::{Kind, render};

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Problem {
    /// Where, as in `.spec.ports[port=80]`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with `value`.
pub(in super::super) fn check(ty: Type<'_>, value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(ty, value, &mut String::new(), &mut problems);
    problems
}

fn walk(ty: Type<'_>, value: &Value, path: &mut String, problems: &mut Vec<Problem>) {
    let mut report = |message: String| {
        problems.push(Problem {
            path: path.clone(),
            message,
        });
    };
    let ty = match ty {
        Type::Undeclared => return report("field not declared in schema".to_owned()),
        Type::Deduced => return,
        Type::Schema(schema) => {
            if let Some(expected) = mismatch(schema.kind(), value) {
                return report(format!("expected {expected}, got {}", render::value(value)));
            }
            ty
        }
    };
    match (value, ty.shape(value)) {
        (Value::Object(map), _) => {
            for (name, value) in map {
                below(
                    ty.field(name).0,
                    value,
                    &Element::field(name),
                    path,
                    problems,
                );
            }
        }
        (Value::Array(items), Shape::List(list)) => walk_list(list, items, path, problems),
        (Value::Array(items), _) => {
            let Type::Schema(schema) = ty else {
                return;
            };
            let item_type = schema
                .items()
                .map_or(Type::Deduced, |schema| Type::Schema(schema));
            for (i, item) in items.iter().enumerate() {
                below(item_type, item, &Element::Index(i), path, problems);
            }
        }
        _ => {}
    }
}

fn walk_list(list: List<'_>, items: &[Value], path: &mut String, problems: &mut Vec<Problem>) {
    let mut seen = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        match list.element(item) {
            Ok(element) => {
                below(list.item_type(), item, &element, path, problems);
                seen.push(element);
            }
            Err(error) => problems.push(Problem {
                path: path.clone(),
                message: format!("element {i}: {error}"),
            }),
        }
    }
    seen.sort();
    let mut repeated: Vec<_> = seen
        .windows(2)
        .filter_map(|pair| match pair {
            [a, b] if a == b => Some(a),
            _ => None,
        })
        .collect();
    repeated.dedup();
    for element in repeated {
        problems.push(Problem {
            path: path.clone(),
            message: format!("duplicate entries for key {element}"),
        });
    }
}

fn below(
    ty: Type<'_>,
    value: &Value,
    element: &Element,
    path: &mut String,
    problems: &mut Vec<Problem>,
) {
    let length = path.len();
    path.push_str(&element.to_string());
    walk(ty, value, path, problems);
    path.truncate(length);
}

/// What was expected instead of `value`, when it has the wrong type.
fn mismatch(kind: Kind, value: &Value) -> Option<&'static str> {
    if value.is_null() {
        return None;
    }
    let (expected, fits) = match kind {
        Kind::Any => return None,
        Kind::Object => ("map", value.is_object()),
        Kind::Array => ("list", value.is_array()),
        Kind::String => ("string", value.is_string()),
        Kind::Integer | Kind::Number => ("numeric (int or float)", value.is_number()),
        Kind::Boolean => ("boolean", value.is_boolean()),
        Kind::IntOrString | Kind::Quantity => {
            ("any scalar", !value.is_object() && !value.is_array())
        }
    };
    (!fits).then_some(expected)
}
