//! The command that `agent-sandbox up -- COMMAND` runs against the platform.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Why the command could not run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It does not start.
    #[error("cannot start {program:?}: {}", remedy(source))]
    Start {
        /// The program asked for.
        program: OsString,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Signals or the child cannot be waited for.
    #[error("cannot wait for {program:?}")]
    Wait {
        /// The program asked for.
        program: OsString,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Runs the command to its end and returns the exit status a shell would report: its code, or 128
/// plus the number of the signal that ended it.
///
/// SIGTERM, SIGHUP and SIGINT are passed on. A SIGINT typed at a terminal reaches the command without
/// us, because it runs in our process group, and is not sent twice.
///
/// # Errors
/// When the program does not start, or cannot be waited for.
pub async fn run(
    command: &[OsString],
    kubeconfig: &Path,
    router_url: &str,
) -> Result<u8, ChildError> {
    let [program, arguments @ ..] = command else {
        return Ok(0);
    };
    let start = |source| ChildError::Start {
        program: program.clone(),
        source,
    };
    let wait = |source| ChildError::Wait {
        program: program.clone(),
        source,
    };
    let mut signals = Signals::install().map_err(wait)?;
    let mut child = Command::new(program)
        .args(arguments)
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

fn remedy(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "there is no such program on the PATH; the command after `--` starts with a program"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> u8 {
        let command = ["sh", "-c", script].map(OsString::from);
        run(
            &command,
            Path::new("/state/kubeconfig"),
            "http://127.0.0.1:1",
        )
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

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(&["no-such-program".into()], Path::new("k"), "u")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
        assert!(error.to_string().contains("on the PATH"), "{error}");
    }
}
