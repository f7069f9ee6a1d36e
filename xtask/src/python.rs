//! The Python side: finding an interpreter and keeping a virtual environment with pinned packages.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, report};

/// Interpreters tried in order; the first that is new enough is used.
const INTERPRETERS: &[&str] = &[
    "python3",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python",
];
const TOO_OLD: &str = "Python 3.11 or newer is needed and none was found as python3, python3.11 to \
                       python3.14 or python on the PATH; install it and run this command again";

/// The environment of everything that needs none of its own.
pub(crate) const USUAL: &str = "venv";

/// The interpreter of the virtual environment of this name in the target directory, which holds what
/// the requirements file (a path from the workspace root) pins.
pub(crate) fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    let root = cargo::root()?;
    let pins = pins(root, requirements)?;
    let venv = cargo::target_directory()?.join("xtask").join(name);
    let python = venv.join("bin").join("python");
    let stamp = venv.join(format!("installed-{:016x}", fingerprint(&pins)));
    if python.exists() && stamp.exists() {
        return Ok(python);
    }
    let interpreter = interpreter()?;
    report::step(&format!("virtual environment with {requirements}"));
    if !python.exists() {
        let status = Command::new(interpreter)
            .args(["-m", "venv"])
            .arg(&venv)
            .status()?;
        if !status.success() {
            bail!(
                "`{interpreter} -m venv` failed ({status}); on Debian and Ubuntu install the package python3-venv"
            );
        }
    }
    let status = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--requirement",
            requirements,
        ])
        .current_dir(root)
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        bail!(
            "pip could not install {requirements} ({status}); the package registry must be reachable"
        );
    }
    fs::write(&stamp, pins).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// The text of a requirements file and of the files it includes with `-r`.
fn pins(root: &Path, requirements: &str) -> Result<String> {
    let path = root.join(requirements);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut all = text.clone();
    for included in text.lines().filter_map(|line| line.strip_prefix("-r ")) {
        let beside = Path::new(requirements)
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join(included);
        all.push_str(&pins(root, &beside.to_string_lossy())?);
    }
    Ok(all)
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// An interpreter that is new enough.
pub(crate) fn interpreter() -> Result<&'static str> {
    const PROBE: &str = "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)";
    let recent = |name: &&&str| {
        Command::new(name)
            .args(["-c", PROBE])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    INTERPRETERS.iter().find(recent).copied().context(TOO_OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_requirements_count() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/one.txt"), "-r ../two.txt\nx==1\n").unwrap();
        fs::write(directory.path().join("two.txt"), "y==2\n").unwrap();
        let text = pins(directory.path(), "a/one.txt").unwrap();
        assert!(text.contains("x==1") && text.contains("y==2"));
        assert_ne!(fingerprint(&text), fingerprint("x==1"));
        let error = pins(directory.path(), "absent.txt")
            .unwrap_err()
            .to_string();
        assert!(error.contains("absent.txt"), "{error}");
    }
}
