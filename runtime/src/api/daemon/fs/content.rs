//! `glob`, `search`, `replace`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Work, locate};
use crate::api::daemon::members::{Members, Refused};
use crate::api::daemon::reply;
use crate::files::{
    Bare, Globs, Pattern, Replaced, Replacement, Search, Searched, Selection, Syntax, Targets,
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
        let matches: Vec<Value> = globbed
            .matches
            .iter()
            .map(|(path, kind)| json!({"path": text(path), "type": kind.name()}))
            .collect();
        Ok(json!({
            "matches": matches,
            "truncated": globbed.truncated,
            "unreadable": globbed.unreadable,
        }))
    }))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `pattern`, `literal` and `ignore_case`.
fn pattern(members: &mut Members) -> Result<(Pattern, Syntax), Refused> {
    let text = members.text("pattern")?;
    let syntax = if members.flag("literal", false)? {
        Syntax::Literal
    } else {
        Syntax::Regex
    };
    let ignore_case = members.flag("ignore_case", false)?;
    match Pattern::compile(&text, syntax, ignore_case) {
        Ok(pattern) => Ok((pattern, syntax)),
        Err(error) => Err(Refused::new(error.to_string())),
    }
}

/// `glob` and `exclude`.
fn selection(members: &mut Members) -> Result<Selection, Refused> {
    let mut globs = |name| {
        Globs::parse(&members.texts(name)?, Bare::Name)
            .map_err(|error| Refused::new(format!("\"{name}\": {error}")))
    };
    Ok(Selection {
        only: globs("glob")?,
        except: globs("exclude")?,
    })
}

pub(super) fn search(members: &mut Members) -> Result<Work, Refused> {
    let (pattern, _) = pattern(members)?;
    let path = members.optional_text("path")?.unwrap_or_default();
    let search = Search {
        pattern,
        selection: selection(members)?,
        limit: members.number("limit", &(1..=MAX_LINES))?.unwrap_or(LIMIT),
        max_file_bytes: members
            .number("max_file_bytes", &(1..=MAX_FILE))?
            .unwrap_or(FILE),
        max_line_bytes: members
            .number("max_line_bytes", &(1..=MAX_LINE))?
            .unwrap_or(LINE),
    };
    Ok(Box::new(move |root, caller| {
        let searched = root.search(&locate(root, &path)?, &search, caller)?;
        Ok(found(&searched))
    }))
}

fn found(searched: &Searched) -> Value {
    let matches: Vec<Value> = searched
        .lines
        .iter()
        .map(|line| {
            json!({
                "path": text(&line.path),
                "line": line.number,
                "column": line.column,
                "text": line.text,
                "cut": line.cut,
            })
        })
        .collect();
    json!({
        "matches": matches,
        "truncated": searched.truncated,
        "files_searched": searched.files,
        "files_binary": searched.binary,
        "files_too_large": searched.large,
        "unreadable": searched.unreadable,
    })
}

pub(super) fn replace(members: &mut Members) -> Result<Work, Refused> {
    let (pattern, syntax) = pattern(members)?;
    let replacement = Replacement {
        pattern,
        with: members.text("replacement")?,
        syntax,
        expected: members.number("expected", &(0..=u64::MAX))?,
        max_file_bytes: members
            .number("max_file_bytes", &(1..=MAX_FILE))?
            .unwrap_or(FILE),
    };
    let named = members.texts("paths")?;
    let path = members.optional_text("path")?;
    let selection = selection(members)?;
    let selects = path.is_some() || !selection.only.is_empty() || !selection.except.is_empty();
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
        let targets = if selects {
            let path = path.unwrap_or_default();
            Targets::Below(locate(root, &path)?, selection)
        } else {
            let paths = named.iter().map(|path| locate(root, path));
            Targets::Named(paths.collect::<Result<_, _>>()?)
        };
        Ok(changed(&root.replace(&targets, &replacement, caller)?))
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
