//! Resolution against real trees, and confinement against random ones.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::super::root::Root;
use super::*;

struct Tree {
    outer: tempfile::TempDir,
    root: Root,
}

/// `outer/secret` is outside, `outer/root` is the root.
fn tree() -> Tree {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    let root = Root::open(outer.path().join("root")).unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(root.path().join("a/b/file"), "inside").unwrap();
    Tree { outer, root }
}

impl Tree {
    fn resolve(&self, path: &str) -> Result<String, FileError> {
        let path = TreePath::parse(path)?;
        resolve(&self.root.current().unwrap(), &path)
            .map(|path| path.into_os_string().into_string().unwrap())
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        symlink(target, self.root.path().join(name)).unwrap();
    }
}

#[test]
fn parents_of_missing_names_are_lexical_and_may_not_leave() {
    let tree = tree();
    assert_eq!(tree.resolve("missing/../a").unwrap(), "a");
    assert_eq!(tree.resolve("a/..").unwrap(), ".");
    assert_eq!(tree.resolve("a/b/../../a/b/new").unwrap(), "a/b/new");
    for path in ["..", "../secret", "a/../../secret", "missing/../../secret"] {
        assert!(
            matches!(tree.resolve(path), Err(FileError::Escapes)),
            "{path}"
        );
    }
    // Out and back in is the same place.
    assert_eq!(tree.resolve("../root/a").unwrap(), "a");
}

#[test]
fn links_are_followed_while_they_end_inside() {
    let tree = tree();
    tree.link("a/b", "relative");
    tree.link(tree.root.path().join("a/b/file"), "absolute");
    tree.link("../root/a", "back");
    tree.link("relative/file", "chain");
    tree.link("nowhere", "dangling");
    assert_eq!(tree.resolve("relative/file").unwrap(), "a/b/file");
    assert_eq!(tree.resolve("absolute").unwrap(), "a/b/file");
    assert_eq!(tree.resolve("back/b").unwrap(), "a/b");
    assert_eq!(tree.resolve("chain").unwrap(), "a/b/file");
    assert_eq!(tree.resolve("relative/../x").unwrap(), "a/x");
    assert_eq!(tree.resolve("dangling").unwrap(), "nowhere");
    // The operations themselves agree.
    for name in ["relative/file", "absolute", "back/b/file", "chain"] {
        let path = TreePath::parse(name).unwrap();
        assert_eq!(tree.root.metadata(&path).unwrap().len(), 6, "{name}");
    }
}

#[test]
fn links_that_leave_are_refused_at_every_depth() {
    let tree = tree();
    tree.link("..", "up");
    tree.link(tree.outer.path().join("secret"), "absolute");
    tree.link("/etc", "etc");
    tree.link("../secret", "a/../sneaky");
    tree.link(tree.outer.path(), "a/outer");
    for path in [
        "up",
        "up/secret",
        "absolute",
        "etc/passwd",
        "sneaky",
        "a/outer/secret",
        "a/outer/not/yet/there",
    ] {
        assert!(
            matches!(tree.resolve(path), Err(FileError::Escapes)),
            "{path}"
        );
        let parsed = TreePath::parse(path).unwrap();
        assert!(
            matches!(tree.root.metadata(&parsed), Err(FileError::Escapes)),
            "{path}"
        );
    }
}

#[test]
fn loops_end() {
    let tree = tree();
    tree.link("two", "one");
    tree.link("one", "two");
    tree.link(".", "self");
    assert_eq!(tree.resolve("one").unwrap_err().errno(), Some(Errno::LOOP));
    assert_eq!(tree.resolve("self/self/a").unwrap(), "a");
}

#[test]
fn a_root_reached_through_a_link_knows_both_its_names() {
    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("real")).unwrap();
    symlink("real", outer.path().join("alias")).unwrap();
    let root = Root::open(outer.path().join("alias")).unwrap();
    fs::write(outer.path().join("real/file"), "x").unwrap();
    for name in ["alias", "real"] {
        symlink(
            outer.path().join(name).join("file"),
            root.path().join(format!("by-{name}")),
        )
        .unwrap();
        let path = TreePath::parse(format!("by-{name}")).unwrap();
        assert_eq!(root.metadata(&path).unwrap().len(), 1, "{name}");
    }
}

#[test]
fn a_root_made_anew_is_found_again() {
    let tree = tree();
    let path = TreePath::parse("new").unwrap();
    fs::remove_dir_all(tree.root.path()).unwrap();
    assert_eq!(
        tree.root.metadata(&path).unwrap_err().errno(),
        Some(Errno::NOENT)
    );
    fs::create_dir(tree.root.path()).unwrap();
    fs::write(tree.root.path().join("new"), "anew").unwrap();
    assert_eq!(tree.root.metadata(&path).unwrap().len(), 4);
}

/// Names and link targets that climb, loop, and point outside.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("link0".to_owned()),
        Just("link1".to_owned()),
        Just("link2".to_owned()),
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("secret".to_owned()),
        Just("root".to_owned()),
    ]
}

fn joined() -> impl Strategy<Value = String> {
    (any::<bool>(), proptest::collection::vec(segment(), 1..6)).prop_map(|(absolute, parts)| {
        format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the links, what is opened lies beneath the root, and agrees with the system's own
    /// resolution of the same path.
    #[test]
    fn no_path_and_no_link_reaches_outside(
        targets in proptest::collection::vec((any::<bool>(), joined()), 3),
        path in joined(),
    ) {
        let tree = tree();
        for (index, (outside, target)) in targets.iter().enumerate() {
            let target = if *outside {
                format!("{}/{}", tree.outer.path().display(), target.trim_start_matches('/'))
            } else {
                target.trim_start_matches('/').to_owned()
            };
            tree.link(target, &format!("link{index}"));
        }
        let parsed = TreePath::parse(&path).unwrap();
        let real_root = fs::canonicalize(tree.root.path()).unwrap();
        let system = fs::canonicalize(tree.root.path().join(path.trim_start_matches('/')));
        match tree.root.metadata(&parsed) {
            Ok(found) => {
                use cap_std::fs::MetadataExt as _;
                let secret = fs::metadata(tree.outer.path().join("secret")).unwrap();
                prop_assert_ne!(found.ino(), std::os::unix::fs::MetadataExt::ino(&secret));
                let outer = fs::metadata(tree.outer.path()).unwrap();
                prop_assert_ne!(found.ino(), std::os::unix::fs::MetadataExt::ino(&outer));
                // `missing/..` is allowed here and an error for the system.
                if let Ok(system) = system {
                    prop_assert!(system.starts_with(&real_root), "{:?}", system);
                }
            }
            Err(FileError::Escapes) => {
                if let Ok(system) = system {
                    prop_assert!(!system.starts_with(&real_root), "{:?}", system);
                }
            }
            Err(error) => prop_assert!(error.is_absent(), "{:?}", error),
        }
    }
}
