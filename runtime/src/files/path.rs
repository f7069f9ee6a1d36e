//! Paths as clients send them, parsed into names beneath the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::error::FileError;

/// A path relative to the root. It may still contain `..` and pass through links.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreePath {
    relative: PathBuf,
    climbs: bool,
}

impl TreePath {
    /// From what a client sent: leading slashes mean the root, empty and `.` segments mean nothing.
    ///
    /// # Errors
    /// A NUL byte.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, FileError> {
        let text = text.as_ref();
        if text.as_bytes().contains(&0) {
            return Err(FileError::Nul);
        }
        let mut relative = PathBuf::new();
        let mut climbs = false;
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::ParentDir => {
                    climbs = true;
                    relative.push("..");
                }
                Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
        if relative.as_os_str().is_empty() {
            relative.push(".");
        }
        Ok(Self { relative, climbs })
    }

    /// A part of a parsed path.
    pub(super) fn relative(path: &Path) -> Self {
        Self {
            relative: path.to_owned(),
            climbs: path.components().any(|part| part == Component::ParentDir),
        }
    }

    /// The path, relative; `.` for the root itself.
    pub fn as_path(&self) -> &Path {
        &self.relative
    }

    /// Whether it contains `..`.
    pub(super) fn climbs(&self) -> bool {
        self.climbs
    }

    /// The path of a directory entry.
    pub(super) fn entry(&self, name: &Path) -> Self {
        Self {
            relative: self.relative.join(name),
            climbs: self.climbs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_and_dots_are_normalised_but_parents_are_kept() {
        for (text, path, climbs) in [
            ("", ".", false),
            ("/", ".", false),
            (".", ".", false),
            ("./", ".", false),
            ("///foo.txt", "foo.txt", false),
            ("a//b/./c/", "a/b/c", false),
            ("../x", "../x", true),
            ("/a/../../b", "a/../../b", true),
            (" ", " ", false),
            ("...", "...", false),
            ("a%2Fb", "a%2Fb", false),
        ] {
            let parsed = TreePath::parse(text).unwrap();
            assert_eq!(parsed.as_path(), Path::new(path), "{text:?}");
            assert_eq!(parsed.climbs(), climbs, "{text:?}");
        }
        assert!(matches!(TreePath::parse("a\0b"), Err(FileError::Nul)));
    }
}
