//! One step of a path in a set of fields: a field name, an item of a list by its keys or its value.
//!
//! Printed in two forms: as a key of `fieldsV1` (`f:spec`, `k:{"name":"a"}`, `v:"x"`, `i:0`) and in
//! conflict messages (`.spec`, `[name="a"]`, `[="x"]`).

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

use crate::schema::render;

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of an object or map.
    Field(Box<str>),
    /// The item of a list whose key fields have these values, sorted by name.
    Key(Box<[(Box<str>, Scalar)]>),
    /// The item of a set that is this value.
    Value(Scalar),
    /// An item by its place.
    Index(usize),
}

/// A key of `fieldsV1` that is not a path element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid field {0:?}: expected f:, k:, v: or i: and a name, keys, value or index")]
pub struct ElementError(String);

impl Element {
    /// The field `name`.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Parses a key of `fieldsV1`. Kinds of keys that are not known are `Ok(None)`: a newer server
    /// may have written them.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ElementError> {
        let error = || ElementError(text.to_owned());
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(error());
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|_| error());
        Ok(Some(match kind {
            "f" => Self::field(rest),
            "v" => Self::Value(Scalar(json()?)),
            "i" => Self::Index(rest.parse().map_err(|_| error())?),
            "k" => match json()? {
                Value::Object(map) => Self::key(
                    map.into_iter()
                        .map(|(name, value)| (name.into_boxed_str(), value)),
                ),
                _ => return Err(error()),
            },
            _ if kind.len() == 1 => return Ok(None),
            _ => return Err(error()),
        }))
    }

    /// The item with these key fields.
    pub(super) fn key(fields: impl IntoIterator<Item = (Box<str>, Value)>) -> Self {
        let mut fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (name, Scalar(value)))
            .collect();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::Key(fields.into())
    }

    /// The key of `fieldsV1`.
    pub(super) fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.0.clone()))
                    .collect();
                format!("k:{}", render::json(&Value::Object(fields)))
            }
            Self::Value(value) => format!("v:{}", render::json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", render::value(&value.0))?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", render::value(&value.0)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A JSON value with an order: numbers by size whatever their form, then strings, then the rest.
#[derive(Debug, Clone)]
pub struct Scalar(pub Value);

impl Scalar {
    const fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => {
                if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
                    a.cmp(&b)
                } else {
                    let float = |n: &Number| n.as_f64().unwrap_or(f64::INFINITY);
                    float(a).total_cmp(&float(b))
                }
            }
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
                render::json(&self.0).cmp(&render::json(&other.0))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms() {
        let key = Element::key([("port".into(), json!(80)), ("name".into(), json!("a"))]);
        for (element, text, shown) in [
            (Element::field("a.b/c"), "f:a.b/c", ".a.b/c"),
            (key, r#"k:{"name":"a","port":80}"#, r#"[name="a",port=80]"#),
            (Element::Value(Scalar(json!("x"))), r#"v:"x""#, r#"[="x"]"#),
            (Element::Index(3), "i:3", "[3]"),
        ] {
            assert_eq!(element.to_key(), text);
            assert_eq!(element.to_string(), shown);
            assert_eq!(Element::parse(text).unwrap().unwrap(), element);
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_and_nonsense_is_refused() {
        assert_eq!(Element::parse("z:1").unwrap(), None);
        for text in ["", "spec", "k:1", "k:{", "v:", "i:x", "ff:x"] {
            assert!(Element::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_order_is_the_published_one() {
        let sorted = [
            Element::field("a"),
            Element::field("b"),
            Element::key([("n".into(), json!(1))]),
            Element::key([("n".into(), json!(1.5))]),
            Element::key([("n".into(), json!("a"))]),
            Element::Value(Scalar(json!(2))),
            Element::Value(Scalar(json!("a"))),
            Element::Value(Scalar(json!(true))),
            Element::Index(0),
        ];
        assert!(sorted.is_sorted());
        assert_eq!(Scalar(json!(1)), Scalar(json!(1.0)));
    }
}
