//! Programs of the machine, and free addresses for those that the bench starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// An address of the loopback device on which nobody listens. Somebody else may take it before it is
/// used; whoever was to listen there then fails to start, and says so.
pub fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no free port on the loopback device")?;
    Ok(listener.local_addr()?)
}

/// Whether a program is on the PATH or where Debian has programs for administrators.
pub fn is_installed(program: &str) -> bool {
    located(program).is_some()
}

/// Where a program is.
pub fn located(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// A command for a program that [`is_installed`].
pub fn installed(program: &str) -> Result<Command> {
    let path = located(program).with_context(|| format!("{program} is not installed"))?;
    Ok(Command::new(path))
}

/// The first line of what a program says about its version, wherever it says it.
pub fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(located(program)?)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}
