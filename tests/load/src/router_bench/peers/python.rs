//! The upstream Python router's stack: uvicorn, FastAPI and httpx around a script of our own
//! (`tests/load/python/router.py`), which does the same work as the others and nothing more.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};

use super::{NAMESPACE, Sandbox, Site, write};

const SCRIPT: &str = include_str!("../../../python/router.py");

/// The script, run by the interpreter that has the packages.
pub(super) fn command(site: &Site, address: SocketAddr) -> Result<Command> {
    let interpreter = site.python.as_ref().context("--python is not given")?;
    let script = site.directory.join("router.py");
    write(&script, SCRIPT)?;
    let mut command = Command::new(interpreter);
    command
        .arg(script)
        .arg(address.ip().to_string())
        .arg(address.port().to_string());
    for sandbox in [Sandbox::Fixed, Sandbox::Scripted] {
        let backend = site.address(sandbox);
        command.arg(format!("{NAMESPACE}/{}={backend}", sandbox.name()));
    }
    Ok(command)
}
