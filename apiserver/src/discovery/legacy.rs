//! `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`: one document per group and
//! version, as older clients read them.

use serde_json::{Map, Value, json};

use super::{Group, group_version};
use crate::registry::{Descriptor, Snapshot, Verb, Version};

/// `GET /api`; `address` is what `serverAddressByClientCIDRs` announces.
pub fn versions(snapshot: &Snapshot, address: &str) -> Value {
    let core = super::groups(snapshot)
        .into_iter()
        .find(|group| group.name.is_empty());
    let versions: Vec<&str> = core
        .iter()
        .flat_map(|group| &group.versions)
        .map(|version| version.name)
        .collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// `GET /apis`
pub fn groups(snapshot: &Snapshot) -> Value {
    let groups: Vec<Value> = super::groups(snapshot)
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| Value::Object(api_group(group)))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `GET /apis/{group}`; `None` when no version of the group is served.
pub fn group(snapshot: &Snapshot, group: &str) -> Option<Value> {
    let groups = super::groups(snapshot);
    let group = groups
        .iter()
        .find(|known| known.name == group && !group.is_empty())?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), "APIGroup".into());
    document.insert("apiVersion".to_owned(), "v1".into());
    document.append(&mut api_group(group));
    Some(Value::Object(document))
}

/// `GET /api/v1` and `GET /apis/{group}/{version}`; `None` when it is not served.
pub fn resources(snapshot: &Snapshot, group: &str, version: &str) -> Option<Value> {
    let served = group_version(snapshot, group, version)?;
    let resources: Vec<Value> = served
        .resources
        .iter()
        .flat_map(|(descriptor, version)| resource_and_subresources(descriptor, version))
        .collect();
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": resources,
    }))
}

fn api_group(group: &Group<'_>) -> Map<String, Value> {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            json!({
                "groupVersion": format!("{}/{}", group.name, version.name),
                "version": version.name,
            })
        })
        .collect();
    let mut document = Map::new();
    document.insert("name".to_owned(), group.name.into());
    document.insert(
        "preferredVersion".to_owned(),
        versions.first().cloned().unwrap_or_default(),
    );
    document.insert("versions".to_owned(), versions.into());
    document
}

fn resource_and_subresources(descriptor: &Descriptor, version: &Version) -> Vec<Value> {
    let namespaced = descriptor.is_namespaced();
    let mut resource = json!({
        "name": descriptor.plural,
        "singularName": descriptor.singular,
        "namespaced": namespaced,
        "kind": descriptor.kind,
        "verbs": verbs(&descriptor.verbs),
    });
    if let Some(resource) = resource.as_object_mut() {
        for (field, names) in [
            ("shortNames", &descriptor.short_names),
            ("categories", &descriptor.categories),
        ] {
            if !names.is_empty() {
                resource.insert(field.to_owned(), names.clone().into());
            }
        }
    }
    let mut documents = vec![resource];
    for subresource in &version.subresources {
        let mut document = json!({
            "name": format!("{}/{}", descriptor.plural, subresource.name),
            "singularName": "",
            "namespaced": namespaced,
        });
        if let Some(document) = document.as_object_mut() {
            let kind = match &subresource.body {
                None => &descriptor.kind,
                Some((group, version, kind)) => {
                    if *group != descriptor.group {
                        document.insert("group".to_owned(), group.as_str().into());
                        document.insert("version".to_owned(), version.as_str().into());
                    }
                    kind
                }
            };
            document.insert("kind".to_owned(), kind.as_str().into());
            document.insert("verbs".to_owned(), verbs(&subresource.verbs));
        }
        documents.push(document);
    }
    documents
}

pub(super) fn verbs(verbs: &[Verb]) -> Value {
    verbs
        .iter()
        .map(|verb| verb.as_str())
        .collect::<Vec<_>>()
        .into()
}
