//! What a layer holds: files and links by path, in memory. Nothing here touches the file system of this
//! machine, so nothing a package names can.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Vec<u8>),
    /// A symbolic link with the path it holds.
    Symlink(String),
    /// A second name of the file at a path of the tree.
    Hardlink(String),
}

/// A path's content with its permission bits and numeric owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Entry {
    pub(crate) fn root(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
        }
    }

    pub(crate) fn directory(mode: u32) -> Self {
        Self::root(Kind::Directory, mode)
    }

    pub(crate) fn file(content: impl Into<Vec<u8>>) -> Self {
        Self::root(Kind::File(content.into()), 0o644)
    }

    pub(crate) fn symlink(target: &str) -> Self {
        Self::root(Kind::Symlink(target.to_owned()), 0o777)
    }

    pub(crate) fn owned_by(mut self, id: u32) -> Self {
        self.uid = id;
        self.gid = id;
        self
    }
}

/// Directories at the top that are links into `usr`, and what packages may still name.
pub(crate) const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

/// Entries by path, which has no slash at its beginning and no `.` or `..` in it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Adds what a package or a step of ours brings. A directory may come again, and so may the very
    /// same entry; anything else that is there already is an error, and so is a path that leads through
    /// something other than directories.
    pub(crate) fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        let path = clean(path)?;
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            let found = self
                .entries
                .entry(parent.to_owned())
                .or_insert_with(|| Entry::directory(0o755));
            if found.kind != Kind::Directory {
                bail!("{path}: leads through {parent}, which is no directory");
            }
        }
        if let Kind::Hardlink(target) = &entry.kind {
            let found = self.entries.get(target).map(|entry| &entry.kind);
            if !matches!(found, Some(Kind::File(_))) {
                bail!("{path}: is another name of {target}, which is no file");
            }
        }
        match self.entries.get(&path) {
            Some(old) if *old == entry => Ok(()),
            Some(old) if old.kind != Kind::Directory || entry.kind != Kind::Directory => {
                bail!("{path}: is there twice, with different content")
            }
            _ => {
                self.entries.insert(path, entry);
                Ok(())
            }
        }
    }

    /// The content of a file.
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(path).map(|entry| &entry.kind) {
            Some(Kind::File(content)) => Some(content),
            _ => None,
        }
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Takes out the entries whose paths are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.entries.retain(|path, _| wanted(path));
    }

    /// Everything in the order of paths, so parents come before what is in them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .iter()
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// What lies above another tree: its entries as well, none of them changed by this one.
    pub(crate) fn check_above(&self, lower: &Self) -> Result<()> {
        for (path, entry) in &self.entries {
            match lower.entries.get(path) {
                Some(old) if old.kind != entry.kind => {
                    bail!("{path}: is in the layer below too, with different content")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A path as packages write it (`./usr/bin/env`) in the form of the tree's paths. The directories that
/// are links into `usr` are followed. A path that could lead out of a root is refused.
pub(crate) fn clean(path: &str) -> Result<String> {
    if path.starts_with('/') || path.contains('\0') {
        bail!("{path:?}: expected a relative path without NUL");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => bail!("{path:?}: contains `..`"),
            part => parts.push(part),
        }
    }
    let (first, rest) = parts
        .split_first()
        .with_context(|| format!("{path:?}: names nothing"))?;
    let merged = MERGED.contains(first) && !rest.is_empty();
    Ok(if merged {
        format!("usr/{}", parts.join("/"))
    } else {
        parts.join("/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_merged() {
        for (written, expected) in [
            ("./usr/bin/env", "usr/bin/env"),
            ("usr//share/./x/", "usr/share/x"),
            ("./bin/sh", "usr/bin/sh"),
            ("lib64/ld.so", "usr/lib64/ld.so"),
            ("./bin", "bin"),
            ("library/x", "library/x"),
        ] {
            assert_eq!(clean(written).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in [
            "/etc/passwd",
            "../x",
            "usr/../../x",
            "usr/..",
            "a\0b",
            "./",
            "",
        ] {
            assert!(clean(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_path_through_a_link_or_a_file_is_refused() {
        let mut tree = Tree::default();
        tree.insert("etc", Entry::symlink("/")).unwrap();
        tree.insert("file", Entry::file("x")).unwrap();
        for path in ["etc/passwd", "file/x"] {
            let error = tree.insert(path, Entry::file("x")).unwrap_err().to_string();
            assert!(error.contains("no directory"), "{error}");
        }
    }

    #[test]
    fn parents_appear_and_directories_may_come_again() {
        let mut tree = Tree::default();
        tree.insert("a/b/c", Entry::file("x")).unwrap();
        tree.insert("a/b", Entry::directory(0o700)).unwrap();
        let paths: Vec<(&str, u32)> = tree.entries().map(|(path, e)| (path, e.mode)).collect();
        assert_eq!(paths, [("a", 0o755), ("a/b", 0o700), ("a/b/c", 0o644)]);
    }

    #[test]
    fn a_file_is_not_replaced_by_another() {
        let mut tree = Tree::default();
        tree.insert("a", Entry::file("x")).unwrap();
        tree.insert("a", Entry::file("x")).unwrap();
        for other in [
            Entry::file("y"),
            Entry::directory(0o755),
            Entry::symlink("x"),
        ] {
            let error = tree.insert("a", other).unwrap_err().to_string();
            assert!(error.contains("twice"), "{error}");
        }
        let mut upper = Tree::default();
        upper.insert("a", Entry::file("y")).unwrap();
        assert!(upper.check_above(&tree).is_err());
    }

    #[test]
    fn a_second_name_needs_a_file() {
        let mut tree = Tree::default();
        let second = |to: &str| Entry::root(Kind::Hardlink(to.to_owned()), 0o644);
        assert!(tree.insert("b", second("a")).is_err());
        tree.insert("a", Entry::file("x")).unwrap();
        tree.insert("b", second("a")).unwrap();
    }
}
