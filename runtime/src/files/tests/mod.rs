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
        let secret = CANARY.repeat(SIZE / CANARY.len() + 1);
        for directory in ["", "a", "a/b", "f", "sub"] {
            fs::create_dir_all(outside.join(directory)).unwrap();
            for name in ["secret", MARKER] {
                fs::write(outside.join(directory).join(name), &secret[..SIZE]).unwrap();
            }
        }
        fs::write(outside.join("a/f"), &secret[..SIZE]).unwrap();
        fs::write(outside.join("sub/f"), &secret[..SIZE]).unwrap();
        fs::write(outer.path().join("secret"), &secret[..SIZE]).unwrap();
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
