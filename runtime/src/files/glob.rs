//! File name patterns: `*`, `?`, `[...]`, `{a,b}` and `**`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::FileType;

use super::caller::Caller;
use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::stat::Type;
use super::walk::{Found, Step, Walk, below, vanished};

/// Patterns in one list.
const MAX_PATTERNS: usize = 64;
/// Bytes of one pattern.
const MAX_PATTERN: usize = 4096;

/// How many bytes of paths one answer tells.
const MAX_TOLD: usize = 8 << 20;

/// A list of patterns, any of which may match.
#[derive(Clone, Debug)]
pub struct Globs {
    set: GlobSet,
}

/// What a pattern without a slash is compared with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bare {
    /// The whole path: `*.rs` means files in the directory itself.
    Path,
    /// The name alone: `*.rs` means files at any depth.
    Name,
}

impl Globs {
    /// Reads patterns. `*`, `?` and `[...]` never match a slash; names that begin with a dot are not
    /// special; a backslash makes the next character ordinary.
    ///
    /// # Errors
    /// [`FileError::Invalid`] names the pattern.
    pub fn parse(patterns: &[String], bare: Bare) -> Result<Self, FileError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(FileError::Invalid(format!(
                "{} patterns are given; expected at most {MAX_PATTERNS}",
                patterns.len()
            )));
        }
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let refused = |why: &str| FileError::Invalid(format!("the pattern {pattern:?} {why}"));
            if pattern.is_empty() || pattern.len() > MAX_PATTERN {
                return Err(refused("is empty or longer than 4096 bytes"));
            }
            if Path::new(pattern).is_absolute() || pattern.split('/').any(|part| part == "..") {
                return Err(refused(
                    "is absolute or contains ..; expected one relative to the path",
                ));
            }
            let whole = match bare {
                Bare::Name if !pattern.contains('/') => format!("**/{pattern}"),
                _ => pattern.clone(),
            };
            let glob = GlobBuilder::new(&without_slashes(&whole))
                .literal_separator(true)
                .backslash_escape(true)
                .empty_alternates(true)
                .build()
                .map_err(|error| refused(&format!("cannot be read: {}", error.kind())))?;
            set.add(glob);
        }
        let set = set.build().map_err(|error| {
            FileError::Invalid(format!("the patterns cannot be used: {}", error.kind()))
        })?;
        Ok(Self { set })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether any pattern matches the relative path.
    pub fn matches(&self, path: &Path) -> bool {
        self.set.is_match(path)
    }
}

/// Takes the slash out of every `[!...]`, which would match it.
fn without_slashes(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        result.push(next);
        if next == '\\' {
            result.extend(rest.next());
        }
        if next != '[' {
            continue;
        }
        let Some(negation) = rest.next_if(|next| matches!(next, '!' | '^')) else {
            continue;
        };
        result.push(negation);
        // First in its class, a bracket is an ordinary character.
        result.extend(rest.next_if_eq(&']'));
        result.push('/');
    }
    result
}

/// What a pattern matched.
#[derive(Clone, Debug, Default)]
pub struct Globbed {
    /// Paths relative to the root, sorted.
    pub matches: Vec<(PathBuf, Type)>,
    /// Whether there are more than the limit, or than 8 MiB of paths.
    pub truncated: bool,
    /// Directories that could not be read.
    pub unreadable: u64,
}

impl Root {
    /// What is below `path` and matches the pattern, which is relative to `path`. Links are found but
    /// not followed.
    ///
    /// # Errors
    /// See [`FileError`]; a pattern that cannot be read is [`FileError::Invalid`].
    pub fn glob(
        &self,
        path: &TreePath,
        pattern: &str,
        limit: usize,
        caller: &Caller,
    ) -> Result<Globbed, FileError> {
        let globs = Globs::parse(&[pattern.to_owned()], Bare::Path)?;
        let scope = Scope::of(pattern);
        let mut globbed = Globbed::default();
        let mut told = 0;
        globbed.unreadable = self.traverse(
            path,
            caller,
            |inside| scope.holds(inside),
            |found| {
                if !globs.matches(&found.path) {
                    return ControlFlow::Continue(());
                }
                if globbed.matches.len() >= limit || told >= MAX_TOLD {
                    globbed.truncated = true;
                    return ControlFlow::Break(());
                }
                let whole = below(path.as_path(), &found.path);
                told += whole.as_os_str().len();
                globbed.matches.push((whole, Type::from(found.kind)));
                ControlFlow::Continue(())
            },
        )?;
        globbed
            .matches
            .sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(globbed)
    }

