//! JSON kept as compact text. Pod templates must survive with every field the user wrote, known to
//! our types or not, yet a tree of values costs ten times its text. [`JsonText`] copies a value from
//! any deserializer into text in one pass; equal values from one server have equal text, so they
//! intern.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A JSON value in its compact text form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JsonText(pub String);

impl JsonText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Vec::new();
        Copy(&mut text).deserialize(deserializer)?;
        String::from_utf8(text).map(Self).map_err(D::Error::custom)
    }
}

/// Copies the next value to the end of the buffer.
struct Copy<'a>(&'a mut Vec<u8>);

impl Copy<'_> {
    fn scalar<E: Error>(self, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        serde_json::to_writer(self.0, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(&value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(&())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.scalar(&())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let start = self.0.len();
        loop {
            let end = self.0.len();
            if end > start {
                self.0.push(b',');
            }
            if items.next_element_seed(Copy(self.0))?.is_none() {
                self.0.truncate(end);
                break;
            }
        }
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        let start = self.0.len();
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            if self.0.len() > start {
                self.0.push(b',');
            }
            Copy(self.0).scalar::<A::Error>(&*name)?;
            self.0.push(b':');
            members.next_value_seed(Copy(self.0))?;
        }
        self.0.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_value_becomes_its_compact_text() {
        let source = r#" { "a" : [ 1, -2, 3.5, [ ], {} ], "b" : { "c" : null, "d\n" : "x\"y" }, "e": true } "#;
        let copied: JsonText = serde_json::from_str(source).unwrap();
        assert_eq!(
            copied.as_str(),
            r#"{"a":[1,-2,3.5,[],{}],"b":{"c":null,"d\n":"x\"y"},"e":true}"#
        );
        let from_value: JsonText =
            serde_json::from_value(serde_json::from_str::<Value>(source).unwrap()).unwrap();
        assert_eq!(from_value, copied);
    }

    #[test]
    fn broken_input_is_an_error() {
        assert!(serde_json::from_str::<JsonText>("{\"a\":").is_err());
        assert!(serde_json::from_str::<JsonText>("[1,]").is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(|v| json!(v)),
            any::<i64>().prop_map(|v| json!(v)),
            any::<String>().prop_map(|v| json!(v)),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|v| json!(v)),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|v| json!(v)),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost(value in value()) {
            let text = value.to_string();
            let copied: JsonText = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(copied.as_str()).unwrap(), value);
        }
    }
}
