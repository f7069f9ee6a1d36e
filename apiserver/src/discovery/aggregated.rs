//! `APIGroupDiscoveryList`: everything in two documents, as newer clients read it.

use serde_json::{Map, Value, json};

use super::legacy::verbs;
use super::{Group, groups as all_groups};
use crate::registry::{Descriptor, Origin, Scope, Snapshot, Subresource, Version};

/// Which version of `apidiscovery.k8s.io` the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `v2`
    V2,
    /// `v2beta1`
    V2Beta1,
}

impl Form {
    const fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The `Content-Type` of an answer in this form. Clients recognise the form by it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

/// `GET /api`: the core group.
pub fn core(snapshot: &Snapshot, form: Form) -> Value {
    list(snapshot, form, |group| group.name.is_empty())
}

/// `GET /apis`: every other group.
pub fn groups(snapshot: &Snapshot, form: Form) -> Value {
    list(snapshot, form, |group| !group.name.is_empty())
}

fn list(snapshot: &Snapshot, form: Form, wanted: impl Fn(&Group<'_>) -> bool) -> Value {
    let groups: Vec<Value> = all_groups(snapshot)
        .iter()
        .filter(|group| wanted(group))
        .map(group)
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.version()),
        "metadata": {},
        "items": groups,
    })
}

fn group(group: &Group<'_>) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = version
                .resources
                .iter()
                .map(|(descriptor, version)| resource(descriptor, version))
                .collect();
            json!({ "version": version.name, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.name.is_empty() {
        json!({})
    } else {
        json!({ "name": group.name })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn resource(descriptor: &Descriptor, version: &Version) -> Value {
    let scope = match descriptor.scope {
        Scope::Cluster => "Cluster",
        Scope::Namespaced => "Namespaced",
    };
    let mut document = Map::new();
    document.insert("resource".to_owned(), descriptor.plural.as_str().into());
    let kind = kind_of_parent(descriptor, version);
    document.insert("responseKind".to_owned(), kind.clone());
    document.insert("scope".to_owned(), scope.into());
    document.insert(
        "singularResource".to_owned(),
        descriptor.singular.as_str().into(),
    );
    document.insert("verbs".to_owned(), verbs(&descriptor.verbs));
    let subresources: Vec<Value> = version
        .subresources
        .iter()
        .map(|sub| subresource(sub, &kind))
        .collect();
    for (field, values) in [
        ("shortNames", Value::from(descriptor.short_names.clone())),
        ("categories", Value::from(descriptor.categories.clone())),
        ("subresources", Value::from(subresources)),
    ] {
        if values.as_array().is_some_and(|values| !values.is_empty()) {
            document.insert(field.to_owned(), values);
        }
    }
    Value::Object(document)
}

/// Built-in kinds leave the group and version to the context, custom ones spell them out: as real
/// servers do.
fn kind_of_parent(descriptor: &Descriptor, version: &Version) -> Value {
    match descriptor.origin {
        Origin::BuiltIn => json!({ "group": "", "version": "", "kind": descriptor.kind }),
        Origin::Custom { .. } => {
            json!({ "group": descriptor.group, "version": version.name, "kind": descriptor.kind })
        }
    }
}

fn subresource(subresource: &Subresource, parent: &Value) -> Value {
    let kind = match &subresource.body {
        None => parent.clone(),
        Some((group, _, kind)) if group.is_empty() => {
            json!({ "group": "", "version": "", "kind": kind })
        }
        Some((group, version, kind)) => {
            json!({ "group": group, "version": version, "kind": kind })
        }
    };
    json!({
        "subresource": subresource.name,
        "responseKind": kind,
        "verbs": verbs(&subresource.verbs),
    })
}
