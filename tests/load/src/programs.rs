//! Programs that a suite runs beside itself: where cargo puts them, how many descriptors a process may
//! have, and how they end with the suite.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a program may take to end when it is told to.
const STOP: Duration = Duration::from_secs(60);
/// How often it is looked whether something has come.
pub const POLL: Duration = Duration::from_millis(20);

/// A program of the workspace, which cargo puts beside this one, or beside the directory of tests'.
///
/// # Errors
/// When it is not there.
pub fn built(program: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe().context("this program has a path")?;
    let mut directories = executable.ancestors().skip(1).take(2);
    let found = directories
        .by_ref()
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{program} is not built for the profile of {}; `cargo xtask test load` builds it",
            executable.display()
        )
    })
}

/// Lets this process, and those it starts, have as many descriptors as the machine allows, and
/// returns how many those are.
///
/// # Errors
/// When the limit cannot be raised.
pub fn raise_descriptors() -> Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).context("cannot raise the limit of descriptors")?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Fails when a process may have fewer descriptors than `needed`.
///
/// # Errors
/// Says how many are needed, and what to do.
pub fn require_descriptors(needed: u64, what: &str) -> Result<u64> {
    let allowed = raise_descriptors()?;
    ensure!(
        allowed >= needed,
        "{what} needs {needed} descriptors and this machine allows a process {allowed}: raise the hard limit (`ulimit -Hn`)"
    );
    Ok(allowed)
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    pid: i32,
}

impl Program {
    /// Starts it. An interrupt on the terminal reaches it like this process.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let pid = i32::try_from(child.id().context("it has not been waited for")?)?;
        Ok(Self { name, child, pid })
    }

    /// The scripted sandboxes of `given` (`NAMESPACE/NAME=IP,...`). They end when this process does,
    /// however that comes about.
    ///
    /// # Errors
    /// When they do not start.
    pub fn sandboxes(given: &str) -> Result<Self> {
        let mut command = Command::new(built("scripted-sandboxes")?);
        command.arg(given).stdin(Stdio::piped());
        Self::start("scripted-sandboxes", &mut command)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What reads from it and writes to it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// Says how.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status})", self.name);
        }
        Ok(())
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// When it is gone.
    pub fn descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid);
        let open = std::fs::read_dir(&path).with_context(|| format!("{} is gone", self.name))?;
        Ok(open.count())
    }

    /// The memory that is its own, in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<u64> {
        crate::machine::memory(self.pid)
    }

    /// Ends it as Kubernetes would, and waits.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("a process number is positive")?;
        // It has not been waited for, so the number is still its own.
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot end {}", self.name))?;
        let Ok(status) = tokio::time::timeout(STOP, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("{} does not end within {} s", self.name, STOP.as_secs());
        };
        let status = status?;
        ensure!(status.success(), "{} ended badly ({status})", self.name);
        Ok(())
    }
}

/// Waits until something holds.
///
/// # Errors
/// When it does not in time, or cannot be told.
pub async fn eventually(
    what: &str,
    patience: Duration,
    mut holds: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds().await.with_context(|| what.to_owned())? {
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", patience.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
