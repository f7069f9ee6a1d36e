//! Printing of definitions as YAML that reads well in a review and never changes without cause.
//!
//! Block style throughout; strings are plain where YAML reads them back as themselves and JSON-quoted elsewhere.

use serde::Serialize;
use serde_json::Value;

/// A value as a YAML document.
pub(crate) fn print<T: Serialize>(value: &T) -> String {
    let mut out = String::new();
    // Definitions have string keys and finite numbers, so they are always JSON.
    let value = serde_json::to_value(value).unwrap_or_default();
    block(&mut out, &value, 0);
    out
}

/// Prints a value on lines of its own, each ending in a newline.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                pad(out, indent);
                entry(out, key, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(out, indent);
                out.push_str("- ");
                match item {
                    // The first member shares the line of the dash.
                    Value::Object(map) if !map.is_empty() => {
                        for (at, (key, value)) in map.iter().enumerate() {
                            if at > 0 {
                                pad(out, indent + 2);
                            }
                            entry(out, key, value, indent + 2);
                        }
                    }
                    other => {
                        scalar(out, other);
                        out.push('\n');
                    }
                }
            }
        }
        other => {
            pad(out, indent);
            scalar(out, other);
            out.push('\n');
        }
    }
}

fn entry(out: &mut String, key: &str, value: &Value, indent: usize) {
    text(out, key);
    out.push(':');
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(out, value, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(out, value, indent);
        }
        other => {
            out.push(' ');
            scalar(out, other);
            out.push('\n');
        }
    }
}

/// Prints a scalar, an empty collection, or a list inside a list, in flow style.
fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(string) => text(out, string),
        other => out.push_str(&other.to_string()),
    }
}

fn text(out: &mut String, string: &str) {
    if is_plain(string) {
        out.push_str(string);
    } else {
        out.push_str(&Value::from(string).to_string());
    }
}

/// Whether YAML, 1.1 as well as 1.2, reads the bare text as this very string.
fn is_plain(string: &str) -> bool {
    const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '.' | '/');
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    string.starts_with(first)
        && string.chars().all(rest)
        && string.contains(|c: char| c.is_ascii_alphabetic())
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
        && !matches!(string.to_ascii_lowercase().as_str(), ".inf" | ".nan")
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_as_expected() {
        let value = json!({
            "a": { "b": [], "c": {}, "d": [{ "x": 1, "z": ["on", "e e"] }, "plain", [1, 2]] },
            "x-kubernetes-map-type": "atomic",
            "1": true,
        });
        let expected = "\
a:
  b: []
  c: {}
  d:
  - x: 1
    z:
    - \"on\"
    - \"e e\"
  - plain
  - [1,2]
x-kubernetes-map-type: atomic
\"1\": true
";
        assert_eq!(print(&value), expected);
    }

    fn values() -> impl Strategy<Value = Value> {
        let string = prop_oneof![
            "[a-zA-Z0-9 .:/$#'\"\\\\{}\\[\\],&*!|>%@`~_-]{0,12}",
            "\\PC{0,6}",
            prop::sample::select(vec![
                "true",
                "No",
                "~",
                "1e3",
                "0x1f",
                ".5",
                "1:30",
                "2026-01-01",
                ".nan",
                "="
            ])
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            string.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((string.clone(), inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_value(value in values()) {
            let printed = print(&value);
            let back: Value = serde_saphyr::from_str(&printed).unwrap();
            prop_assert_eq!(back, value, "{}", printed);
        }
    }
}
