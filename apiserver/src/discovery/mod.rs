//! Discovery documents and OpenAPI, derived from a registry snapshot.
//!
//! Functions of the snapshot alone: `http` calls them and picks the form the client accepts. Groups
//! come in the order their first resource was registered (built-in before custom), because clients
//! resolve ambiguous names in that order.

pub mod aggregated;
pub mod legacy;
pub mod openapi;

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::registry::builtin::schemas::RELEASE;
use crate::registry::{Descriptor, Snapshot, Version};

/// Documents that are built at most once per registry snapshot. Only small ones: the OpenAPI
/// documents are put together when asked for and not kept.
#[derive(Debug, Default)]
pub struct DiscoveryCache {
    openapi_index: OnceLock<Bytes>,
}

/// `GET /version`: the release whose behaviour the server follows.
pub fn version() -> Value {
    let mut numbers = RELEASE.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next(), numbers.next());
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("{RELEASE}+agent-sandbox"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform_arch()),
    })
}

/// The machine as Kubernetes names it.
fn platform_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A group and its served versions, most preferred first.
#[derive(Debug)]
struct Group<'a> {
    name: &'a str,
    versions: Vec<GroupVersion<'a>>,
}

/// The resources served in one version of a group, sorted by plural.
#[derive(Debug)]
struct GroupVersion<'a> {
    name: &'a str,
    resources: Vec<(&'a Arc<Descriptor>, &'a Arc<Version>)>,
}

/// Every group that serves something, the core group (empty name) included.
fn groups(snapshot: &Snapshot) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for descriptor in snapshot.descriptors() {
        for version in descriptor.versions.iter().filter(|version| version.served) {
            let known = groups
                .iter()
                .position(|group| group.name == descriptor.group);
            let at = known.unwrap_or_else(|| {
                groups.push(Group {
                    name: &descriptor.group,
                    versions: Vec::new(),
                });
                groups.len() - 1
            });
            let Some(group) = groups.get_mut(at) else {
                continue;
            };
            match group
                .versions
                .iter_mut()
                .find(|known| known.name == version.name)
            {
                Some(known) => known.resources.push((descriptor, version)),
                None => group.versions.push(GroupVersion {
                    name: &version.name,
                    resources: vec![(descriptor, version)],
                }),
            }
        }
    }
    for group in &mut groups {
        group
            .versions
            .sort_by_cached_key(|version| Reverse(priority(version.name)));
        for version in &mut group.versions {
            version
                .resources
                .sort_by(|(a, _), (b, _)| a.plural.cmp(&b.plural));
        }
    }
    groups
}

/// What one version of a group serves.
fn group_version<'a>(
    snapshot: &'a Snapshot,
    group: &str,
    version: &str,
) -> Option<GroupVersion<'a>> {
    let group = groups(snapshot)
        .into_iter()
        .find(|known| known.name == group)?;
    group
        .versions
        .into_iter()
        .find(|known| known.name == version)
}

/// `v1` above `v2beta1` above `v1beta2` above `v1alpha1` above everything else, by the published rule
/// for version priority.
fn priority(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (major, rest) = rest.split_at_checked(digits)?;
        let major = major.parse().ok()?;
        let (stability, minor) = if rest.is_empty() {
            (3, "0")
        } else if let Some(minor) = rest.strip_prefix("beta") {
            (2, minor)
        } else if let Some(minor) = rest.strip_prefix("alpha") {
            (1, minor)
        } else {
            return None;
        };
        Some((stability, major, minor.parse().ok()?))
    };
    let (stability, major, minor) = parsed().unwrap_or((0, 0, 0));
    (stability, major, minor, Reverse(version.to_owned()))
}

#[cfg(test)]
mod tests;
