//! What takes the place of a match, expanded within a limit.

use std::ops::Range;

use regex::bytes::{Captures, Regex};

use super::error::FileError;

/// A replacement, read once for all matches.
#[derive(Debug)]
pub(super) struct Template<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
enum Part<'a> {
    Text(&'a str),
    Group(usize),
}

/// Bytes that do not grow beyond a limit.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) bytes: Vec<u8>,
    /// In bytes.
    pub(super) limit: usize,
}

impl<'a> Template<'a> {
    /// The text itself.
    pub(super) fn literal(text: &'a str) -> Self {
        Self {
            parts: vec![Part::Text(text)],
        }
    }

    /// Reads `$1`, `$name`, `${name}` and `$$` as [`Captures::expand`] does. Groups that the pattern does
    /// not have are empty.
    pub(super) fn parse(text: &'a str, regex: &Regex) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut closed = true;
        while let Some(at) = rest.find('$') {
            let (before, dollar) = rest.split_at(at);
            parts.push(Part::Text(before));
            let behind = dollar.get(1..).unwrap_or_default();
            if let Some(behind) = behind.strip_prefix('$') {
                parts.push(Part::Text("$"));
                rest = behind;
                continue;
            }
            let (name, end) = if behind.starts_with('{') {
                // Looked for once only when there is none.
                let end = behind.find('}').filter(|_| closed);
                closed = end.is_some();
                (1..end.unwrap_or(0), end.map_or(0, |end| end + 1))
            } else {
                let end = behind
                    .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                    .unwrap_or(behind.len());
                (0..end, end)
            };
            if end == 0 {
                parts.push(Part::Text("$"));
                rest = behind;
                continue;
            }
            parts.extend(group(behind, name, regex).map(Part::Group));
            rest = behind.get(end..).unwrap_or_default();
        }
        parts.push(Part::Text(rest));
        parts.retain(|part| !matches!(part, Part::Text("")));
        Self { parts }
    }

    /// Appends what takes the place of a match.
    ///
    /// # Errors
    /// [`FileError::Invalid`] when it would become more than the limit.
    pub(super) fn expand(
        &self,
        captures: &Captures<'_>,
        result: &mut Bounded,
    ) -> Result<(), FileError> {
        for part in &self.parts {
            match part {
                Part::Text(text) => result.push(text.as_bytes())?,
                Part::Group(index) => {
                    if let Some(group) = captures.get(*index) {
                        result.push(group.as_bytes())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The number of the group with a name that may be a number.
fn group(text: &str, name: Range<usize>, regex: &Regex) -> Option<usize> {
    let name = text.get(name)?;
    let number = name.parse().ok();
    number
        .or_else(|| regex.capture_names().position(|known| known == Some(name)))
        .filter(|number| *number < regex.captures_len())
}

impl Bounded {
    /// Appends bytes if there is room.
    ///
    /// # Errors
    /// [`FileError::Invalid`] when there is none.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let limit = self.limit;
        if bytes.len() > limit.saturating_sub(self.bytes.len()) {
            return Err(FileError::Invalid(format!(
                "the file would become larger than {limit} bytes"
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "$", "$", "{", "}", "0", "1", "2", "9", "word", "a", "_", " ", "é", "+", "-",
        ])
    }

    proptest! {
        #[test]
        fn templates_mean_what_the_library_says(pieces in prop::collection::vec(piece(), 0..12)) {
            let text = pieces.concat();
            let regex = Regex::new("(?<word>[a-z]+)(?<a>-)?([0-9]+)").unwrap();
            let captures = regex.captures(b"key42").unwrap();
            let mut expected = Vec::new();
            captures.expand(text.as_bytes(), &mut expected);
            let mut result = Bounded { bytes: Vec::new(), limit: 1000 };
            Template::parse(&text, &regex).expand(&captures, &mut result).unwrap();
            prop_assert_eq!(result.bytes, expected);
        }
    }
}
