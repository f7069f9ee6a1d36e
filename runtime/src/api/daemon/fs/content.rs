//! `glob`, `search`, `replace`.

use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Work, locate, told};
use crate::api::daemon::members::{Members, Refused};
use crate::api::daemon::reply;
use crate::files::{
    Bare, FileError, Globs, Pattern, Replaced, Replacement, Search, Searched, Selection, Syntax,
    Targets,
};

/// How many matches are told when no number is asked for.
const LIMIT: usize = 1000;
const MAX_PATHS: usize = 100_000;
const MAX_LINES: usize = 10_000;
/// The largest file that is looked through, in bytes.
const FILE: u64 = 16 << 20;
const MAX_FILE: u64 = 64 << 20;
/// How much of a line is told, in bytes.
const LINE: usize = 512;
const MAX_LINE: usize = 16 << 10;
/// How many files can be named.
const MAX_NAMED: usize = 1000;

pub(super) fn glob(members: &mut Members) -> Result<Work, Refused> {
    let pattern = members.text("pattern")?;
    let path = members.optional_text("path")?.unwrap_or_default();
    let limit = members.number("limit", &(1..=MAX_PATHS))?.unwrap_or(LIMIT);
    Ok(Box::new(move |root, caller| {
        let globbed = root.glob(&locate(root, &path)?, &pattern, limit, caller)?;
        let matches = globbed.matches.iter().map(|(path, kind)| Named {
            path: Lossy(path),
            r#type: kind.name(),
        });
        told(&Names {
            matches: matches.collect(),
            truncated: globbed.truncated,
            unreadable: globbed.unreadable,
        })
    }))
}

/// What a pattern for names matched. Thousands of these are written as they are, not as JSON values first.
#[derive(Serialize)]
struct Names<'a> {
    matches: Vec<Named<'a>>,
    truncated: bool,
    unreadable: u64,
}

#[derive(Serialize)]
struct Named<'a> {
    path: Lossy<'a>,
    r#type: &'static str,
}

/// A path as text. What is not UTF-8 appears as U+FFFD.
struct Lossy<'a>(&'a Path);

impl Serialize for Lossy<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string_lossy())
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `pattern`, `literal` and `ignore_case`.
struct Wanted {
    text: String,
    syntax: Syntax,
    ignore_case: bool,
}

impl Wanted {
    fn read(members: &mut Members) -> Result<Self, Refused> {
        Ok(Self {
            text: members.text("pattern")?,
            syntax: if members.flag("literal", false)? {
                Syntax::Literal
            } else {
                Syntax::Regex
            },
            ignore_case: members.flag("ignore_case", false)?,
        })
    }

    /// A large one takes a while and much memory, so this is part of the work.
    fn compile(&self) -> Result<Pattern, FileError> {
        Pattern::compile(&self.text, self.syntax, self.ignore_case)
    }
}

/// `glob` and `exclude`.
struct Chosen {
    only: Vec<String>,
    except: Vec<String>,
}

impl Chosen {
    fn read(members: &mut Members) -> Result<Self, Refused> {
        Ok(Self {
            only: members.texts("glob")?,
            except: members.texts("exclude")?,
        })
    }

    fn is_empty(&self) -> bool {
        self.only.is_empty() && self.except.is_empty()
    }

    fn compile(&self) -> Result<Selection, FileError> {
        let globs = |name, texts| {
            Globs::parse(texts, Bare::Name)
                .map_err(|error| FileError::Invalid(format!("\"{name}\": {error}")))
        };
        Ok(Selection {
            only: globs("glob", &self.only)?,
            except: globs("exclude", &self.except)?,
        })
    }
}

pub(super) fn search(members: &mut Members) -> Result<Work, Refused> {
    let wanted = Wanted::read(members)?;
    let path = members.optional_text("path")?.unwrap_or_default();
    let chosen = Chosen::read(members)?;
    let limit = members.number("limit", &(1..=MAX_LINES))?.unwrap_or(LIMIT);
    let max_file_bytes = members.number("max_file_bytes", &(1..=MAX_FILE))?;
    let max_line_bytes = members.number("max_line_bytes", &(1..=MAX_LINE))?;
    Ok(Box::new(move |root, caller| {
        let search = Search {
            pattern: wanted.compile()?,
            selection: chosen.compile()?,
            limit,
            max_file_bytes: max_file_bytes.unwrap_or(FILE),
            max_line_bytes: max_line_bytes.unwrap_or(LINE),
        };
        let searched = root.search(&locate(root, &path)?, &search, caller)?;
        told(&Lines::of(&searched))
    }))
}

/// What a pattern for text matched.
#[derive(Serialize)]
struct Lines<'a> {
    matches: Vec<Match<'a>>,
    truncated: bool,
    files_searched: u64,
    files_binary: u64,
    files_too_large: u64,
    unreadable: u64,
}

#[derive(Serialize)]
struct Match<'a> {
    path: Lossy<'a>,
    line: u64,
    column: u64,
    text: &'a str,
    cut: bool,
}

impl<'a> Lines<'a> {
    fn of(searched: &'a Searched) -> Self {
        let lines = searched.lines.iter().map(|line| Match {
            path: Lossy(&line.path),
            line: line.number,
            column: line.column,
            text: &line.text,
            cut: line.cut,
        });
        Self {
            matches: lines.collect(),
            truncated: searched.truncated,
            files_searched: searched.files,
            files_binary: searched.binary,
            files_too_large: searched.large,
            unreadable: searched.unreadable,
        }
    }
}

pub(super) fn replace(members: &mut Members) -> Result<Work, Refused> {
    let wanted = Wanted::read(members)?;
    let with = members.text("replacement")?;
    let expected = members.number("expected", &(0..=u64::MAX))?;
    let max_file_bytes = members.number("max_file_bytes", &(1..=MAX_FILE))?;
    let named = members.texts("paths")?;
    let path = members.optional_text("path")?;
    let chosen = Chosen::read(members)?;
    let selects = path.is_some() || !chosen.is_empty();
    if named.is_empty() != selects {
        return Err(Refused::new(
            "expected either \"paths\", or \"path\", \"glob\" and \"exclude\" to say in which files",
        ));
    }
    if named.len() > MAX_NAMED {
        return Err(Refused::new(format!(
            "\"paths\" names {} files; expected at most {MAX_NAMED}",
            named.len()
        )));
    }
    Ok(Box::new(move |root, caller| {
        let replacement = Replacement {
            pattern: wanted.compile()?,
            with,
            syntax: wanted.syntax,
            expected,
            max_file_bytes: max_file_bytes.unwrap_or(FILE),
        };
        let targets = if selects {
            let path = path.unwrap_or_default();
            Targets::Below(locate(root, &path)?, chosen.compile()?)
        } else {
            let paths = named.iter().map(|path| locate(root, path));
            Targets::Named(paths.collect::<Result<_, _>>()?)
        };
        told(&changed(&root.replace(&targets, &replacement, caller)?))
    }))
}

fn changed(replaced: &Replaced) -> Value {
    let files: Vec<Value> = replaced
        .files
        .iter()
        .map(|(path, count)| json!({"path": text(path), "replacements": count}))
        .collect();
    let failed: Vec<Value> = replaced
        .failed
        .iter()
        .map(|(path, error)| json!({"path": text(path), "message": reply::text(error)}))
        .collect();
    json!({
        "replacements": replaced.files.iter().map(|(_, count)| count).sum::<u64>(),
        "files": files,
        "failed": failed,
        "files_binary": replaced.binary,
        "files_too_large": replaced.large,
        "unreadable": replaced.unreadable,
    })
}
