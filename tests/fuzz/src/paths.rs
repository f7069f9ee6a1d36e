//! Paths: whatever is sent, and whatever a link says, nothing outside the root is reached.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Component;

use agent_sandbox_runtime::files::{Caller, LastLink, Root, TreePath};

/// The size of the file outside; no file inside has it.
const CANARY: usize = 7919;

/// A tree of this thread: `root/a/f` inside, `outside/canary` not.
struct Tree {
    outer: tempfile::TempDir,
    root: Root,
}

thread_local! {
    static TREE: Tree = Tree::new();
}

impl Tree {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a directory can be made");
        let root = Root::open(outer.path().join("root")).expect("a root can be made");
        let outside = outer.path().join("outside");
        fs::create_dir_all(root.path().join("a/b")).expect("a directory can be made");
        fs::create_dir(&outside).expect("a directory can be made");
        fs::write(root.path().join("a/f"), "inside").expect("a file can be made");
        fs::write(outside.join("canary"), [0; CANARY]).expect("a file can be made");
        Self { outer, root }
    }
}

/// Reads a line with a path, and the text of the link `link`. `OUTER` stands for the directory around
/// the root.
pub(crate) fn check(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let path = halves.next().unwrap_or_default();
    let target = halves.next().unwrap_or(b".");
    let parsed = TreePath::parse(OsStr::from_bytes(path));
    assert_eq!(parsed.is_err(), path.contains(&0));
    if let Ok(parsed) = &parsed {
        let plain = |part: Component<'_>| {
            matches!(part, Component::Normal(_) | Component::ParentDir)
                || parsed.as_path().as_os_str() == "."
        };
        assert!(parsed.as_path().components().all(plain), "{parsed:?}");
    }
    TREE.with(|tree| reach(tree, path, target));
}

fn reach(tree: &Tree, path: &[u8], target: &[u8]) {
    let outer = tree.outer.path().as_os_str().as_bytes();
    let link = tree.root.path().join("link");
    // What cannot be the text of a link is none.
    drop(symlink(OsStr::from_bytes(&placed(target, outer)), &link));
    let path = placed(path, outer);
    if let Ok(path) = tree.root.parse_absolute(OsStr::from_bytes(&path)) {
        look(&tree.root, &path);
    }
    drop(fs::remove_file(link));
}

fn look(root: &Root, path: &TreePath) {
    for last in [LastLink::Follow, LastLink::Keep] {
        if let Ok(status) = root.stat(path, last) {
            assert_ne!(status.size, CANARY as u64, "{path:?}");
            assert!(
                root.exists(path, last).is_ok_and(|exists| exists),
                "{path:?}"
            );
        }
    }
    if let Ok(file) = root.open_file(path) {
        assert_eq!(file.size, 6, "{path:?}");
    }
    if let Ok(mut listed) = root.list(path, &Caller::default()) {
        assert!(listed.all(|entry| entry.name != "canary"), "{path:?}");
    }
    if let Ok(found) = root.glob(path, "**", 100, &Caller::default()) {
        let canary = |path: &std::path::Path| path.file_name() == Some(OsStr::new("canary"));
        assert!(
            !found.matches.iter().any(|(path, _)| canary(path)),
            "{path:?}"
        );
    }
}

/// With `OUTER` replaced.
fn placed(text: &[u8], outer: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut placed = Vec::new();
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(b"OUTER") {
            placed.extend_from_slice(outer);
            rest = behind;
        } else {
            placed.push(*first);
            rest = behind;
        }
    }
    placed
}
