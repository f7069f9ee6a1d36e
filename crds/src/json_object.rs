//! A JSON object kept as its text: what a user wrote, byte for byte in meaning, whatever its fields are.
//!
//! Pod specs, volume claim specs and network policy rules are carried this way through our resource types, so that a
//! field newer than the Kubernetes types we compile against survives, and so that a malformed value inside one object
//! can never stop a whole watch from decoding. A clone is a reference count.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// An immutable JSON object, cheap to clone.
#[derive(Clone)]
pub struct JsonObject {
    /// Compact JSON of an object. Every constructor writes it from a parsed map, so it always parses.
    text: Arc<str>,
}

impl JsonObject {
    /// Keeps a map as an object.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        // Printing a map of JSON values cannot fail: keys are strings and numbers are finite.
        let text = serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned());
        Self { text: text.into() }
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

    /// The object's compact JSON text. Equal objects may have different texts (member order).
    pub fn text(&self) -> &Arc<str> {
        &self.text
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

#[cfg(test)]
mod tests {
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
}
