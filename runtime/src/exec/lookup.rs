//! Finding the file of a program the way `execvp` does.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file to execute for `program`, seen from `directory`, which relative entries of `path` and
/// program names with a slash start from.
///
/// # Errors
/// `NOENT` when no entry has it; `ACCESS` when only files that may not be executed have the name.
pub(super) fn find(
    program: &CStr,
    path: Option<&OsStr>,
    directory: impl AsFd,
) -> Result<CString, Errno> {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return Ok(program.to_owned());
    }
    let path = path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH)).as_bytes();
    let mut answer = Errno::NOENT;
    for entry in path.split(|byte| *byte == b':') {
        // An empty entry is the working directory.
        let entry = if entry.is_empty() { b"." } else { entry };
        let Ok(candidate) = CString::new([entry, b"/", name].concat()) else {
            continue;
        };
        match runnable(&candidate, &directory) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => answer = error,
        }
    }
    Err(answer)
}

fn runnable(candidate: &CStr, directory: impl AsFd) -> Result<(), Errno> {
    let directory = if candidate.to_bytes().starts_with(b"/") {
        CWD
    } else {
        directory.as_fd()
    };
    rustix::fs::accessat(directory, candidate, Access::EXEC_OK, AtFlags::EACCESS)?;
    let status = rustix::fs::statat(directory, candidate, AtFlags::empty())?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::ACCESS),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn search(program: &str, path: Option<&str>, directory: &File) -> Result<String, Errno> {
        let program = CString::new(program).unwrap();
        find(&program, path.map(OsStr::new), directory).map(|file| file.into_string().unwrap())
    }

    #[test]
    fn follows_path_order_and_skips_what_cannot_run() {
        let tree = tempfile::tempdir().unwrap();
        for (file, mode) in [("a/tool", 0o644), ("b/tool", 0o755), ("c/tool", 0o755)] {
            let file = tree.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir_all(tree.path().join("b/folder")).unwrap();
        let here = File::open(tree.path()).unwrap();
        assert_eq!(search("tool", Some("a:b:c"), &here).unwrap(), "b/tool");
        assert_eq!(search("tool", Some("a:nowhere"), &here), Err(Errno::ACCESS));
        assert_eq!(search("tool", Some("nowhere"), &here), Err(Errno::NOENT));
        assert_eq!(search("folder", Some("b"), &here), Err(Errno::ACCESS));
        assert_eq!(search("", Some("/bin"), &here), Err(Errno::ACCESS));
        assert_eq!(search("./x y", Some("/bin"), &here).unwrap(), "./x y");
        assert_eq!(search("sh", None, &here).unwrap(), "/bin/sh");
        let inside = File::open(tree.path().join("b")).unwrap();
        assert_eq!(search("tool", Some(":/bin"), &inside).unwrap(), "./tool");
    }
}
