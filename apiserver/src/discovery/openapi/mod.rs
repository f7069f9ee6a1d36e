//! OpenAPI v3 documents per group-version.
//!
//! A document is put together from the committed definitions (as text, unparsed) and the schemas of
//! custom resources whenever it is asked for: that takes a few milliseconds, clients ask once and
//! remember by hash, and nothing large stays in memory. The hash in a URL covers everything the
//! document is made from.

mod definitions;
mod operations;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{GroupVersion, group_version, groups};
use crate::registry::Snapshot;
use crate::registry::builtin::schemas::RELEASE;
use definitions::Definitions;

/// `GET /openapi/v3`: the index with a content hash in each URL, as JSON text.
pub fn index(snapshot: &Snapshot) -> Bytes {
    let build = || {
        let mut paths = BTreeMap::new();
        for group in groups(snapshot) {
            for version in &group.versions {
                let path = path_of(group.name, version.name);
                let hash = hash(group.name, version);
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path, json!({ "serverRelativeURL": url }));
            }
        }
        Bytes::from(json!({ "paths": paths }).to_string())
    };
    snapshot.discovery.openapi_index.get_or_init(build).clone()
}

/// `GET /openapi/v3/{path}` where `path` is `api/v1` or `apis/{group}/{version}`, as JSON text.
pub fn document(snapshot: &Snapshot, path: &str) -> Option<Bytes> {
    let (group, served) = find(snapshot, path)?;
    let mut definitions = Definitions::default();
    let mut paths = serde_json::Map::new();
    for (descriptor, version) in &served.resources {
        let schema = definitions.add_kind(descriptor, version);
        operations::add(&mut paths, descriptor, version, &schema, &mut definitions);
    }
    let title = if group.is_empty() { "core" } else { group };
    let info = json!({ "title": format!("Kubernetes API: {title}"), "version": RELEASE });
    Some(Bytes::from(format!(
        "{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":{paths},\"components\":{{\"schemas\":{}}}}}",
        definitions.into_text(),
        paths = Value::Object(paths),
    )))
}

/// The hash that the index shows for `path`, to answer requests that carry one.
pub fn document_hash(snapshot: &Snapshot, path: &str) -> Option<String> {
    let (group, served) = find(snapshot, path)?;
    Some(hash(group, &served))
}

fn find<'a>(snapshot: &'a Snapshot, path: &'a str) -> Option<(&'a str, GroupVersion<'a>)> {
    let (group, version) = match path.split_once('/')? {
        ("api", version) => ("", version),
        ("apis", rest) => rest
            .split_once('/')
            .filter(|(group, _)| !group.is_empty())?,
        _ => return None,
    };
    Some((group, group_version(snapshot, group, version)?))
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// A hash of what the document is made from: the release of the committed definitions, this
/// program's version, and each resource's names, schema and subresources.
fn hash(group: &str, served: &GroupVersion<'_>) -> String {
    let mut hasher = Sha256::new();
    let mut feed = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update([0]);
    };
    for text in [RELEASE, env!("CARGO_PKG_VERSION"), group, served.name] {
        feed(text);
    }
    for (descriptor, version) in &served.resources {
        feed(&descriptor.plural);
        feed(&descriptor.kind);
        feed(&descriptor.list_kind);
        feed(if descriptor.is_namespaced() {
            "namespaced"
        } else {
            "cluster"
        });
        feed(version.openapi.as_deref().unwrap_or_default());
        for subresource in &version.subresources {
            feed(&subresource.name);
        }
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16).map(|c| c.to_ascii_uppercase()));
        }
    }
    text
}
