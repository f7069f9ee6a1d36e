//! A program the bench starts: it has a process group of its own, so that an interrupt at the terminal
//! reaches the bench alone, and the whole group ends with its owner.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::Instant;

use super::tree::Tree;

/// How long a program may take to end on its own.
const GRACE: Duration = Duration::from_secs(2);
/// How much of its output is quoted when it fails.
const LAST_LINES: usize = 12;

/// A running program. Dropping it ends it, and all it started.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts the command with its output going to a file.
    pub fn start(name: &str, mut command: Command, output: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(output)
            .with_context(|| format!("cannot write {}", output.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("{name} does not start: {}", command.get_program().display())
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output: output.to_owned(),
        })
    }

    /// Its processes.
    pub fn tree(&self) -> Result<Tree> {
        Tree::of(self.child.id())
    }

    /// Fails, with what the program said, if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let text = fs::read_to_string(&self.output).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(LAST_LINES);
            let said = lines.get(first..).unwrap_or_default().join("\n");
            bail!("{} ended ({status}): {said}", self.name);
        }
        Ok(())
    }

    /// Empties the file with its output.
    pub fn forget_output(&self) -> Result<()> {
        File::options()
            .write(true)
            .open(&self.output)
            .and_then(|file| file.set_len(0))
            .with_context(|| format!("cannot empty {}", self.output.display()))
    }

    fn end(&mut self) -> Result<()> {
        let group = Pid::from_child(&self.child);
        if self.child.try_wait()?.is_none() {
            kill_process(group, Signal::TERM).context("cannot be told to end")?;
            let deadline = Instant::now() + GRACE;
            while self.child.try_wait()?.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Whatever is left of the group, and first of all the program itself.
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("cannot be killed"),
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            super::say(&format!("{}: {error:#}", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, output: &Path) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start("shell", command, output).unwrap()
    }

    fn eventually(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "not within 20 s");
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_a_program_started_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        // The child ignores the polite request, as a worker might.
        let program = shell(
            "sh -c 'trap \"\" TERM; echo ready; sleep 600; true' & wait; true",
            &output,
        );
        eventually(|| fs::read_to_string(&output).is_ok_and(|text| text.contains("ready")));
        let tree = program.tree().unwrap();
        eventually(|| tree.members().unwrap().len() == 3);
        let members = tree.members().unwrap();
        drop(program);
        eventually(|| {
            let gone = |pid: &i32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z "))
            };
            members.iter().all(gone)
        });
    }

    #[test]
    fn the_last_words_are_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut program = shell("echo no such directive >&2; exit 3", &output);
        let mut error = None;
        eventually(|| {
            error = program.check().err();
            error.is_some()
        });
        let error = error.unwrap().to_string();
        assert!(
            error.contains("no such directive") && error.contains('3'),
            "{error}"
        );
        program.forget_output().unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "");
    }
}
