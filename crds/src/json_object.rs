//! A JSON object kept as its text: what a user wrote, byte for byte in meaning, whatever its fields are.
//!
//! Pod specs, volume claim specs and network policy rules are carried this way through our resource types, so that a
//! field newer than the Kubernetes types we compile against survives, and so that a malformed value inside one object
//! can never stop a whole watch from decoding. A clone is a reference count. Reading a typed view is explicit
//! ([`JsonObject::decode`]), because it may fail and because it drops what the typed view does not know.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// An immutable JSON object, cheap to clone.
#[derive(Clone)]
pub struct JsonObject {
    /// Compact JSON of an object. Every constructor writes it from a parsed map, so it always parses.
    text: Arc<str>,
}

/// A JSON object does not have the shape a typed reader expects.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}")]
pub struct DecodeError {
    /// The Kubernetes type that was asked for.
    expected: &'static str,
    source: serde_json::Error,
}

impl JsonObject {
    /// Keeps a map as an object.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        // Printing a map of JSON values cannot fail: keys are strings and numbers are finite.
        let text = serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned());
        Self { text: text.into() }
    }

    /// Keeps the serialised form of a typed value, which must serialise to an object.
    pub fn encode<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_value(value).and_then(serde_json::from_value)
    }

    /// The members of the object, parsed.
    pub fn to_map(&self) -> Map<String, Value> {
        // The text was printed from a map, so parsing it cannot fail.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The object as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.to_map())
    }

    /// A typed view. It lacks the fields that `T` does not know, so it is for reading, never for writing back.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_str(&self.text).map_err(|source| DecodeError {
            expected: short_type_name::<T>(),
            source,
        })
    }

    /// A copy with its members changed by `edit`.
    #[must_use]
    pub fn edited(&self, edit: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let mut map = self.to_map();
        edit(&mut map);
        Self::from_map(&map)
    }

    /// The object's compact JSON text. Equal objects may have different texts (member order).
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Uses `other`'s allocation when both texts are the same, so that many objects made from one template cost one copy.
    /// Answers whether they were.
    pub fn share(&mut self, other: &Self) -> bool {
        let same = self.text == other.text;
        if same {
            self.text = Arc::clone(&other.text);
        }
        same
    }
}

impl Default for JsonObject {
    fn default() -> Self {
        Self { text: "{}".into() }
    }
}

impl From<Map<String, Value>> for JsonObject {
    fn from(map: Map<String, Value>) -> Self {
        Self::from_map(&map)
    }
}

/// Equality of meaning: the order of members does not matter, the order of list items does.
impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text)
            || self.text == other.text
            || self.to_map() == other.to_map()
    }
}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|map| Self::from_map(&map))
    }
}

fn short_type_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    full.rsplit("::").next().unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn unknown_members_survive_a_round_trip() {
        let value = json!({"containers": [{"name": "a", "notYetInvented": {"x": [1, null, 2.5]}}], "future": true});
        assert_eq!(serde_json::to_value(object(value.clone())).unwrap(), value);
    }

    #[test]
    fn equality_ignores_member_order_and_keeps_list_order() {
        assert_eq!(
            object(json!({"a": 1, "b": {"c": 1, "d": 2}})),
            object(json!({"b": {"d": 2, "c": 1}, "a": 1}))
        );
        assert_ne!(object(json!({"a": [1, 2]})), object(json!({"a": [2, 1]})));
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for value in [json!(null), json!([]), json!("x"), json!(1)] {
            assert!(serde_json::from_value::<JsonObject>(value).is_err());
        }
    }

    #[test]
    fn a_malformed_typed_view_names_the_type_and_the_cause() {
        let error = object(json!({"containers": "none"}))
            .decode::<PodSpec>()
            .unwrap_err();
        assert_eq!(error.to_string(), "expected PodSpec");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("expected a sequence"), "{cause}");
    }

    #[test]
    fn sharing_replaces_the_allocation_only_when_the_texts_agree() {
        let first = object(json!({"a": 1}));
        let mut second = object(json!({"a": 1}));
        let mut third = object(json!({"a": 2}));
        assert!(second.share(&first) && Arc::ptr_eq(first.text(), second.text()));
        assert!(!third.share(&first));
        assert_eq!(third, object(json!({"a": 2})));
    }

    #[test]
    fn editing_leaves_the_original_alone() {
        let original = object(json!({"a": 1}));
        let edited = original.edited(|map| {
            map.insert("b".into(), json!(2));
        });
        assert_eq!(original, object(json!({"a": 1})));
        assert_eq!(edited, object(json!({"a": 1, "b": 2})));
    }
}
