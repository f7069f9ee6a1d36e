//! The bounds of a watch.

use super::*;

#[test]
fn limits_of_the_system_are_named() {
    for (error, name) in [
        (Errno::MFILE, "fs.inotify.max_user_instances"),
        (Errno::NFILE, "fs.file-max"),
        (Errno::NOSPC, "fs.inotify.max_user_watches"),
    ] {
        let error = limited(error);
        assert!(matches!(error, FileError::Exhausted(_)));
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(matches!(limited(Errno::ACCESS), FileError::System { .. }));
}

#[test]
fn a_flood_is_told_in_pieces_and_its_rest_as_an_overflow() {
    let outer = tempfile::tempdir().unwrap();
    let root = Root::open(outer.path().join("root")).unwrap();
    let new = outer.path().join("new");
    std::fs::create_dir(&new).unwrap();
    for number in 0..MAX_FOUND + 10 {
        std::fs::create_dir(new.join(number.to_string())).unwrap();
    }
    let path = TreePath::parse("").unwrap();
    let caller = Caller::default();
    let mut watch = root.watch(&path, Depth::Recursive, &caller).unwrap();
    for number in 0..BATCH {
        let name = root.path().join(format!("f{number}"));
        std::fs::write(&name, "x").unwrap();
    }
    std::fs::rename(&new, root.path().join("last")).unwrap();
    let (mut overflows, mut pieces) = (0, 0);
    loop {
        let mut changes = Vec::new();
        let drained = watch.drain(&mut changes).unwrap();
        assert!(changes.len() <= BATCH + MAX_FOUND + 2, "{}", changes.len());
        let overflow = Change::Overflow(MORE.into());
        overflows += changes.iter().filter(|change| **change == overflow).count();
        pieces += 1;
        if drained == Drained::Empty {
            break;
        }
    }
    assert_eq!(overflows, 1);
    assert!(pieces > 2, "{pieces}");
    // All of it is watched all the same.
    assert_eq!(watch.directories(), MAX_FOUND + 12);
}

#[test]
fn a_watch_too_many_is_refused_and_an_ended_one_makes_room() {
    let outer = tempfile::tempdir().unwrap();
    let root = Root::open(outer.path().join("root")).unwrap();
    let watch = || {
        let path = TreePath::parse("").unwrap();
        root.watch(&path, Depth::Entries, &Caller::default())
    };
    let mut open = Vec::new();
    let error = loop {
        match watch() {
            Ok(watch) => open.push(watch),
            Err(error) => break error,
        }
    };
    // Other programs of this user may hold many of the system's.
    assert!(open.len() <= 32, "{}", open.len());
    assert!(matches!(error, FileError::Exhausted(_)), "{error}");
    open.pop();
    open.push(watch().unwrap());
}

/// A watched root beside a directory that is not watched, and what happened in it.
struct Beside {
    outer: tempfile::TempDir,
    root: Root,
}

impl Beside {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let root = Root::open(outer.path().join("root")).unwrap();
        std::fs::create_dir(outer.path().join("elsewhere")).unwrap();
        Self { outer, root }
    }

    fn watch(&self) -> Watch {
        let path = TreePath::parse("").unwrap();
        let caller = Caller::default();
        self.root.watch(&path, Depth::Recursive, &caller).unwrap()
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn make(&self, name: &str) {
        std::fs::create_dir(self.inside(name)).unwrap();
    }

    fn leave(&self, name: &str) {
        let to = self.outer.path().join("elsewhere").join(name);
        std::fs::rename(self.inside(name), to).unwrap();
    }
}

fn drained(watch: &mut Watch) -> Vec<Change> {
    let mut changes = Vec::new();
    while watch.drain(&mut changes).unwrap() != Drained::Empty {}
    changes
}

fn created(path: &str, directory: bool) -> Change {
    Change::Created {
        path: path.into(),
        directory,
    }
}

fn removed(path: &str) -> Change {
    Change::Removed(path.into())
}

#[test]
fn what_left_is_told_before_what_has_its_name_now() {
    let beside = Beside::new();
    beside.make("a");
    beside.make("a/b");
    std::fs::write(beside.inside("f"), "x").unwrap();
    let mut watch = beside.watch();
    std::fs::create_dir(beside.outer.path().join("elsewhere/a")).unwrap();
    beside.leave("a/b");
    std::fs::remove_dir_all(beside.outer.path().join("elsewhere/a")).unwrap();
    beside.leave("a");
    beside.make("a");
    beside.make("a/b");
    beside.leave("f");
    std::fs::hard_link(beside.outer.path().join("elsewhere/f"), beside.inside("f")).unwrap();
    assert_eq!(
        drained(&mut watch),
        [
            removed("a/b"),
            removed("a"),
            created("a", true),
            created("a/b", true),
            removed("f"),
            created("f", false),
        ]
    );
    assert_eq!(watch.directories(), 3);
    // What is new is heard, what left is not.
    std::fs::create_dir(beside.outer.path().join("elsewhere/a/old")).unwrap();
    beside.make("a/b/new");
    assert_eq!(drained(&mut watch), [created("a/b/new", true)]);
}

#[test]
fn what_left_is_told_before_another_is_moved_to_its_name() {
    let beside = Beside::new();
    for name in ["a", "b", "b/c"] {
        beside.make(name);
    }
    let mut watch = beside.watch();
    std::fs::create_dir(beside.outer.path().join("elsewhere/b")).unwrap();
    beside.leave("a");
    beside.leave("b/c");
    std::fs::rename(beside.inside("b"), beside.inside("a")).unwrap();
    let moved = Change::Moved {
        from: "b".into(),
        path: "a".into(),
    };
    assert_eq!(drained(&mut watch), [removed("a"), removed("b/c"), moved]);
    assert_eq!(watch.directories(), 2);
    std::fs::create_dir(beside.outer.path().join("elsewhere/b/c/old")).unwrap();
    beside.make("a/new");
    assert_eq!(drained(&mut watch), [created("a/new", true)]);
}

#[test]
fn after_lost_events_only_what_is_there_is_watched_where_it_is() {
    let most = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    let beside = Beside::new();
    for name in ["left", "left/below", "half", "gone", "old", "old/below"] {
        beside.make(name);
    }
    let mut watch = beside.watch();
    assert_eq!(watch.directories(), 7);
    // The first half of a move is the last that is told before events are lost.
    for number in 1..most {
        let file = beside.inside("f");
        if number % 2 == 1 {
            std::fs::write(&file, "").unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
    }
    for name in ["half", "left"] {
        beside.leave(name);
    }
    std::fs::remove_dir(beside.inside("gone")).unwrap();
    std::fs::rename(beside.inside("old"), beside.inside("new")).unwrap();
    beside.make("late");
    let overflow = Change::Overflow(FASTER.into());
    assert!(drained(&mut watch).contains(&overflow));
    // The directory itself, the moved ones and the late one.
    assert_eq!(watch.directories(), 4);
    for name in ["left/x", "left/below/x", "half/x"] {
        std::fs::write(beside.outer.path().join("elsewhere").join(name), "").unwrap();
    }
    beside.make("new/below/x");
    beside.make("late/x");
    assert_eq!(
        drained(&mut watch),
        [created("new/below/x", true), created("late/x", true)]
    );
}

#[test]
fn a_directory_that_went_on_before_it_was_found_is_watched() {
    let beside = Beside::new();
    let mut watch = beside.watch();
    beside.make("a");
    std::fs::rename(beside.inside("a"), beside.inside("b")).unwrap();
    beside.make("a");
    drained(&mut watch);
    assert_eq!(watch.directories(), 3);
    for name in ["a/x", "b/x"] {
        beside.make(name);
    }
    assert_eq!(
        drained(&mut watch),
        [created("a/x", true), created("b/x", true)]
    );
}

#[test]
fn directories_that_changed_places_are_watched_where_they_are() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let beside = Beside::new();
    for name in ["a", "a/one", "b", "b/other", "c", "c/third"] {
        beside.make(name);
    }
    let mut watch = beside.watch();
    let exchange = |one, other| {
        let (one, other) = (beside.inside(one), beside.inside(other));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    };
    let moved = |from: &str, path: &str| Change::Moved {
        from: from.into(),
        path: path.into(),
    };
    exchange("a", "b");
    assert_eq!(drained(&mut watch), [moved("a", "b"), moved("b", "a")]);
    // Once more, with a third, before anybody looks.
    exchange("b", "c");
    exchange("c", "a");
    drained(&mut watch);
    for name in ["a/one/x", "b/third/x", "c/other/x"] {
        beside.make(name);
    }
    assert_eq!(
        drained(&mut watch),
        [
            created("a/one/x", true),
            created("b/third/x", true),
            created("c/other/x", true)
        ]
    );
    assert_eq!(watch.directories(), 10);
}

#[test]
fn a_directory_that_replaced_an_empty_one_is_watched_where_it_goes() {
    let beside = Beside::new();
    for name in ["a", "a/below", "b"] {
        beside.make(name);
    }
    let mut watch = beside.watch();
    std::fs::rename(beside.inside("a"), beside.inside("b")).unwrap();
    drained(&mut watch);
    std::fs::rename(beside.inside("b"), beside.inside("a")).unwrap();
    drained(&mut watch);
    beside.make("a/below/x");
    assert_eq!(drained(&mut watch), [created("a/below/x", true)]);
    assert_eq!(watch.directories(), 4);
}
