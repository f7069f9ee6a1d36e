//! `agent-sandbox-runtime install DIR`: puts a copy of this program into a directory.
//!
//! An image that holds nothing but the program has no `cp`. An init container made from it still brings
//! the program into a volume that a container of another image runs it from.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

/// The first argument that asks for it. No flag of the server looks like this.
const COMMAND: &str = "install";
/// What the copy is called.
const NAME: &str = "agent-sandbox-runtime";
/// This program's own file, however it was named when it was started.
const OWN_FILE: &str = "/proc/self/exe";
/// Any user may read and run the copy, and only its owner may change it.
const MODE: u32 = 0o755;
const USAGE: &str = "usage: agent-sandbox-runtime install DIR, where DIR is an existing directory";
const HELP: &str = "\
Copies this program into a directory and ends

Usage: agent-sandbox-runtime install DIR

Arguments:
  DIR  An existing directory. The copy in it is called agent-sandbox-runtime, any user may run it, and it
       replaces an older one at once, even while that runs
";

/// Installs, if that is what the arguments (the program's name first) ask for. Only the program itself
/// may offer this: what is copied is the file that this process runs.
///
/// The copy is called `agent-sandbox-runtime`, has the mode 0755 and replaces an older one at once. An
/// error is told on standard error, with the directory.
#[allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a copy is made before there is a log"
)]
pub fn when_asked(arguments: &[OsString]) -> Option<ExitCode> {
    let rest = match arguments {
        [_, command, rest @ ..] if command == COMMAND => rest,
        _ => return None,
    };
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return Some(ExitCode::SUCCESS);
    }
    Some(match run(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    match arguments {
        // What looks like a flag is none of ours; a directory of such a name is ./--name.
        [directory] if !directory.is_empty() && !is_flag(directory) => {
            copy(Path::new(OWN_FILE), Path::new(directory))
        }
        _ => bail!(USAGE),
    }
}

fn is_flag(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// Copies the file `from` into `directory`, whole or not at all: the copy gets its name last, and
/// replaces an older one even while that runs.
fn copy(from: &Path, directory: &Path) -> anyhow::Result<()> {
    let unfinished = directory.join(format!(".{NAME}-{:016x}", fastrand::u64(..)));
    let outcome = write(from, &unfinished)
        .and_then(|()| fs::rename(&unfinished, directory.join(NAME)))
        .with_context(|| format!("cannot install into {}", directory.display()));
    if outcome.is_err() {
        // It may not exist; the first error is the one to tell.
        drop(fs::remove_file(&unfinished));
    }
    outcome
}

fn write(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    io::copy(&mut source, &mut target)?;
    // The mode that a file is created with is subject to the umask.
    target.set_permissions(Permissions::from_mode(MODE))?;
    target.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_the_command_installs() {
        for words in [&["runtime"][..], &["runtime", "--port", "1"], &["install"]] {
            assert!(when_asked(&arguments(words)).is_none(), "{words:?}");
        }
    }

    #[test]
    fn the_running_program_replaces_an_older_copy() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join(NAME);
        fs::write(&target, "older").unwrap();
        run(&[directory.path().into()]).unwrap();
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(fs::read(&target).unwrap() == own, "the copy differs");
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_directory_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        let error = run(&[absent.clone().into()]).unwrap_err();
        assert!(format!("{error:#}").contains(absent.to_str().unwrap()));
        // A directory in the place of the copy cannot be replaced.
        fs::create_dir_all(directory.path().join(NAME).join("full")).unwrap();
        assert!(run(&[directory.path().into()]).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn anything_but_one_directory_is_answered_with_the_usage() {
        for words in [&[][..], &[""], &["a", "b"], &["--verbose"]] {
            let error = run(&arguments(words)).unwrap_err();
            assert_eq!(error.to_string(), USAGE, "{words:?}");
        }
    }
}
