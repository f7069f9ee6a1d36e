//! Programs of ours that run while a command does. A child belongs to its handle: dropping the handle
//! ends the child, gently first.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program.
pub(crate) struct Child {
    name: &'static str,
    log: PathBuf,
    process: std::process::Child,
}

impl Child {
    /// Starts `command` with its output in the file `log`, apart from the terminal: an interrupt
    /// reaches this process alone, which needs the child for tidying up.
    pub(crate) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self {
            name,
            log: log.to_owned(),
            process,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Fails when the program has ended, which none does by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!(
                "{} ended ({status}); its log is {}",
                self.name,
                self.log.display()
            );
        }
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        terminate(&self.process)?;
        for _ in 0..ATTEMPTS {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            thread::sleep(PAUSE);
        }
        self.process.kill()?;
        Ok(self.process.wait()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::report::failure(&error.context(format!("{} cannot be ended", self.name)));
        }
    }
}

/// Sends SIGTERM. The process has not been waited for, so its number is still its own.
pub(crate) fn terminate(process: &std::process::Child) -> Result<()> {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("a process number is positive")?, Signal::TERM)
        .context("cannot send SIGTERM")
}

/// Whether `/readyz` on a port of this machine says yes.
pub(crate) fn answers_ready(port: u16) -> bool {
    status_line(port).is_ok_and(|line| line.split(' ').nth(1) == Some("200"))
}

fn status_line(port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// How long an answer may take: a busy machine may halt for seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ten seconds in all.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(script: &str, log: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::start("sh", command, log).unwrap()
    }

    #[test]
    fn a_child_is_asked_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = shell("exec sleep 600", &directory.path().join("log"));
        child.check().unwrap();
        assert_eq!(child.end().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn an_early_end_is_reported_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut child = shell("echo broken; exit 3", &log);
        child.process.wait().unwrap();
        let error = child.check().unwrap_err().to_string();
        assert!(error.contains('3') && error.contains("log"), "{error}");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "broken\n");
    }

    #[test]
    fn readiness_is_status_200() {
        for (answer, ready) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _read = stream.read(&mut request).unwrap();
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
            });
            assert_eq!(answers_ready(port), ready, "{answer}");
            server.join().unwrap();
            assert!(!answers_ready(port), "nobody listens any more");
        }
    }
}
