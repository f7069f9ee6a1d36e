//! The built-in resources: which there are, and their descriptors.
//!
//! `table` says what exists and is plain data; `schemas` holds the committed OpenAPI definitions.
//! The server takes [`descriptors`] once at start. Kinds that only make sense with machinery this
//! server does not have (admission webhooks, aggregated servers, quotas, limit ranges) are left out on
//! purpose: a client gets a 404 instead of an object nobody honours.

pub(crate) mod defaults;
pub mod schemas;
mod table;

use std::sync::Arc;

use super::{
    Descriptor, Origin, ScalePaths, Scope, SelectableField, Subresource, SubresourceAction, Verb,
    Version, strategy_for,
};
use crate::schema::{Definitions, SchemaError, Structural};
use table::{Row, Rules, Sub};

/// Every resource the server knows without a CRD.
///
/// Resolving the committed schemas cannot fail (a test proves it); if it did, the kind would be
/// served free-form rather than not at all.
pub fn descriptors() -> Vec<Descriptor> {
    let document = schemas::definitions();
    let mut definitions = Definitions::new(&document);
    table::ROWS
        .iter()
        .map(|row| {
            let schema = schema_of(row, &mut definitions).unwrap_or_default();
            descriptor(row, schema)
        })
        .collect()
}

fn schema_of(row: &Row, definitions: &mut Definitions<'_>) -> Result<Structural, SchemaError> {
    definitions.resolve(&schemas::definition_name(row.group, row.version, row.kind))
}

fn descriptor(row: &Row, schema: Structural) -> Descriptor {
    let version = Version {
        name: row.version.to_owned(),
        served: true,
        storage: true,
        deprecation: row.warning.map(|warning| super::Deprecation {
            warning: warning.to_owned(),
        }),
        schema: Arc::new(schema),
        rules: Arc::default(),
        openapi: None,
        columns: Vec::new(),
        selectable_fields: row.fields.iter().map(|field| selectable(field)).collect(),
        subresources: row
            .subresources
            .iter()
            .map(|sub| subresource(row, *sub))
            .collect(),
    };
    Descriptor {
        group: row.group.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        short_names: owned(row.short),
        categories: owned(row.categories),
        scope: row.scope,
        verbs: row.verbs.to_vec(),
        versions: vec![Arc::new(version)],
        generation: row.rules.has(Rules::GENERATION),
        create_on_update: row.rules.has(Rules::CREATE_ON_UPDATE),
        unconditional_update: !row.rules.has(Rules::NEEDS_VERSION),
        returns_deleted: row.rules.has(Rules::RETURNS_DELETED),
        stored_as: row
            .stored_as
            .map(|(group, plural)| (group.to_owned(), plural.to_owned())),
        origin: Origin::BuiltIn,
        strategy: strategy_for(row.group, row.plural),
    }
}

/// A selectable field in the table's notation: `label=path|path?absent`, of which `label=` and
/// `?absent` may be missing.
fn selectable(notation: &'static str) -> SelectableField {
    let (notation, absent) = notation.split_once('?').unwrap_or((notation, ""));
    let (label, paths) = notation.split_once('=').unwrap_or((notation, notation));
    SelectableField {
        label: label.to_owned(),
        paths: paths.split('|').map(segments).collect(),
        absent,
    }
}

fn subresource(row: &Row, sub: Sub) -> Subresource {
    let body = |group: &str, version: &str, kind: &str| {
        Some((group.to_owned(), version.to_owned(), kind.to_owned()))
    };
    let read_write = vec![Verb::Get, Verb::Patch, Verb::Update];
    let part = |paths: &[&str]| SubresourceAction::Part {
        paths: paths.iter().map(|path| segments(path)).collect(),
    };
    let (name, body, verbs, action) = match sub {
        Sub::Status => ("status", None, read_write, part(&["status"])),
        Sub::Finalize => (
            "finalize",
            None,
            vec![Verb::Update],
            part(&["spec.finalizers"]),
        ),
        Sub::EphemeralContainers => (
            "ephemeralcontainers",
            None,
            read_write,
            part(&["spec.ephemeralContainers"]),
        ),
        Sub::Resize => (
            "resize",
            None,
            read_write,
            part(&["spec.containers", "spec.initContainers", "spec.resources"]),
        ),
        Sub::Scale => (
            "scale",
            body("autoscaling", "v1", "Scale"),
            read_write,
            SubresourceAction::Scale(ScalePaths {
                spec: segments("spec.replicas"),
                status: segments("status.replicas"),
                selector: Some(segments("spec.selector")),
            }),
        ),
        Sub::Binding => (
            "binding",
            body("", "v1", "Binding"),
            vec![Verb::Create],
            SubresourceAction::Binding,
        ),
        Sub::Eviction => (
            "eviction",
            body("policy", "v1", "Eviction"),
            vec![Verb::Create],
            SubresourceAction::Eviction,
        ),
        Sub::Token => (
            "token",
            body("authentication.k8s.io", "v1", "TokenRequest"),
            vec![Verb::Create],
            SubresourceAction::Token,
        ),
        Sub::Log => ("log", None, vec![Verb::Get], SubresourceAction::Connect),
        Sub::Connect(name, options) => (
            name,
            body(row.group, row.version, options),
            vec![Verb::Create, Verb::Get],
            SubresourceAction::Connect,
        ),
    };
    Subresource {
        name: name.to_owned(),
        body,
        verbs,
        action,
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
