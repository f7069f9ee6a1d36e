//! `meta.k8s.io/v1` Tables: what `kubectl get` prints.
//!
//! Built-in kinds have printers with the columns and cells a real server computes; custom resources
//! print the columns of their definition; everything else its name and age. Cells are final text:
//! `kubectl` does not compute, it only aligns and hides columns of low priority.

mod cluster;
mod config;
mod custom;
mod json_path;
mod networking;
mod pods;
mod workloads;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::format::time;
use crate::registry::{Descriptor, Origin, Version};
use crate::selector::LabelSelector;

pub use json_path::{JsonPath, JsonPathError};

/// What each row carries in `object`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`, the default.
    Metadata,
    /// The whole object.
    Object,
}

/// Renders objects (in the version's form) as a Table.
///
/// `metadata` becomes the Table's list metadata. Watches ask for one row per event and send the
/// column definitions only in the first one: `headers` says whether to include them.
pub fn render(
    descriptor: &Descriptor,
    version: &Version,
    objects: &[Value],
    metadata: &Value,
    include: IncludeObject,
    headers: bool,
    now: Timestamp,
) -> Value {
    let printer = printer(descriptor, version);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({ "cells": printer.cells(object, now) });
            if let Some(row) = row.as_object_mut() {
                if let Some(condition) = printer.condition(object) {
                    row.insert("conditions".to_owned(), json!([condition]));
                }
                row.insert("object".to_owned(), included(object, include));
            }
            row
        })
        .collect();
    let columns: Vec<Value> = if headers {
        printer.columns().iter().map(definition).collect()
    } else {
        Vec::new()
    };
    Value::Object(Map::from_iter([
        ("kind".to_owned(), "Table".into()),
        ("apiVersion".to_owned(), "meta.k8s.io/v1".into()),
        ("metadata".to_owned(), metadata.clone()),
        ("columnDefinitions".to_owned(), columns.into()),
        ("rows".to_owned(), rows.into()),
    ]))
}

/// A column as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heading {
    name: String,
    r#type: String,
    format: String,
    description: String,
    priority: i32,
}

/// How a kind is printed.
enum Printer {
    BuiltIn(&'static Kind),
    Custom(custom::Columns),
}

/// The printer of a built-in kind.
struct Kind {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// A column of a built-in kind: name, type and priority.
type Column = (&'static str, &'static str, i32);

/// A column that is always shown.
const fn text_column(name: &'static str) -> Column {
    (name, "string", 0)
}

/// A column of numbers that is always shown.
const fn number_column(name: &'static str) -> Column {
    (name, "integer", 0)
}

/// A column that only wide output shows.
const fn wide_column(name: &'static str) -> Column {
    (name, "string", 1)
}

fn printer(descriptor: &Descriptor, version: &Version) -> Printer {
    if descriptor.origin != Origin::BuiltIn {
        return Printer::Custom(custom::Columns::of(version));
    }
    let kind = match (descriptor.group.as_str(), descriptor.plural.as_str()) {
        ("", "pods") => &pods::PODS,
        ("", "podtemplates") => &workloads::POD_TEMPLATES,
        ("" | "events.k8s.io", "events") => &cluster::EVENTS,
        ("", "namespaces") => &cluster::NAMESPACES,
        ("", "nodes") => &cluster::NODES,
        ("", "configmaps") => &config::CONFIG_MAPS,
        ("", "secrets") => &config::SECRETS,
        ("", "serviceaccounts") => &config::SERVICE_ACCOUNTS,
        ("", "persistentvolumeclaims") => &config::CLAIMS,
        ("", "persistentvolumes") => &config::VOLUMES,
        ("storage.k8s.io", "storageclasses") => &config::STORAGE_CLASSES,
        ("", "services") => &networking::SERVICES,
        ("", "endpoints") => &networking::ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => &networking::ENDPOINT_SLICES,
        ("networking.k8s.io", "ingresses") => &networking::INGRESSES,
        ("networking.k8s.io", "ingressclasses") => &networking::INGRESS_CLASSES,
        ("networking.k8s.io", "networkpolicies") => &networking::NETWORK_POLICIES,
        ("apps", "deployments") => &workloads::DEPLOYMENTS,
        ("apps", "replicasets") => &workloads::REPLICA_SETS,
        ("apps", "statefulsets") => &workloads::STATEFUL_SETS,
        ("apps", "daemonsets") => &workloads::DAEMON_SETS,
        ("apps", "controllerrevisions") => &workloads::CONTROLLER_REVISIONS,
        ("batch", "jobs") => &workloads::JOBS,
        ("batch", "cronjobs") => &workloads::CRON_JOBS,
        ("autoscaling", "horizontalpodautoscalers") => &workloads::AUTOSCALERS,
        ("policy", "poddisruptionbudgets") => &workloads::DISRUPTION_BUDGETS,
        ("coordination.k8s.io", "leases") => &cluster::LEASES,
        ("scheduling.k8s.io", "priorityclasses") => &cluster::PRIORITY_CLASSES,
        ("node.k8s.io", "runtimeclasses") => &cluster::RUNTIME_CLASSES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            &cluster::ROLE_BINDINGS
        }
        _ => &cluster::ANYTHING,
    };
    Printer::BuiltIn(kind)
}

impl Printer {
    fn columns(&self) -> Vec<Heading> {
        match self {
            Self::Custom(columns) => columns.headings(),
            Self::BuiltIn(kind) => kind
                .columns
                .iter()
                .map(|(name, r#type, priority)| Heading {
                    name: (*name).to_owned(),
                    r#type: (*r#type).to_owned(),
                    // Marks the column that identifies the object.
                    format: if *name == "Name" { "name" } else { "" }.to_owned(),
                    description: String::new(),
                    priority: *priority,
                })
                .collect(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::BuiltIn(kind) => (kind.cells)(object, now),
            Self::Custom(columns) => columns.cells(object, now),
        }
    }

    /// Marks rows of what is over, so that clients may leave them out.
    fn condition(&self, object: &Value) -> Option<Value> {
        match self {
            Self::BuiltIn(kind) if std::ptr::eq(*kind, &raw const pods::PODS) => {
                pods::completion(object)
            }
            _ => None,
        }
    }
}

fn definition(heading: &Heading) -> Value {
    json!({
        "name": heading.name,
        "type": heading.r#type,
        "format": heading.format,
        "description": heading.description,
        "priority": heading.priority,
    })
}

fn included(object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata"),
        }),
    }
}

