//! Looking for text in files.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use super::caller::Caller;
use super::error::FileError;
use super::path::TreePath;
use super::pattern::{BLOCK, Pattern, block};
use super::root::Root;
use super::text::{Content, Selection, read_text};
use super::walk::vanished;

/// What to look for, and how much of it to tell.
#[derive(Clone, Debug)]
pub struct Search {
    /// The pattern; every line is looked at by itself.
    pub pattern: Pattern,
    /// Which files.
    pub selection: Selection,
    /// How many lines are told.
    pub limit: usize,
    /// Larger files are left out, in bytes.
    pub max_file_bytes: u64,
    /// How much of a line is told, in bytes.
    pub max_line_bytes: usize,
}

/// A line that matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// Relative to the root.
    pub path: PathBuf,
    /// The first line is 1.
    pub number: u64,
    /// Where the first match begins in the line, in bytes; the first is 1.
    pub column: u64,
    /// The line, or the part of it around the match. What is not UTF-8 appears as U+FFFD.
    pub text: String,
    /// Whether it is only a part.
    pub cut: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// The lines, in the order of paths within each directory.
    pub lines: Vec<Line>,
    /// Files that were looked through.
    pub files: u64,
    /// Files left out because they are not text.
    pub binary: u64,
    /// Files left out because they are larger than the limit.
    pub large: u64,
    /// Files and directories that could not be read.
    pub unreadable: u64,
    /// Whether there are more lines than are told.
    pub truncated: bool,
}

/// How much text one answer tells, in bytes.
const MAX_TEXT: usize = 8 << 20;

impl Root {
    /// Looks for a pattern in the files below `path`, or in the file there.
    ///
    /// # Errors
    /// See [`FileError`]; what is not a regular file or directory is [`FileError::Special`].
    pub fn search(
        &self,
        path: &TreePath,
        search: &Search,
        caller: &Caller,
    ) -> Result<Searched, FileError> {
        let mut searched = Searched::default();
        let mut buffer = Vec::new();
        let mut told = 0;
        let mut outcome = Ok(());
        let unreadable = self.select(path, &search.selection, caller, |dir, name, path| {
            match read_text(dir, name, &mut buffer, search.max_file_bytes) {
                Ok(Content::Text(_)) => {
                    searched.files += 1;
                    outcome = searched.file(&path, &buffer, search, &mut told, caller);
                    if outcome.is_err() || searched.truncated {
                        return ControlFlow::Break(());
                    }
                }
                Ok(Content::Binary) => searched.binary += 1,
                Ok(Content::Large) => searched.large += 1,
                Err(error) if vanished(&error) => {}
                Err(_) => searched.unreadable += 1,
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        searched.unreadable += unreadable;
        Ok(searched)
    }
}

impl Searched {
    fn file(
        &mut self,
        path: &Path,
        content: &[u8],
        search: &Search,
        told: &mut usize,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let pattern = &search.pattern;
        let mut number = 0;
        let mut rest = content;
        while !rest.is_empty() {
            caller.check()?;
            let (block, behind) = rest.split_at(block(rest));
            rest = behind;
            // Most text does not match at all, which one look over much of it finds out sooner.
            let lines = block.len() <= BLOCK;
            if pattern.whole && lines && !pattern.regex.is_match(block) {
                number += memchr::memchr_iter(b'\n', block).count() as u64;
                continue;
            }
            self.block(path, block, &mut number, search, told, caller)?;
            if self.truncated {
                break;
            }
        }
        Ok(())
    }

    /// Looks at the lines of a block one by one; `number` is that of the line before.
    fn block(
        &mut self,
        path: &Path,
        block: &[u8],
        number: &mut u64,
        search: &Search,
        told: &mut usize,
        caller: &Caller,
    ) -> Result<(), FileError> {
        // The last line break ends the last line.
        let lines = block.strip_suffix(b"\n").unwrap_or(block);
        for line in lines.split(|byte| *byte == b'\n') {
            *number += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(found) = search.pattern.in_line(line, caller)? else {
                continue;
            };
            if self.lines.len() >= search.limit || *told >= MAX_TEXT {
                self.truncated = true;
                return Ok(());
            }
            let shown = window(line.len(), found.clone(), search.max_line_bytes);
            let text = line.get(shown.clone()).unwrap_or_default();
            *told += text.len();
            self.lines.push(Line {
                path: path.to_owned(),
                number: *number,
                column: found.start as u64 + 1,
                text: String::from_utf8_lossy(text).into_owned(),
                cut: shown.len() < line.len(),
            });
        }
        Ok(())
    }
}

/// The part of a line that is shown: the whole if it is short, else what is around the match.
fn window(length: usize, found: Range<usize>, most: usize) -> Range<usize> {
    if length <= most {
        return 0..length;
    }
    let before = most.saturating_sub(found.len()) / 2;
    let start = found.start.saturating_sub(before).min(length - most);
    start..start + most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_around_the_match() {
        for (length, found, most, shown) in [
            (10, 2..4, 10, 0..10),
            (100, 0..2, 10, 0..10),
            (100, 50..52, 10, 46..56),
            (100, 98..100, 10, 90..100),
            (100, 20..80, 10, 20..30),
        ] {
            assert_eq!(window(length, found, most), shown);
        }
    }

    fn search(pattern: &str) -> Search {
        use super::super::glob::{Bare, Globs};
        use super::super::pattern::Syntax;
        let none = || Globs::parse(&[], Bare::Name).unwrap();
        Search {
            pattern: Pattern::compile(pattern, Syntax::Regex, false).unwrap(),
            selection: Selection {
                only: none(),
                except: none(),
            },
            limit: 1000,
            max_file_bytes: u64::MAX,
            max_line_bytes: 10,
        }
    }

    fn lines(content: &[u8], search: &Search, caller: &Caller) -> Result<Vec<u64>, FileError> {
        let mut searched = Searched::default();
        searched.file(Path::new("f"), content, search, &mut 0, caller)?;
        Ok(searched.lines.iter().map(|line| line.number).collect())
    }

    #[test]
    fn blocks_change_neither_lines_nor_numbers() {
        let mut content = Vec::new();
        let mut found = Vec::new();
        let long = vec![b'x'; BLOCK + 10];
        for number in 1..=40_000_u64 {
            let line: &[u8] = match number % 9001 {
                0 => b"needle\r\n",
                // Longer than a block.
                7 => &long,
                8 => b"\n",
                _ => b"some straw\n",
            };
            // What has no line break of its own goes on in the next, which is the break.
            content.extend_from_slice(line);
            if number % 9001 == 0 {
                found.push(number - number / 9001);
            }
        }
        let caller = Caller::default();
        for pattern in ["needle", "^needle$", "(?:needle)", "\\bneedle\\b"] {
            assert_eq!(lines(&content, &search(pattern), &caller).unwrap(), found);
        }
        for (content, numbers) in [
            ("", vec![]),
            ("\n", vec![1]),
            ("a\n\n", vec![2]),
            ("a\n\nb", vec![2]),
            ("a\n\r\n", vec![2]),
        ] {
            let found = lines(content.as_bytes(), &search("^$"), &caller).unwrap();
            assert_eq!(found, numbers, "{content:?}");
        }
    }

    #[test]
    fn lines_are_not_looked_at_when_nobody_waits() {
        let (caller, waiting) = Caller::new();
        drop(waiting);
        for pattern in ["a", "(?-u)a"] {
            let outcome = lines(b"a\nb\n", &search(pattern), &caller);
            assert!(matches!(outcome, Err(FileError::Cancelled)));
        }
    }
}
