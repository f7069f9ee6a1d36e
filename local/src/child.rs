//! The command that `agent-sandbox up -- COMMAND` runs against the platform.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell exits with when it finds no program of the name, and when it cannot run the one it
/// finds (POSIX, Shell Command Language, 2.8.2).
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Why the command could not run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no such program.
    #[error(
        "COMMAND {program:?}: there is no such program{}; what follows `--` starts with a program",
        if *.searched { " on the PATH" } else { "" }
    )]
    NotFound {
        /// The program asked for.
        program: OsString,
        /// Whether the PATH was searched.
        searched: bool,
    },
    /// There is something of that name that is not a program.
    #[error(
        "COMMAND {program:?}: {} is not an executable file; name a program, or set its mode with chmod +x",
        path.display()
    )]
    NotExecutable {
        /// The program asked for.
        program: OsString,
        /// What was found.
        path: PathBuf,
    },
    /// It does not start.
    #[error("COMMAND {program:?}: cannot be started")]
    Start {
        /// The program asked for.
        program: OsString,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Signals or the child cannot be waited for.
    #[error("COMMAND {program:?}: cannot be waited for")]
    Wait {
        /// The program asked for.
        program: OsString,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl ChildError {
    /// What a shell exits with in this case.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => NOT_FOUND,
            Self::NotExecutable { .. } | Self::Start { .. } => NOT_EXECUTABLE,
            Self::Wait { .. } => 1,
        }
    }
}

/// A command to run.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    /// Directories to look for programs in, as in `PATH`.
    path: OsString,
}

impl Command {
    /// A command from its words, program first; `None` when there are none. A program without a
    /// slash is looked for in the directories of `path`.
    pub fn new(words: Vec<OsString>, path: Option<OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        Some(Self {
            program: words.next()?,
            arguments: words.collect(),
            path: path.unwrap_or_default(),
        })
    }

    /// The words of the command, program first.
    pub fn words(&self) -> impl Iterator<Item = &OsStr> {
        std::iter::once(&self.program)
            .chain(&self.arguments)
            .map(OsString::as_os_str)
    }

    /// Finds the program, so that a typo is known before anything was started for it.
    ///
    /// # Errors
    /// When there is none, or none that may be executed.
    pub fn find(&self) -> Result<PathBuf, ChildError> {
        let program = Path::new(&self.program);
        let searched = program.parent() == Some(Path::new(""));
        let mut directories = std::env::split_paths(&self.path);
        let candidates: &mut dyn Iterator<Item = PathBuf> = if searched {
            &mut directories
                .by_ref()
                .map(|directory| directory.join(program))
        } else {
            &mut std::iter::once(program.to_owned())
        };
        let mut refused = None;
        for path in candidates.filter(|path| path.exists()) {
            if is_executable(&path) {
                return Ok(path);
            }
            refused.get_or_insert(path);
        }
        let program = self.program.clone();
        Err(match refused {
            Some(path) => ChildError::NotExecutable { program, path },
            None => ChildError::NotFound { program, searched },
        })
    }

    /// Runs the command to its end and returns the exit status a shell would report: its code, or
    /// 128 plus the number of the signal that ended it.
    ///
    /// SIGTERM, SIGHUP and SIGINT are passed on. A SIGINT typed at a terminal reaches the command
    /// without us, because it runs in our process group, and is not sent twice.
    ///
    /// # Errors
    /// When the program does not start, or cannot be waited for.
    pub async fn run(&self, kubeconfig: &Path, router_url: &str) -> Result<u8, ChildError> {
        let program = || self.program.clone();
        let start = |source| ChildError::Start {
            program: program(),
            source,
        };
        let wait = |source| ChildError::Wait {
            program: program(),
            source,
        };
        let found = self.find()?;
        let mut signals = Signals::install().map_err(wait)?;
        let mut child = tokio::process::Command::new(found)
            .arg0(&self.program)
            .args(&self.arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("SANDBOX_ROUTER_URL", router_url)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(shell_status(status.map_err(wait)?)),
                number = signals.next() => pass_on(&child, number),
            }
        }
    }
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

fn pass_on(child: &Child, number: Signal) {
    if number == Signal::INT && std::io::stdin().is_terminal() {
        return;
    }
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    // It may have ended meanwhile; the wait then says so.
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, number)) {
        tracing::debug!(%error, "the command is gone already");
    }
}

fn shell_status(status: ExitStatus) -> u8 {
    let number = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Whether there is a file that this user may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn command(words: &[&str]) -> Command {
        let words = words.iter().map(OsString::from).collect();
        Command::new(words, Some("/usr/bin:/bin".into())).unwrap()
    }

    async fn shell(script: &str) -> u8 {
        command(&["sh", "-c", script])
            .run(Path::new("/state/kubeconfig"), "http://127.0.0.1:1")
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_status_is_the_commands_own() {
        assert_eq!(shell("exit 7").await, 7);
        assert_eq!(shell("kill -9 $$").await, 137);
    }

    #[tokio::test]
    async fn the_environment_says_where_things_are() {
        let script = r#"[ "$KUBECONFIG" = /state/kubeconfig ] && [ "$SANDBOX_ROUTER_URL" = http://127.0.0.1:1 ]"#;
        assert_eq!(shell(script).await, 0);
    }

    #[test]
    fn what_cannot_run_is_named_with_a_shells_status() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("data");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (file, folder) = (file.to_str().unwrap(), directory.path().to_str().unwrap());
        let cases = [
            ("no-such-program", 127, "on the PATH"),
            ("./no-such-program", 127, "no such program; what follows"),
            ("", 127, "no such program"),
            (file, 126, "chmod +x"),
            (folder, 126, "not an executable file"),
        ];
        for (program, status, text) in cases {
            let error = command(&[program, "argument"]).find().unwrap_err();
            assert_eq!(error.exit_status(), status, "{error}");
            let error = error.to_string();
            assert!(
                error.contains(&format!("COMMAND {program:?}: ")) && error.contains(text),
                "{error}"
            );
        }
        assert!(Command::new(Vec::new(), None).is_none());
    }

    #[test]
    fn the_path_is_searched_in_order_and_past_what_cannot_run() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            std::fs::create_dir(folder).unwrap();
            let file = folder.join("tool");
            std::fs::write(&file, "x").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([&first, &second]).unwrap();
        let found = Command::new(vec!["tool".into()], Some(path))
            .unwrap()
            .find();
        assert_eq!(found.unwrap(), second.join("tool"));
    }
}
