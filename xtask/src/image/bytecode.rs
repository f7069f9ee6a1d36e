//! Byte code of the modules that Python's packages bring, as their scripts would have compiled it. In a
//! read-only image, Python could not keep what it compiles, and every process would compile again.
//!
//! The image's own interpreter does it, from a directory and without privilege, so this works for the
//! architecture of this machine only.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::scratch::Directory;
use super::tree::{Entry, Kind, Tree};

/// Paths by the architecture: the dynamic linker, and the directory of libraries.
const LINKER: (&str, &str) = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
    _ => ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
};
const INTERPRETER: &str = "usr/bin/python3";
const MODULES: &str = "usr/lib/python3/dist-packages";
const CACHE: &str = "/__pycache__/";

/// Adds the compiled modules to a tree that brings some, and lies above others.
pub(crate) fn compile(below: &[&Tree], tree: &mut Tree, work: &Path) -> Result<()> {
    let mut trees = below.to_vec();
    trees.push(tree);
    let target = trees
        .iter()
        .find_map(|tree| tree.entries().find(|(path, _)| *path == INTERPRETER));
    let Some((_, Kind::Symlink(version))) = target.map(|(path, entry)| (path, &entry.kind)) else {
        bail!("no package brings the link {INTERPRETER}");
    };
    let program = format!("usr/bin/{version}");
    let mut modules = vec![format!("usr/lib/{version}"), MODULES.to_owned()];
    let brought = |directory: &String| tree.entries().any(|(path, _)| within(path, directory));
    modules.retain(brought);
    let directory = Directory::create(work.join(format!("python-{}", std::process::id())))?;
    for tree in trees {
        write(tree, directory.path())?;
    }
    let root = fs::canonicalize(directory.path())?;
    let (linker, libraries) = LINKER;
    let output = Command::new(root.join(linker))
        .arg("--library-path")
        .arg(root.join(libraries))
        .arg(root.join(&program))
        // Without -B, what the compiler itself imports would be kept with the time of its source.
        .args(["-I", "-S", "-B", "-m", "compileall", "-q", "-j", "1"])
        // Right even where a derived image replaces a module, and without times in it.
        .args(["--invalidation-mode", "checked-hash"])
        .arg("-s")
        .arg(&root)
        .args(["-p", "/"])
        .args(modules.iter().map(|directory| root.join(directory)))
        .env_clear()
        .env("PYTHONHASHSEED", "0")
        .current_dir(&root)
        .stdin(Stdio::null())
        .output()
        .context("the image's interpreter does not start on this machine")?;
    // A module that does not compile, such as a template, is no trouble: Python would say so on import.
    for directory in &modules {
        let mut compiled = Tree::default();
        collect(&root, directory, &mut compiled)?;
        let mut count = 0_u32;
        for (path, entry) in compiled.entries() {
            // Those of a layer below are compiled again, to the same bytes, and are there already.
            if entry.kind != Kind::Directory && !below.iter().any(|tree| tree.contains(path)) {
                tree.insert(path, entry.clone())?;
                count += 1;
            }
        }
        ensure!(
            count > 0,
            "nothing in {directory} was compiled ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Whether a path is below a directory.
fn within(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Takes over the files below `path` that are in a cache.
fn collect(root: &Path, path: &str, tree: &mut Tree) -> Result<()> {
    for found in fs::read_dir(root.join(path)).with_context(|| path.to_owned())? {
        let found = found?;
        let name = found.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{path}: a name is no UTF-8"))?;
        let inner = format!("{path}/{name}");
        let kind = found.file_type()?;
        if kind.is_dir() {
            collect(root, &inner, tree)?;
        } else if kind.is_file() && inner.contains(CACHE) {
            tree.insert(&inner, Entry::file(fs::read(found.path())?))?;
        }
    }
    Ok(())
}

/// Writes a tree's files, for this user. A link that begins at the root is left out: here it would lead to
/// a file of this machine.
fn write(tree: &Tree, root: &Path) -> Result<()> {
    for (path, entry) in tree.entries() {
        let to = root.join(path);
        match &entry.kind {
            Kind::Directory => fs::create_dir_all(&to),
            Kind::File(content) => fs::write(&to, content).and_then(|()| {
                fs::set_permissions(&to, Permissions::from_mode(entry.mode | 0o600))
            }),
            Kind::Symlink(target) if !target.starts_with('/') && !to.exists() => {
                symlink(target, &to)
            }
            Kind::Symlink(_) | Kind::Hardlink(_) => Ok(()),
        }
        .with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_this_machine_are_not_written_and_only_caches_are_collected() {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        for (path, entry) in [
            ("modules/a.py", Entry::file("a")),
            (
                "modules/b.so.1",
                Entry::root(Kind::File(b"b".to_vec()), 0o755),
            ),
            ("modules/b.so", Entry::symlink("b.so.1")),
            ("modules/site.py", Entry::symlink("/etc/passwd")),
            ("modules/__pycache__/a.pyc", Entry::file("compiled")),
            (
                "modules/inner/__pycache__/c.pyc",
                Entry::file("compiled too"),
            ),
        ] {
            tree.insert(path, entry).unwrap();
        }
        write(&tree, directory.path()).unwrap();
        let at = |path: &str| directory.path().join(path);
        assert_eq!(fs::read(at("modules/b.so")).unwrap(), b"b");
        assert!(fs::symlink_metadata(at("modules/site.py")).is_err());
        let mode = fs::metadata(at("modules/b.so.1"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);

        let mut compiled = Tree::default();
        collect(directory.path(), "modules", &mut compiled).unwrap();
        let files = compiled
            .entries()
            .filter(|(_, e)| e.kind != Kind::Directory);
        assert_eq!(files.count(), 2);
        assert_eq!(
            compiled.file("modules/__pycache__/a.pyc"),
            Some(&b"compiled"[..])
        );
        assert!(
            compiled.contains("modules/inner/__pycache__/c.pyc")
                && !compiled.contains("modules/a.py")
        );
    }

    #[test]
    fn an_image_without_an_interpreter_is_an_error_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut python = Tree::default();
        let error = compile(&[], &mut python, directory.path()).unwrap_err();
        assert!(error.to_string().contains(INTERPRETER), "{error}");
        python
            .insert(INTERPRETER, Entry::symlink("python3.0"))
            .unwrap();
        let error = compile(&[], &mut python, directory.path()).unwrap_err();
        assert!(error.to_string().contains("does not start"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
