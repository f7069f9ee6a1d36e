//! The small files in `/etc` that Kubernetes and container engines provide.
//!
//! Pure, except that the host's resolver configuration is read.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

use super::HOME;
use crate::pod::security::Identity;
use crate::process::init::message::TextFile;

/// The files that Kubernetes and container engines provide.
pub(super) fn provided(
    pod_ip: Option<IpAddr>,
    spec: &PodSpec,
    hostname: &str,
    identity: &Identity,
) -> Vec<TextFile> {
    let file = |path: &str, lines: &[String]| TextFile {
        path: path.into(),
        content: lines.iter().flat_map(|line| [line, "\n"]).collect(),
    };
    let mut hosts = vec![
        "# Kubernetes-managed hosts file.".to_owned(),
        "127.0.0.1\tlocalhost".to_owned(),
        "::1\tlocalhost ip6-localhost ip6-loopback".to_owned(),
    ];
    if let Some(ip) = pod_ip {
        hosts.push(
            match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
                Some(subdomain) => format!("{ip}\t{hostname}.{subdomain}\t{hostname}"),
                None => format!("{ip}\t{hostname}"),
            },
        );
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        hosts.push(format!("{}\t{names}", alias.ip));
    }
    let user = &identity.user;
    let mut passwd = vec!["root:x:0:0:root:/root:/bin/sh".to_owned()];
    let mut group = vec!["root:x:0:".to_owned()];
    if user.uid != 0 {
        passwd.push(format!("user:x:{}:{}::{HOME}:/bin/sh", user.uid, user.gid));
    }
    if user.gid != 0 {
        group.push(format!("user:x:{}:", user.gid));
    }
    passwd.push("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin".to_owned());
    group.push("nogroup:x:65534:".to_owned());
    vec![
        file("/etc/resolv.conf", &resolver(spec)),
        file("/etc/hosts", &hosts),
        file("/etc/hostname", &[hostname.to_owned()]),
        file("/etc/passwd", &passwd),
        file("/etc/group", &group),
    ]
}

/// The lines of `/etc/resolv.conf`: the pod's own with `dnsPolicy: None`, else the host's, which may
/// change while the node runs. There is no cluster DNS.
fn resolver(spec: &PodSpec) -> Vec<String> {
    let config = spec.dns_config.clone().unwrap_or_default();
    if spec.dns_policy.as_deref() != Some("None") {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        return text.lines().map(str::to_owned).collect();
    }
    let servers = config.nameservers.unwrap_or_default();
    let mut lines: Vec<String> = servers
        .iter()
        .map(|server| format!("nameserver {server}"))
        .collect();
    let searches = config.searches.filter(|searches| !searches.is_empty());
    lines.extend(searches.map(|searches| format!("search {}", searches.join(" "))));
    let options = config.options.iter().flatten().map(|option| {
        let name = option.name.as_deref().unwrap_or_default();
        match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        }
    });
    let options: Vec<String> = options.collect();
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines
}
