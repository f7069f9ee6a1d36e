//! The upstream Go router, when somebody built it: with one processor as all, without its access log.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};

use super::Site;

/// The program. It takes the sandbox's address from the request.
pub(super) fn command(site: &Site, address: SocketAddr) -> Result<Command> {
    let program = site.go.as_ref().context("--go-router is not given")?;
    let mut command = Command::new(program);
    command
        .env("GOMAXPROCS", "1")
        .arg(format!("--http-bind-address={address}"))
        .arg("--metrics-bind-address=")
        .arg("--health-probe-bind-address=")
        .arg("--allow-loopback-pod-ip=true")
        .arg("--access-log=false");
    Ok(command)
}
