//! That nothing reaches outside the root, whatever is called in whatever order, and whatever a command
//! does to the tree meanwhile.

mod calls;
mod race;
mod sequences;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::*;

/// In every file outside, and nowhere inside.
const CANARY: &str = "CANARY";
/// The size of every file outside.
const SIZE: usize = 7919;

/// The name of a file in every directory outside, which nobody asks for.
const MARKER: &str = "marker";

/// `outer/root` is the root; everything else in `outer` is outside.
struct World {
    outer: tempfile::TempDir,
    root: Root,
    before: BTreeMap<PathBuf, String>,
}

impl World {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let outside = outer.path().join("outside");
        let secret: Vec<u8> = CANARY.bytes().cycle().take(SIZE).collect();
        for directory in ["", "a", "a/b", "f", "sub"] {
            fs::create_dir_all(outside.join(directory)).unwrap();
            for name in ["secret", MARKER] {
                fs::write(outside.join(directory).join(name), &secret).unwrap();
            }
        }
        fs::write(outside.join("a/f"), &secret).unwrap();
        fs::write(outside.join("sub/f"), &secret).unwrap();
        fs::write(outer.path().join("secret"), &secret).unwrap();
        let root = Root::open(outer.path().join("root")).unwrap();
        let before = seen(outer.path());
        Self {
            outer,
            root,
            before,
        }
    }

    fn outside(&self) -> PathBuf {
        self.outer.path().join("outside")
    }

    /// The root without the engine, for what a command would do. It does not leave either.
    fn behind(&self) -> cap_std::fs::Dir {
        let authority = cap_std::ambient_authority();
        cap_std::fs::Dir::open_ambient_dir(self.root.path(), authority).unwrap()
    }

    /// Panics unless everything outside is as it was and nothing of it is inside.
    fn check(&self) {
        assert_eq!(seen(self.outer.path()), self.before, "outside has changed");
        free_of_canaries(self.root.path());
    }
}

/// Everything outside: what it is and what is in it.
fn seen(outer: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![outer.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path == outer.join("root") {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let facts = format!(
                "{:o} {} {} {} {}.{} {}",
                metadata.mode(),
                metadata.uid(),
                metadata.nlink(),
                metadata.len(),
                metadata.ctime(),
                metadata.ctime_nsec(),
                content.len() == SIZE && String::from_utf8_lossy(&content).starts_with(CANARY),
            );
            if metadata.is_dir() {
                open.push(path.clone());
            }
            seen.insert(path, facts);
        }
    }
    seen
}

fn free_of_canaries(inside: &Path) {
    let mut open = vec![inside.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() {
                let content = fs::read(&path).unwrap();
                assert!(!told(&content), "{} is inside", path.display());
            }
        }
    }
}

/// Whether something of the outside is in an answer.
fn told(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, CANARY.as_bytes()).is_some()
}

#[test]
fn work_ends_when_nobody_waits_any_more() {
    let world = World::new();
    fs::create_dir(world.root.path().join("d")).unwrap();
    fs::write(world.root.path().join("d/f"), "inside").unwrap();
    let (caller, waiting) = Caller::new();
    let path = TreePath::parse("d").unwrap();
    let to = TreePath::parse("e").unwrap();
    assert!(world.root.glob(&path, "**", 10, &caller).is_ok());
    drop(waiting);
    let none = || Globs::parse(&[], Bare::Name).unwrap();
    let selection = Selection {
        only: none(),
        except: none(),
    };
    let replacement = Replacement {
        pattern: Pattern::compile("inside", Syntax::Literal, false).unwrap(),
        with: "changed".into(),
        syntax: Syntax::Literal,
        expected: None,
        max_file_bytes: 100,
    };
    let search = Search {
        pattern: replacement.pattern.clone(),
        selection: selection.clone(),
        limit: 10,
        max_file_bytes: 100,
        max_line_bytes: 100,
    };
    let root = &world.root;
    let below = Targets::Below(path.clone(), selection);
    let outcomes = [
        root.glob(&path, "**", 10, &caller).err(),
        root.search(&path, &search, &caller).err(),
        root.replace(&below, &replacement, &caller).err(),
        root.copy(&path, &to, Existing::Keep, &caller).err(),
        root.watch(&path, Depth::Recursive, &caller).err(),
        root.pack(&path)
            .and_then(|packing| packing.run(|_| Ok(()), &caller))
            .err(),
    ];
    for (index, outcome) in outcomes.into_iter().enumerate() {
        assert!(
            matches!(outcome, Some(FileError::Cancelled)),
            "{index}: {outcome:?}"
        );
    }
    let names: Vec<_> = fs::read_dir(root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["d"]);
    assert_eq!(fs::read(root.path().join("d/f")).unwrap(), b"inside");
}
