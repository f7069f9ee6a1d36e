//! A replica of the controller as a process of its own, which a test can kill and pause, and which
//! comes back as a kubelet would bring it back.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, kubeconfig};

/// A running replica, or one that has ended and was not revived yet. Killed when dropped.
#[derive(Debug)]
pub struct Replica {
    name: String,
    namespace: String,
    log: PathBuf,
    process: std::process::Child,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Nobody is left to be told.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Replica {
    /// Starts one of several replicas that act on the test's namespace alone and elect their leader
    /// there. Its log goes to a file in the directory `logs`.
    ///
    /// # Errors
    /// When no cluster is named, or the program was not built.
    pub fn start(cluster: &Cluster, name: &str, logs: &Path) -> Result<Self> {
        let namespace = cluster.namespace().to_owned();
        let log = logs.join(format!("{namespace}-{name}.log"));
        let process = spawn(name, &namespace, &log)?;
        let name = name.to_owned();
        Ok(Self {
            name,
            namespace,
            log,
            process,
        })
    }

    /// What it calls itself in the lease.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends it at once, as a node that loses power would.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Stops it where it is. It does not notice.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Starts it again if it has ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn revive(&mut self) -> Result<()> {
        if self.has_ended()? {
            self.process = spawn(&self.name, &self.namespace, &self.log)?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.context("a process number is positive")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }
}

fn spawn(name: &str, namespace: &str, log: &Path) -> Result<std::process::Child> {
    let program = built("agent-sandbox-controller")?;
    let kubeconfig = kubeconfig().context("a replica of its own needs a cluster of its own")?;
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(&program)
        .args(["--extensions", "--metrics-bind-address=0"])
        .arg("--health-probe-bind-address=0")
        .arg(format!("--identity={name}"))
        .arg(format!("--namespace={namespace}"))
        .arg(format!("--leader-election-namespace={namespace}"))
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| anyhow!(error).context(format!("starting {}", program.display())))
}

/// A program of the workspace, which cargo builds beside the directory of the suites' own
/// executable.
///
/// # Errors
/// When it is not there.
pub fn built(program: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let path = executable
        .parent()
        .and_then(|dependencies| dependencies.parent())
        .context("a test's executable lies in deps of the target directory")?
        .join(program);
    ensure!(
        path.exists(),
        "{} is not built; `cargo build --workspace --bins` builds it",
        path.display()
    );
    Ok(path)
}
