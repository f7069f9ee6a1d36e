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
