//! HAProxy with one thread. Bodies are not spliced: on the loopback device that costs more.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use super::{NAMESPACE, Sandbox, Site, write};
use crate::bench::installed::installed;

/// HAProxy in the foreground.
pub(super) fn proxy(site: &Site, address: SocketAddr) -> Result<Command> {
    let file = site
        .directory
        .join(format!("haproxy-{}.cfg", address.port()));
    write(&file, &configuration(site, address))?;
    let mut command = installed("haproxy")?;
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn configuration(site: &Site, address: SocketAddr) -> String {
    let sandboxes = [Sandbox::Fixed, Sandbox::Scripted];
    let frontend = sandboxes
        .map(Sandbox::name)
        .map(|name| {
            format!(
                "    use_backend {name} if {{ hdr(x-sandbox-id) {name} }} {{ hdr(x-sandbox-namespace) {NAMESPACE} }}\n"
            )
        })
        .concat();
    let backends = sandboxes
        .map(|sandbox| {
            let (name, address) = (sandbox.name(), site.address(sandbox));
            format!(
                "backend {name}
    http-request del-header authorization
    option forwardfor
    server {name} {address}
"
            )
        })
        .concat();
    format!(
        "global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    timeout http-keep-alive 600s
frontend proxy
    bind {address} backlog 4096
{frontend}{backends}",
        connections = site.connections + 100
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn both_sandboxes_are_routed_by_header() {
        let site = Site {
            directory: PathBuf::from("/run-directory"),
            fixed: SocketAddr::from(([127, 0, 0, 1], 1001)),
            scripted: SocketAddr::from(([127, 0, 0, 1], 1002)),
            connections: 4000,
            router: PathBuf::new(),
            python: None,
            go: None,
        };
        let text = configuration(&site, SocketAddr::from(([127, 0, 0, 1], 1000)));
        for line in [
            "    nbthread 1",
            "    maxconn 4100",
            "    http-reuse always",
            "    bind 127.0.0.1:1000 backlog 4096",
            "    use_backend box if { hdr(x-sandbox-id) box } { hdr(x-sandbox-namespace) default }",
            "    server box 127.0.0.1:1001",
            "    server stream 127.0.0.1:1002",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("del-header authorization").count(), 2);
    }
}
