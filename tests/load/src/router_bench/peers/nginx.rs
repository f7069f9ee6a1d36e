//! nginx, twice: as a proxy with one worker, unbuffered, and as the sandbox with fixed answers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{NAMESPACE, Sandbox, Site, write};
use crate::bench::installed::installed;

/// Answers of these sizes are files of the sandbox; one of two bytes is in its configuration.
pub const FILES: [usize; 2] = [4096, 1 << 20];

/// nginx as a proxy.
pub(super) fn proxy(site: &Site, address: SocketAddr) -> Result<Command> {
    let directory = site.subdirectory(&format!("nginx-{}", address.port()))?;
    let text = proxy_configuration(site, address, &directory);
    command(&directory, &text)
}

/// nginx as the sandbox with fixed answers.
pub fn sandbox(directory: &Path, address: SocketAddr, connections: u64) -> Result<Command> {
    for size in FILES {
        let path = directory.join(size.to_string());
        std::fs::write(path, vec![b'x'; size])?;
    }
    let text = sandbox_configuration(directory, address, connections);
    command(directory, &text)
}

fn command(directory: &Path, configuration: &str) -> Result<Command> {
    let file = directory.join("nginx.conf");
    write(&file, configuration)?;
    let mut command = installed("nginx")?;
    command.arg("-p").arg(directory).arg("-c").arg(file);
    Ok(command)
}

/// What both have. Connections are kept for as long as the bench needs them, however many requests
/// they carry. Workers of a root process would be another user, who may not read the directory.
fn frame(directory: &Path, connections: u64, http: &str) -> String {
    let directory = directory.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    format!(
        "{user}worker_processes 1;
daemon off;
pid {directory}/pid;
error_log stderr error;
worker_rlimit_nofile {files};
events {{
    worker_connections {files};
}}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{http}}}
",
        files = 2 * connections + 100
    )
}

fn proxy_configuration(site: &Site, address: SocketAddr, directory: &Path) -> String {
    let sandboxes = [Sandbox::Fixed, Sandbox::Scripted];
    let upstreams = sandboxes
        .map(|sandbox| {
            let (name, backend) = (sandbox.name(), site.address(sandbox));
            format!(
                "    upstream {name} {{
        server {backend};
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
"
            )
        })
        .concat();
    let table = sandboxes
        .map(Sandbox::name)
        .map(|name| format!("        {NAMESPACE}/{name} {name};\n"))
        .concat();
    let http = format!(
        r#"{upstreams}    map "$http_x_sandbox_namespace/$http_x_sandbox_id" $sandbox {{
{table}    }}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        "" "";
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://$sandbox;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 600s;
            proxy_send_timeout 600s;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Authorization "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
"#
    );
    frame(directory, site.connections, &http)
}

fn sandbox_configuration(directory: &Path, address: SocketAddr, connections: u64) -> String {
    let http = format!(
        r#"    sendfile on;
    tcp_nopush on;
    server {{
        listen {address} backlog=4096;
        root {};
        location = /2 {{
            return 200 "ok";
        }}
    }}
"#,
        directory.display()
    );
    frame(directory, connections, &http)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn site() -> Site {
        Site {
            directory: PathBuf::from("/run-directory"),
            fixed: SocketAddr::from(([127, 0, 0, 1], 1001)),
            scripted: SocketAddr::from(([127, 0, 0, 1], 1002)),
            connections: 4000,
            router: PathBuf::new(),
            python: None,
            go: None,
        }
    }

    #[test]
    fn both_sandboxes_are_routed_by_header_and_nothing_is_buffered() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1000));
        let text = proxy_configuration(&site(), address, Path::new("/d"));
        for line in [
            "worker_processes 1;",
            "    worker_connections 8100;",
            "        default/box box;",
            "        default/stream stream;",
            "        server 127.0.0.1:1001;",
            "        server 127.0.0.1:1002;",
            "        listen 127.0.0.1:1000 backlog=4096;",
            "            proxy_buffering off;",
            "            proxy_request_buffering off;",
            "            proxy_set_header Authorization \"\";",
            "    access_log off;",
            "    proxy_temp_path /d/proxy;",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
