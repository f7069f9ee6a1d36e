//! Values as Kubernetes prints them in messages: Go's quoting, number and JSON formats.
//!
//! Clients compare and show these texts, so they are part of the behaviour. Used by
//! [`super::error`] and by the patches; never used for data that is stored or sent as an object.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// `text` in double quotes with Go's escapes.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                write_or_ignore(write!(out, "\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A floating-point number with Go's `%v`: shortest digits, exponent below 1e-4 and from 1e21.
pub(crate) fn float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let Some((digits, exponent)) = text.split_once('e') else {
            return text;
        };
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    if value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    value.to_string()
}

/// A JSON number with Go's `%v`.
pub(crate) fn number(value: &Number) -> String {
    if value.is_f64() {
        value.as_f64().map_or_else(|| value.to_string(), float)
    } else {
        value.to_string()
    }
}

/// A value as a field error shows it.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(n) => number(n),
        other => json(other),
    }
}

/// Compact JSON with sorted keys and Go's escapes of `<`, `>` and `&`.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_json(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_string(text, out),
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(n) => out.push_str(&number(n)),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write_or_ignore(write!(out, "\\u{:04x}", c as u32));
            }
            c if (c as u32) < 0x20 => write_or_ignore(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writing to a string cannot fail.
const fn write_or_ignore(_result: std::fmt::Result) {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_look_like_go() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (-1.25, "-1.25"),
            (100_000.0, "100000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn values_look_like_go() {
        assert_eq!(value(&json!("a\"b\nc")), r#""a\"b\nc""#);
        assert_eq!(value(&json!(true)), "true");
        assert_eq!(value(&json!(null)), "null");
        assert_eq!(
            value(&json!({"b": [1, 2.0], "a": "<x>"})),
            r#"{"a":"\u003cx\u003e","b":[1,2]}"#
        );
    }
}
