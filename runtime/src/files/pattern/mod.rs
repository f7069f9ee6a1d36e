//! A pattern that text is compared with, a bounded piece at a time.
//!
//! Time is linear in the text, but nothing ends a comparison that has begun. So that work ends soon after
//! its client has gone, no comparison gets more text than it needs.

use std::ops::Range;
use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::{Input, meta, util::syntax};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::caller::Caller;
use super::error::FileError;

/// Whether a pattern is a regular expression.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Syntax {
    /// A regular expression; `^` and `$` are the ends of a line.
    Regex,
    /// The text itself.
    Literal,
}

/// A text pattern, compiled. It matches bytes.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub(super) regex: Regex,
    /// Whether a line can match only if the whole text does.
    pub(super) whole: bool,
    /// Whether a match can have a line break in it.
    spans: bool,
    /// For parts of long lines, when there is one.
    parts: OnceLock<Option<meta::Regex>>,
    expression: String,
    ignore_case: bool,
}

/// Text that is compared together, in bytes, if it has line breaks.
pub(super) const BLOCK: usize = 256 << 10;
/// How much of a long line is compared together, in bytes.
const PART: usize = 256 << 10;
/// How much of it is compared again with what follows, in bytes.
const OVERLAP: usize = 64 << 10;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`FileError::Invalid`] says what is wrong with it.
    pub fn compile(text: &str, syntax: Syntax, ignore_case: bool) -> Result<Self, FileError> {
        if text.is_empty() {
            return Err(FileError::Invalid(
                "the pattern is empty; expected what to look for".into(),
            ));
        }
        let expression = match syntax {
            Syntax::Regex => text.to_owned(),
            Syntax::Literal => regex::escape(text),
        };
        let regex = RegexBuilder::new(&expression)
            .case_insensitive(ignore_case)
            .multi_line(true)
            .crlf(true)
            .build()
            .map_err(|error| FileError::Invalid(format!("the pattern cannot be read: {error}")))?;
        // Anchors of the whole text, and flags that change what anchors mean.
        let anchored = ["\\A", "\\z", "(?"];
        let whole = syntax == Syntax::Literal || !anchored.iter().any(|part| text.contains(part));
        let parsed = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .case_insensitive(ignore_case)
            .multi_line(true)
            .crlf(true)
            .build()
            .parse(&expression);
        Ok(Self {
            regex,
            whole,
            spans: parsed.is_ok_and(|parsed| has_break(&parsed)),
            parts: OnceLock::new(),
            expression,
            ignore_case,
        })
    }

    /// The first match in a line. In one longer than 256 KiB it is looked for in parts, which overlap by
    /// 64 KiB; a longer match across the end of a part is found if it is one without what follows.
    pub(super) fn in_line(
        &self,
        line: &[u8],
        caller: &Caller,
    ) -> Result<Option<Range<usize>>, FileError> {
        caller.check()?;
        if line.len() <= PART {
            return Ok(self.regex.find(line).map(|found| found.range()));
        }
        let parts = self.parts.get_or_init(|| self.compile_for_parts());
        let Some(regex) = parts else {
            return Err(FileError::Invalid(
                "the pattern is too large for long lines; expected a smaller one".into(),
            ));
        };
        let mut start = 0;
        loop {
            caller.check()?;
            let end = line.len().min(start + PART);
            // What is around the part counts for anchors.
            if let Some(found) = regex.search(&Input::new(line).range(start..end)) {
                return Ok(Some(found.range()));
            }
            if end == line.len() {
                return Ok(None);
            }
            start = end - OVERLAP;
        }
    }

    fn compile_for_parts(&self) -> Option<meta::Regex> {
        let syntax = syntax::Config::new()
            .utf8(false)
            .case_insensitive(self.ignore_case)
            .multi_line(true)
            .crlf(true);
        meta::Builder::new()
            .syntax(syntax)
            .configure(meta::Config::new().utf8_empty(false))
            .build(&self.expression)
            .ok()
    }

    /// Visits every match in a text, as `find` finds them: from the beginning, without overlaps. Patterns
    /// that cannot match a line break are compared with whole lines, others with all of the text.
    pub(super) fn each<'t, T>(
        &self,
        text: &'t [u8],
        caller: &Caller,
        find: impl Fn(&'t [u8], usize) -> Option<(Range<usize>, T)>,
        mut visit: impl FnMut(Range<usize>, T) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let mut at = 0;
        let mut end = self.block_end(text, 0);
        let mut last = None;
        loop {
            caller.check()?;
            let known = text.get(..end).unwrap_or_default();
            let found = if at <= end { find(known, at) } else { None };
            // What begins at the end of a block belongs to the next, which shows what follows.
            let found = found.filter(|(range, _)| range.start < end || end == text.len());
            let Some((range, value)) = found else {
                if end == text.len() {
                    return Ok(());
                }
                at = at.max(end);
                end = self.block_end(text, end);
                continue;
            };
            if range.is_empty() && last == Some(range.end) {
                at = range.end + 1;
                continue;
            }
            at = range.end;
            last = Some(range.end);
            visit(range, value)?;
        }
    }

    fn block_end(&self, text: &[u8], start: usize) -> usize {
        if self.spans {
            return text.len();
        }
        start + block(text.get(start..).unwrap_or_default())
    }
}

/// How much of the text is looked at together: whole lines, as many as fit, one at least.
pub(super) fn block(text: &[u8]) -> usize {
    let fits = text.get(..BLOCK).unwrap_or_default();
    if fits.is_empty() {
        return text.len();
    }
    memchr::memrchr(b'\n', fits)
        .or_else(|| memchr::memchr(b'\n', text))
        .map_or(text.len(), |at| at + 1)
}

/// Whether what an expression matches can have a line break in it.
fn has_break(expression: &Hir) -> bool {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Class(Class::Unicode(class)) => class
            .ranges()
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&'\n')),
        HirKind::Class(Class::Bytes(class)) => class
            .ranges()
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&b'\n')),
        HirKind::Repetition(repetition) => has_break(&repetition.sub),
        HirKind::Capture(capture) => has_break(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(has_break),
    }
}

#[cfg(test)]
mod tests;
