//! Our router: the program that is shipped, with its sandboxes on the command line.

use std::net::SocketAddr;
use std::process::Command;

use super::{NAMESPACE, Sandbox, Site};

/// Tunnels besides those that are counted.
const SPARE: u64 = 10;

/// The program with one sandbox more than it needs, one thread because it may use one processor, and
/// room for as many tunnels as the bench opens.
pub(super) fn command(site: &Site, address: SocketAddr, access_log: bool) -> Command {
    let sandboxes = [Sandbox::Fixed, Sandbox::Scripted]
        .map(|sandbox| {
            let ip = site.address(sandbox).ip();
            format!("{NAMESPACE}/{}={ip}", sandbox.name())
        })
        .join(",");
    let mut command = Command::new(&site.router);
    command
        .arg(format!("--http-bind-address={address}"))
        .arg("--metrics-bind-address=")
        .arg("--health-probe-bind-address=")
        .arg(format!("--static-sandboxes={sandboxes}"))
        .arg("--authz-mode=allow-all")
        .arg(format!("--access-log={access_log}"))
        .arg(format!(
            "--max-upgrades-per-sandbox={}",
            site.connections + SPARE
        ))
        .arg("--shutdown-delay=0s")
        .arg("--shutdown-timeout=0s");
    command
}
