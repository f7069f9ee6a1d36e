//! Regular expressions as the API server understands them: Go's RE2 syntax.
//!
//! Used for `pattern` in schemas. The `regex` crate is RE2-like; the differences that matter are
//! translated: classes such as `\d` are ASCII, a `[` inside of a class is literal, a `{` that starts no
//! repetition is literal, `\Q...\E` quotes.

use std::fmt;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Compiled size above which a pattern is refused, in bytes; Go refuses at a comparable program size.
const SIZE_LIMIT: usize = 4 << 20;

/// A compiled pattern.
pub(super) struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// A pattern that is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct PatternError(String);

impl Pattern {
    /// Compiles `text`.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(&translate(text))
            .size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| PatternError(last_line(&error.to_string())))?;
        Ok(Self {
            text: text.into(),
            regex,
        })
    }

    /// The pattern as written in the schema.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern occurs in `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

/// The last line of the crate's multi-line report, which says what is wrong.
fn last_line(report: &str) -> String {
    let line = report.lines().last().unwrap_or(report).trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Go syntax to the syntax of the `regex` crate.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => translate_escape(&mut rest, Place::Outside, &mut out),
            '[' => translate_class(&mut rest, &mut out),
            '{' if !starts_repetition(rest.as_str()) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    out
}

/// A character class after its `[`.
fn translate_class(rest: &mut Chars<'_>, out: &mut String) {
    out.push('[');
    // A leading `^`, and a `]` right after it, belong to the opening.
    if rest.as_str().starts_with('^') {
        rest.next();
        out.push('^');
    }
    // Whether the last item can start a range.
    let mut starts_range = false;
    if rest.as_str().starts_with(']') {
        rest.next();
        out.push_str("\\]");
        starts_range = true;
    }
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '-' if starts_range && !rest.as_str().starts_with(']') => {
                out.push('-');
                if rest.as_str().starts_with('-') {
                    rest.next();
                    out.push_str("\\-");
                }
                starts_range = false;
                continue;
            }
            '\\' => translate_escape(rest, Place::Class, out),
            '[' => {
                if let Some(name) = posix_class(rest.as_str()) {
                    out.push('[');
                    out.push_str(name);
                    for _ in name.chars() {
                        rest.next();
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            // Doubled, these are set operations in the crate and plain characters in Go.
            '&' | '~' | '-' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        starts_range = true;
    }
}

/// Where an escape stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Class,
}

/// The escape after a backslash.
fn translate_escape(rest: &mut Chars<'_>, place: Place, out: &mut String) {
    let Some(c) = rest.next() else {
        out.push('\\');
        return;
    };
    let ascii = match c {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'b' if place == Place::Outside => "(?-u:\\b)",
        'B' if place == Place::Outside => "(?-u:\\B)",
        'Q' => {
            let text = rest.as_str();
            let (quoted, after) = text.split_once("\\E").unwrap_or((text, ""));
            out.push_str(&regex::escape(quoted));
            *rest = after.chars();
            return;
        }
        c => {
            out.push('\\');
            out.push(c);
            return;
        }
    };
    out.push_str(ascii);
}

/// `:alpha:]` and the like at the start of `text`.
fn posix_class(text: &str) -> Option<&str> {
    let inner = text.strip_prefix(':')?;
    let end = inner.find(":]")?;
    let name = inner.get(..end)?;
    let name_chars = name.strip_prefix('^').unwrap_or(name);
    (!name_chars.is_empty() && name_chars.bytes().all(|b| b.is_ascii_lowercase()))
        .then(|| text.get(..end + 3))
        .flatten()
}

/// Whether `text`, which follows a `{`, is the rest of `{n}`, `{n,}` or `{n,m}`.
fn starts_repetition(text: &str) -> bool {
    let Some((inside, _)) = text.split_once('}') else {
        return false;
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        None => digits(inside),
        Some((min, max)) => digits(min) && (max.is_empty() || digits(max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "é", false),
            (r"^.$", "é", true),
            (r"^[a[]+$", "a[[", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]+$", "b", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[+--]+$", "+,-", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{1,2}$", "aa", true),
            (r"^{$", "{", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[\d-]+$", "1-2", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\pL+$", "é", true),
            (
                r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                "example.com/Ready",
                true,
            ),
            (r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "9x", false),
        ];
        for (pattern, text, expected) in cases {
            let compiled = Pattern::parse(pattern).unwrap();
            assert_eq!(compiled.matches(text), expected, "{pattern} on {text}");
            assert_eq!(compiled.as_str(), pattern);
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in ["(", "[z-a]", "*a", r"(?=x)", r"\1", "[", "\\"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
