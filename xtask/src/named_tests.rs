//! Documents that say which test shows what, checked: the tests they name exist.
//!
//! The last cell of a row names files, packages and tests in backticks. Every file and package must
//! be there, and every test must be defined in one of those its row names. Called by
//! `cargo xtask check`; runs no test itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{cargo, report};

/// A document whose tables name tests.
#[derive(Debug, Clone, Copy)]
struct Document {
    path: &'static str,
    /// The heading of second level whose tables count.
    heading: &'static str,
    rows: Rows,
}

#[derive(Debug, Clone, Copy, Eq, PartialEq)]
enum Rows {
    Unnumbered,
    /// The tables are one list: the first cell of each row is its number, from one on, without a
    /// gap. A row may say why it does not apply, or is not shown, instead of naming a test.
    Numbered,
}

const DOCUMENTS: &[Document] = &[
    Document {
        path: "ARCHITECTURE.md",
        heading: "## Invariants",
        rows: Rows::Unnumbered,
    },
    Document {
        path: "docs/operator-scenarios.md",
        heading: "## Behaviour",
        rows: Rows::Numbered,
    },
    Document {
        path: "docs/operator-scenarios.md",
        heading: "## Weaknesses of others",
        rows: Rows::Numbered,
    },
    Document {
        path: "docs/router-scenarios.md",
        heading: "## Behaviour",
        rows: Rows::Numbered,
    },
    Document {
        path: "docs/router-scenarios.md",
        heading: "## What a hostile side may try",
        rows: Rows::Unnumbered,
    },
    Document {
        path: "docs/router-scenarios.md",
        heading: "## Weaknesses of others",
        rows: Rows::Numbered,
    },
    Document {
        path: "docs/runtime-scenarios.md",
        heading: "## Behaviour",
        rows: Rows::Numbered,
    },
    Document {
        path: "docs/runtime-scenarios.md",
        heading: "## Weaknesses of others",
        rows: Rows::Numbered,
    },
];

/// How a row begins its last cell when no test can show it, or none does yet; the reason follows.
const EXCUSES: [&str; 2] = ["does not apply: ", "not shown: "];

/// Fails with one line per test or file that is not there.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root()?;
    for document in DOCUMENTS {
        let title = document.heading.trim_start_matches(['#', ' ']);
        report::step(&format!("tests named in {}: {title}", document.path));
        let text = fs::read_to_string(root.join(document.path)).context(document.path)?;
        let wrong = wrong(root, *document, &text)?;
        if !wrong.is_empty() {
            bail!(
                "{} names what is not there:\n  {}",
                document.path,
                wrong.join("\n  ")
            );
        }
    }
    Ok(())
}

fn wrong(root: &Path, document: Document, text: &str) -> Result<Vec<String>> {
    let rows = document.rows(text);
    if rows.is_empty() {
        bail!(
            "{} has no table below {:?}",
            document.path,
            document.heading
        );
    }
    let mut wrong = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let mut cells = row.trim_matches([' ', '|']).split('|').map(str::trim);
        if document.rows == Rows::Numbered {
            let number = cells.next().unwrap_or_default();
            if number != (index + 1).to_string() {
                wrong.push(format!("row {} is numbered {number:?}", index + 1));
            }
        }
        let last = cells.next_back().unwrap_or_default();
        let excused = document.rows == Rows::Numbered
            && EXCUSES
                .iter()
                .filter_map(|excuse| last.strip_prefix(excuse))
                .any(|reason| !reason.is_empty());
        let guards = Guards::read(last);
        if guards.places.is_empty() && guards.commands.is_empty() && !excused {
            wrong.push(format!("a guard of this row: {row}"));
        }
        let mut sources = String::new();
        for place in &guards.places {
            let path = root.join(place);
            if path.is_dir() || path.is_file() {
                read_sources(&path, &mut sources)?;
            } else {
                wrong.push((*place).to_owned());
            }
        }
        for test in guards.tests {
            let defined = ["fn", "def"].map(|word| format!("{word} {test}("));
            if !defined.iter().any(|text| sources.contains(text)) {
                wrong.push(format!("{test} in {}", guards.places.join(", ")));
            }
        }
    }
    Ok(wrong)
}

impl Document {
    /// The rows that count, without the heads of their tables.
    fn rows(self, text: &str) -> Vec<&str> {
        let mut lines = text
            .lines()
            .skip_while(|line| *line != self.heading)
            .skip(1)
            .take_while(|line| !line.starts_with("## "));
        let mut rows = Vec::new();
        loop {
            let mut table = lines
                .by_ref()
                .skip_while(|line| !line.starts_with('|'))
                .take_while(|line| line.starts_with('|'))
                .skip(2)
                .peekable();
            if table.peek().is_none() {
                return rows;
            }
            rows.extend(table);
        }
    }
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

    const ONE_TABLE: Document = Document {
        path: "ARCHITECTURE.md",
        heading: "## Invariants",
        rows: Rows::Unnumbered,
    };
    const NUMBERED: Document = Document {
        path: "scenarios.md",
        heading: "## Behaviour",
        rows: Rows::Numbered,
    };

    const TABLE: &str = "\
`tests/not_a_row.rs`

## Invariants

| what | guarded by |
| --- | --- |
| one `thing_of` | `node`: `a_test_in_it`; `tests/e2e/claims.rs`: `another_test`, `a_third_one` |
| two | `cargo xtask check`: arrows |

## Other

| other | table |
| --- | --- |
| three | nothing |
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
            wrong(&root, ONE_TABLE, TABLE).unwrap(),
            ["a_third_one in node, tests/e2e/claims.rs"]
        );
    }

    #[test]
    fn a_file_that_is_gone_and_a_row_without_a_guard_are_named() {
        let (_directory, root) = workspace();
        fs::remove_file(root.join("tests/e2e/claims.rs")).unwrap();
        let table = "## Invariants\n| what | by |\n| --- | --- |\n\
                     | a | `tests/e2e/claims.rs` |\n| b | care |\n| c | does not apply: no |";
        assert_eq!(
            wrong(&root, ONE_TABLE, table).unwrap(),
            [
                "tests/e2e/claims.rs",
                "a guard of this row: | b | care |",
                "a guard of this row: | c | does not apply: no |",
            ]
        );
    }

    #[test]
    fn rows_of_all_tables_are_numbered_as_one_list_and_may_say_why_they_do_not_apply() {
        let (_directory, root) = workspace();
        let text = "## Behaviour\n\n### Pods\n\n| no. | what | by |\n| --- | --- | --- |\n\
                    | 1 | a | `node`: `a_test_in_it` |\n| 2 | b | does not apply: no webhook |\n\n\
                    ### Pools\n\n| no. | what | by |\n| --- | --- | --- |\n\
                    | 4 | c | `tests/e2e/claims.rs`: `a_test_in_it` |\n| 4 | d | does not apply: |\n\
                    | 5 | e | not shown: needs a second node |\n";
        assert_eq!(
            wrong(&root, NUMBERED, text).unwrap(),
            [
                "row 3 is numbered \"4\"",
                "a_test_in_it in tests/e2e/claims.rs",
                "a guard of this row: | 4 | d | does not apply: |",
            ]
        );
    }

    #[test]
    fn a_document_without_the_table_is_an_error() {
        let (_directory, root) = workspace();
        let error = wrong(&root, ONE_TABLE, "# Architecture").unwrap_err();
        assert!(error.to_string().contains("## Invariants"), "{error}");
    }
}
