//! Fingerprints of JSON text: equal values have equal ones, however their members are ordered and spaced,
//! so a value can be recognised later by eight bytes. They are for noticing edits, not for keeping anybody
//! out: whoever wants two values with one fingerprint can find them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The fingerprint of a JSON value, as 16 hexadecimal digits; `None` when the text is not one value.
pub fn of(text: &str) -> Option<String> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let hash = Hash.deserialize(&mut parser).ok()?;
    parser.end().ok()?;
    Some(format!("{hash:016x}"))
}

/// FNV-1a over 64 bits.
fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of a scalar or of the parts of a value, told apart by its kind.
fn tagged(kind: u8, bytes: &[u8]) -> u64 {
    fnv(fnv(BASIS, &[kind]), bytes)
}

/// Hashes the next value.
struct Hash;

impl<'de> DeserializeSeed<'de> for Hash {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Hash {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<u64, E> {
        Ok(tagged(b'b', &[u8::from(value)]))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        Ok(tagged(b'i', &value.to_le_bytes()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        // The same kind as signed numbers: which of the two a parser picks is its own affair.
        Ok(tagged(b'i', &value.to_le_bytes()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        Ok(tagged(b'f', &value.to_bits().to_le_bytes()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        Ok(tagged(b's', value.as_bytes()))
    }

    fn visit_unit<E: Error>(self) -> Result<u64, E> {
        Ok(tagged(b'n', &[]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut hash = tagged(b'[', &[]);
        while let Some(item) = items.next_element_seed(Self)? {
            hash = fnv(hash, &item.to_le_bytes());
        }
        Ok(hash)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u64, A::Error> {
        // A sum does not depend on the order of its terms.
        let mut sum = 0_u64;
        while let Some(name) = members.next_key_seed(Self)? {
            let member = members.next_value_seed(Self)?;
            sum = sum.wrapping_add(fnv(
                tagged(b':', &name.to_le_bytes()),
                &member.to_le_bytes(),
            ));
        }
        Ok(tagged(b'{', &sum.to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn order_and_space_do_not_matter_and_everything_else_does() {
        let base = of(r#"{"a": [1, 2], "b": {"c": "x", "d": null}}"#).unwrap();
        assert_eq!(base.len(), 16);
        assert_eq!(of(r#"{"b":{"d":null,"c":"x"},"a":[1,2]}"#).unwrap(), base);
        for other in [
            r#"{"a": [2, 1], "b": {"c": "x", "d": null}}"#,
            r#"{"a": [1, 2], "b": {"c": "y", "d": null}}"#,
            r#"{"a": [1, 2], "b": {"c": "x"}}"#,
            r#"{"a": [1, 2, []], "b": {"c": "x", "d": null}}"#,
            r#"{"a": ["1", 2], "b": {"c": "x", "d": null}}"#,
            r#"{"b": [1, 2], "a": {"c": "x", "d": null}}"#,
            r#"{"a": [1, 2], "b": {"d": "x", "c": null}}"#,
        ] {
            assert_ne!(of(other).unwrap(), base, "{other}");
        }
        assert_eq!(of("{"), None);
        assert_eq!(of("{} {}"), None);
    }

    #[test]
    fn what_is_recorded_on_pods_stays_valid() {
        // A pod keeps its record over releases of this program.
        assert_eq!(
            of(r#"{"containers":[{"name":"main","image":"python:3.12"}]}"#).unwrap(),
            of(&json!({"containers": [{"image": "python:3.12", "name": "main"}]}).to_string())
                .unwrap()
        );
        assert_eq!(of("true").unwrap(), format!("{:016x}", tagged(b'b', &[1])));
    }

    proptest! {
        #[test]
        fn a_value_has_one_fingerprint(members in prop::collection::btree_map(".{0,4}", any::<i64>(), 0..6)) {
            let forward: Vec<(&String, &i64)> = members.iter().collect();
            let text = |list: &[(&String, &i64)]| {
                let parts: Vec<String> = list
                    .iter()
                    .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
                    .collect();
                format!("{{{}}}", parts.join(", "))
            };
            let backward: Vec<(&String, &i64)> = forward.iter().rev().copied().collect();
            prop_assert_eq!(of(&text(&forward)), of(&text(&backward)));
            prop_assert!(of(&text(&forward)).is_some());
        }
    }
}
