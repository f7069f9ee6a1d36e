//! Directories of generated files that change all at once.
//!
//! The layout is the one programs on Kubernetes know: the files live in a directory with a unique
//! name, `..data` is a symbolic link to it, and every visible name is a link through `..data`. An
//! update writes a new directory and replaces one link, so a reader sees either the old set or the
//! new one. Nothing is written when nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::Ownership;

/// Name of the link that is replaced.
const DATA: &str = "..data";

/// One generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) content: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Files by relative path.
pub(crate) type Files = BTreeMap<PathBuf, FileEntry>;

/// Whether the directory had to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unchanged,
    Replaced,
}

/// Makes `directory` show exactly `files`. Paths must have passed [`is_valid_path`].
pub(crate) fn write(directory: &Path, files: &Files, owner: Ownership) -> io::Result<Outcome> {
    fs::create_dir_all(directory)?;
    let current = fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && read(&directory.join(current))? == *files
    {
        return Ok(Outcome::Unchanged);
    }
    let name = fresh_name();
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
    owner.apply(&fresh)?;
    for (path, file) in files {
        write_file(&fresh, path, file, owner)?;
    }
    let temporary = directory.join("..data_tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(&name, &temporary)?,
    }
    fs::rename(&temporary, directory.join(DATA))?;
    show(directory, files)?;
    if let Some(old) = current {
        fs::remove_dir_all(directory.join(old))?;
    }
    owner.apply(directory)?;
    Ok(Outcome::Replaced)
}

/// Whether a path may be generated: relative, without `..`, and no name that starts with `..`
/// where the bookkeeping lives.
pub(crate) fn is_valid_path(path: &Path) -> bool {
    let mut components = path.components();
    let Some(Component::Normal(first)) = components.next() else {
        return false;
    };
    !first.as_encoded_bytes().starts_with(b"..")
        && components.all(|component| matches!(component, Component::Normal(_)))
}

fn fresh_name() -> OsString {
    let now = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    format!("..{now}.{:09}", fastrand::u32(0..1_000_000_000)).into()
}

fn write_file(root: &Path, path: &Path, file: &FileEntry, owner: Ownership) -> io::Result<()> {
    let mut parent = root.to_owned();
    for component in path.parent().into_iter().flat_map(Path::components) {
        parent.push(component);
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) => {
                fs::set_permissions(&parent, Permissions::from_mode(0o755))?;
                owner.apply(&parent)?;
            }
        }
    }
    let target = root.join(path);
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target)?;
    handle.write_all(&file.content)?;
    owner.apply(&target)?;
    // Last, so that no secret is ever more open than asked; and the umask does not count.
    handle.set_permissions(Permissions::from_mode(file.mode))
}

/// Links every top-level name through `..data` and removes names that are gone.
fn show(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&OsStr> = files.keys().filter_map(|path| path.iter().next()).collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let ours = name.as_encoded_bytes().starts_with(b"..");
        if !ours && !wanted.contains(name.as_os_str()) {
            fs::remove_file(directory.join(name))?;
        }
    }
    for name in wanted {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a directory written by [`write`] holds.
fn read(directory: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for entry in fs::read_dir(directory.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            let meta = entry.metadata()?;
            if meta.is_dir() {
                pending.push(path);
            } else {
                let content = fs::read(entry.path())?;
                let mode = meta.permissions().mode() & 0o7777;
                files.insert(path, FileEntry { content, mode });
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let entry = |(path, content): &(&str, &str)| {
            let content = content.as_bytes().to_vec();
            (
                PathBuf::from(path),
                FileEntry {
                    content,
                    mode: 0o640,
                },
            )
        };
        entries.iter().map(entry).collect()
    }

    fn visible(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_update_replaces_every_file_with_one_rename() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let write =
            |list: &[(&str, &str)]| write(path, &files(list), Ownership::default()).unwrap();
        assert_eq!(write(&[("a", "1"), ("dir/b", "2")]), Outcome::Replaced);
        assert_eq!(visible(path), ["a", "dir"]);
        assert_eq!(fs::read_to_string(path.join("dir/b")).unwrap(), "2");
        let mode = fs::metadata(path.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        // A reader that holds the old directory open keeps the old set.
        let held = fs::File::open(path.join("a")).unwrap();
        let before = fs::read_link(path.join("..data")).unwrap();
        assert_eq!(write(&[("a", "1"), ("dir/b", "2")]), Outcome::Unchanged);
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), before);
        assert_eq!(write(&[("a", "new"), ("c", "3")]), Outcome::Replaced);
        assert_ne!(fs::read_link(path.join("..data")).unwrap(), before);
        assert_eq!(io::read_to_string(held).unwrap(), "1");
        assert_eq!(visible(path), ["a", "c"]);
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "new");
        assert_eq!(
            fs::read_link(path.join("a")).unwrap(),
            Path::new("..data/a"),
            "names lead through the link that is replaced"
        );
        let directories = fs::read_dir(path)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(directories.count(), 1, "the old directory is gone");
    }

    #[test]
    fn the_empty_set_and_a_changed_mode_are_changes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |files: &Files| write(directory.path(), files, Ownership::default()).unwrap();
        let mut set = files(&[("a", "1")]);
        assert_eq!(write(&set), Outcome::Replaced);
        set.get_mut(Path::new("a")).unwrap().mode = 0o400;
        assert_eq!(write(&set), Outcome::Replaced);
        assert_eq!(write(&Files::new()), Outcome::Replaced);
        assert_eq!(visible(directory.path()), Vec::<String>::new());
        assert_eq!(write(&Files::new()), Outcome::Unchanged);
    }

    #[test]
    fn paths_that_leave_or_collide_with_the_bookkeeping_are_refused() {
        for good in ["a", "a/b", "a..b", ".hidden", "a/..b"] {
            assert!(is_valid_path(Path::new(good)), "{good}");
        }
        for bad in ["", "/a", "..", "../a", "a/../b", "..data", "./a", "..x/y"] {
            assert!(!is_valid_path(Path::new(bad)), "{bad}");
        }
    }
}
