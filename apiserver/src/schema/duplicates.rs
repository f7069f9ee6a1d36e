//! Fields that a JSON text has twice.
//!
//! Parsed values keep only one of them, so this reads the bytes of a request body. Called by strict
//! field validation before the body is used.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::path::Path;

/// The repeated fields of a JSON text, as the warnings `duplicate field "spec.x"`, in their order.
///
/// Fails only when `json` is not JSON.
pub fn duplicate_fields(json: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walk = Walk {
        path: &Path::ROOT,
        found: &mut found,
    };
    walk.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// Reads one value.
struct Walk<'a> {
    path: &'a Path<'a>,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let path = self.path.index(index);
            let walk = Walk {
                path: &path,
                found: &mut *self.found,
            };
            if items.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = self.path.field(&name);
            if seen.get(&name) == Some(&1) {
                self.found.push(format!("duplicate field \"{path}\""));
            }
            fields.next_value_seed(Walk {
                path: &path,
                found: &mut *self.found,
            })?;
            *seen.entry(name).or_default() += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_repeated_field_once() {
        let json = br#"{"a": 1, "b": {"c": [{"d": null, "d": "x", "d": 2.5}, true]}, "a": -1}"#;
        assert_eq!(
            duplicate_fields(json).unwrap(),
            [r#"duplicate field "b.c[0].d""#, r#"duplicate field "a""#,]
        );
        assert!(
            duplicate_fields(b"{\"a\": {\"a\": [[{}]]}}")
                .unwrap()
                .is_empty()
        );
        assert!(duplicate_fields(b"{\"a\"").is_err());
        assert!(duplicate_fields(b"{} {}").is_err());
    }
}