    /// Walks the tree below a directory. `enter` decides which directories count, by their paths below
    /// it. Answers how many could not be read.
    pub(super) fn traverse(
        &self,
        path: &TreePath,
        caller: &Caller,
        mut enter: impl FnMut(&Path) -> bool,
        mut visit: impl FnMut(&Found) -> ControlFlow<()>,
    ) -> Result<u64, FileError> {
        let dir = self.open_directory("opening the directory", path)?;
        let mut walk = Walk::new(&dir, caller)?;
        let mut unreadable = 0;
        while let Some(step) = walk.next()? {
            let Step::Found(found) = step else { continue };
            if visit(&found).is_break() {
                break;
            }
            if found.kind != FileType::Directory || !enter(&found.path) {
                continue;
            }
            match walk.enter(&found) {
                Ok(()) => {}
                Err(error) if vanished(&error) => {}
                Err(FileError::Cancelled) => return Err(FileError::Cancelled),
                // Its entries are missing from the answer, which says so.
                Err(_) => unreadable += 1,
            }
        }
        Ok(unreadable)
    }
}

/// Which directories can hold matches of a pattern.
struct Scope {
    /// Names that every match begins with.
    literal: PathBuf,
    /// How deep matches can be.
    depth: usize,
}

impl Scope {
    fn of(pattern: &str) -> Self {
        let special = |part: &str| part.contains(['*', '?', '[', ']', '{', '}', '\\', ',']);
        let mut parts: Vec<&str> = pattern
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        // Braces and backslashes may hide slashes.
        let endless = pattern.contains("**") || pattern.contains(['{', '\\']);
        let depth = if endless { usize::MAX } else { parts.len() };
        parts.pop();
        Self {
            literal: parts.iter().take_while(|part| !special(part)).collect(),
            depth,
        }
    }

    fn holds(&self, directory: &Path) -> bool {
        let related = directory.starts_with(&self.literal) || self.literal.starts_with(directory);
        related && directory.components().count() < self.depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths_and_stars_stop_at_slashes() {
        for (pattern, matching, other) in [
            ("*.rs", &["a.rs", ".rs"][..], &["a/b.rs", "a.rsx"][..]),
            ("**/*.rs", &["a.rs", "a/b.rs", "a/b/c.rs"], &["a.c"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("a/**/z", &["a/z", "a/b/c/z"], &["a/zz"]),
            ("a?c", &["abc"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "cx"], &["dx"]),
            ("a[!b]x", &["acx"], &["abx", "a/x"]),
            ("a[!]]x", &["abx"], &["a]x", "a/x"]),
            ("a[^b]x", &["acx"], &["abx", "a/x"]),
            ("{a,b/c}.{rs,toml}", &["a.rs", "b/c.toml"], &["b.rs"]),
            ("a\\*", &["a*"], &["ab"]),
        ] {
            let globs = Globs::parse(&[pattern.to_owned()], Bare::Path).unwrap();
            let scope = Scope::of(pattern);
            for path in matching {
                let path = Path::new(path);
                assert!(globs.matches(path), "{pattern} {path:?}");
                let mut above = path.ancestors().skip(1);
                let entered =
                    |directory: &Path| directory.as_os_str().is_empty() || scope.holds(directory);
                assert!(above.all(entered), "{pattern} is looked for at {path:?}");
            }
            for path in other {
                assert!(!globs.matches(Path::new(path)), "{pattern} {path}");
            }
        }
        let named = Globs::parse(&["*.rs".to_owned()], Bare::Name).unwrap();
        assert!(named.matches(Path::new("a/b.rs")));
    }

    #[test]
    fn only_where_a_match_can_be_is_looked() {
        let scope = Scope::of("src/api/*.rs");
        for (directory, held) in [
            ("src", true),
            ("src/api", true),
            ("src/api/deep", false),
            ("src/other", false),
            ("target", false),
        ] {
            assert_eq!(scope.holds(Path::new(directory)), held, "{directory}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for (pattern, words) in [
            ("", "empty"),
            ("/a", "absolute"),
            ("a/../b", "contains .."),
            ("[a", "\"[a\""),
            ("{a", "\"{a\""),
            ("a\\", "\"a\\\\\""),
        ] {
            let error = Globs::parse(&[pattern.to_owned()], Bare::Path).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