/// The value at a dotted path; null when something on the way is absent.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, step| {
        value.get(step).unwrap_or(&Value::Null)
    })
}

/// The text at a dotted path; empty when absent.
fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// The text at a dotted path, or what stands for its absence.
fn text_or<'a>(object: &'a Value, path: &str, absent: &'a str) -> &'a str {
    match text(object, path) {
        "" => absent,
        text => text,
    }
}

/// The number at a dotted path; zero when absent.
fn number(object: &Value, path: &str) -> i64 {
    at(object, path).as_i64().unwrap_or_default()
}

/// The elements of the list at a dotted path.
fn items<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path)
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "metadata.creationTimestamp"), now).into()
}

/// How long ago a time was; `<unknown>` when there is none.
fn since(timestamp: &str, now: Timestamp) -> String {
    time::parse(timestamp).map_or_else(|| "<unknown>".to_owned(), |then| time::human_age(then, now))
}

fn is_deleting(object: &Value) -> bool {
    !at(object, "metadata.deletionTimestamp").is_null()
}

/// `a=b,c=d` of a map of strings; `<none>` when empty.
fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        return "<none>".to_owned();
    }
    pairs.sort_unstable();
    pairs.join(",")
}

/// The text of a label selector object; `<none>` when it selects everything.
fn selector(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) if selector.is_empty() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
    }
}

/// At most `max` of `parts`, and how many more there are.
fn shortened(parts: &[String], max: usize, separator: &str) -> String {
    let shown = parts
        .get(..max.min(parts.len()))
        .unwrap_or_default()
        .join(separator);
    match parts.len().checked_sub(max) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        _ => shown,
    }
}

/// The condition of a type, if it is there.
fn condition<'a>(object: &'a Value, r#type: &str) -> Option<&'a Value> {
    items(object, "status.conditions")
        .iter()
        .find(|condition| text(condition, "type") == r#type)
}

/// Whether the condition of a type is `True`.
fn has_condition(object: &Value, r#type: &str) -> bool {
    condition(object, r#type).is_some_and(|condition| text(condition, "status") == "True")
}

#[cfg(test)]
mod tests;
