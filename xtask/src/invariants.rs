//! The table of invariants in ARCHITECTURE.md, checked: what it says guards an invariant exists.
//!
//! The last cell of a row names files, packages and tests in backticks. Every file and package must
//! be there, and every test must be defined in one of those its row names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{cargo, report};

const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Invariants";

/// Fails with one line per guard that is not there.
pub(crate) fn run() -> Result<()> {
    report::step("tests named in ARCHITECTURE.md");
    let root = cargo::root()?;
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let missing = missing(root, &text)?;
    if !missing.is_empty() {
        bail!(
            "{DOCUMENT} names what is not there:\n  {}",
            missing.join("\n  ")
        );
    }
    Ok(())
}

fn missing(root: &Path, document: &str) -> Result<Vec<String>> {
    let rows: Vec<&str> = rows(document).collect();
    if rows.is_empty() {
        bail!("{DOCUMENT} has no table below {HEADING:?}");
    }
    let mut missing = Vec::new();
    for row in rows {
        let guards = row.trim_end_matches([' ', '|']).rsplit('|').next();
        let guards = Guards::read(guards.unwrap_or_default());
        if guards.places.is_empty() && guards.commands.is_empty() {
            missing.push(format!("a guard of this row: {row}"));
        }
        let mut sources = String::new();
        for place in &guards.places {
            let path = root.join(place);
            if path.is_dir() || path.is_file() {
                read_sources(&path, &mut sources)?;
            } else {
                missing.push((*place).to_owned());
            }
        }
        for test in guards.tests {
            let defined = ["fn", "def"].map(|word| format!("{word} {test}("));
            if !defined.iter().any(|text| sources.contains(text)) {
                missing.push(format!("{test} in {}", guards.places.join(", ")));
            }
        }
    }
    Ok(missing)
}

/// The rows of the first table below the heading, without its own heading.
fn rows(document: &str) -> impl Iterator<Item = &str> {
    document
        .lines()
        .skip_while(|line| *line != HEADING)
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
}

/// What a cell names.
#[derive(Debug, Default, Eq, PartialEq)]
struct Guards<'a> {
    /// Files and directories, relative to the workspace.
    places: Vec<&'a str>,
    tests: Vec<&'a str>,
    commands: Vec<&'a str>,
}

impl<'a> Guards<'a> {
    fn read(cell: &'a str) -> Self {
        let mut guards = Self::default();
        for name in cell.split('`').skip(1).step_by(2) {
            if name.contains(' ') {
                guards.commands.push(name);
            } else if name.contains('_') && !name.contains('/') {
                guards.tests.push(name);
            } else {
                guards.places.push(name);
            }
        }
        guards
    }
}

fn read_sources(path: &Path, text: &mut String) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
            read_sources(&entry?.path(), text)?;
        }
    } else if is_source(path) {
        let source = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        text.push_str(&source);
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "py")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const TABLE: &str = "\
`tests/not_a_row.rs`

## Invariants

| what | guarded by |
| --- | --- |
| one `thing_of` | `node`: `a_test_in_it`; `tests/e2e/claims.rs`: `another_test`, `a_third_one` |
| two | `cargo xtask check`: arrows |

| other | table |
";

    fn workspace() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        fs::create_dir_all(root.join("node/src")).unwrap();
        fs::create_dir_all(root.join("tests/e2e")).unwrap();
        fs::write(root.join("node/src/lib.rs"), "async fn a_test_in_it() {}").unwrap();
        fs::write(
            root.join("tests/e2e/claims.rs"),
            "fn another_test() {}\nfn a_third_one_more() {}",
        )
        .unwrap();
        (directory, root)
    }

    #[test]
    fn a_test_that_is_not_defined_where_its_row_says_is_named() {
        let (_directory, root) = workspace();
        assert_eq!(
            missing(&root, TABLE).unwrap(),
            ["a_third_one in node, tests/e2e/claims.rs"]
        );
    }

    #[test]
    fn a_file_that_is_gone_and_a_row_without_a_guard_are_named() {
        let (_directory, root) = workspace();
        fs::remove_file(root.join("tests/e2e/claims.rs")).unwrap();
        let table = format!(
            "{HEADING}\n| what | by |\n| --- | --- |\n| a | `tests/e2e/claims.rs` |\n| b | care |"
        );
        assert_eq!(
            missing(&root, &table).unwrap(),
            ["tests/e2e/claims.rs", "a guard of this row: | b | care |"]
        );
    }

    #[test]
    fn a_document_without_the_table_is_an_error() {
        let (_directory, root) = workspace();
        let error = missing(&root, "# Architecture").unwrap_err();
        assert!(error.to_string().contains(HEADING), "{error}");
    }
}
