//! The four CustomResourceDefinitions: both versions of each, over one schema, without a conversion webhook.
//!
//! `v1beta1` is stored. `v1alpha1` is served with a deprecation warning; an object written through either is read
//! through both as it is stored, so the schema of both is the union of their fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale, CustomResourceSubresourceStatus, CustomResourceSubresources,
    CustomResourceValidation, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::claim::{SandboxClaim, SandboxClaimSpec, SandboxClaimStatus};
use crate::sandbox::{Sandbox, SandboxSpec, SandboxStatus};
use crate::schema::PodSpecSchema;
use crate::schema::structural::{insert, property_mut, structural};
use crate::template::{SandboxTemplate, SandboxTemplateSpec, SandboxTemplateStatus};
use crate::warm_pool::{SandboxWarmPool, SandboxWarmPoolSpec, SandboxWarmPoolStatus};
use crate::{DEPRECATED_VERSION, STORED_VERSION};

/// Every definition. Only that of Sandbox depends on `pod_spec`; a SandboxTemplate is always checked in full, since
/// people write it by hand.
pub fn all(pod_spec: PodSpecSchema) -> Vec<CustomResourceDefinition> {
    vec![sandbox(pod_spec), claim(), template(), warm_pool()]
}

/// The definition of Sandbox.
pub fn sandbox(pod_spec: PodSpecSchema) -> CustomResourceDefinition {
    let mut spec = structural::<SandboxSpec>(pod_spec);
    add_rules(
        &mut spec,
        &[Rule {
            expression: "has(self.volumeClaimTemplates) == has(oldSelf.volumeClaimTemplates) && \
                   (!has(self.volumeClaimTemplates) || \
                   self.volumeClaimTemplates == oldSelf.volumeClaimTemplates)",
            message: "volumeClaimTemplates is immutable",
            field: None,
        }],
    );
    let schema = object(
        "One pod with a stable identity, its volumes and its headless Service.",
        &spec,
        Some(&structural::<SandboxStatus>(pod_spec)),
    );
    let stored = Version {
        schema: schema.clone(),
        columns: vec![ready_column(), reason_column(), age_column()],
        subresources: status_subresource(),
    };
    let deprecated = Version {
        schema,
        columns: vec![],
        subresources: scale_subresource(),
    };
    definition::<Sandbox>(stored, deprecated)
}

/// The definition of SandboxClaim.
pub fn claim() -> CustomResourceDefinition {
    let mut spec = structural::<SandboxClaimSpec>(PodSpecSchema::Full);
    add_rules(
        &mut spec,
        &[
            Rule {
                expression: "has(self.warmPoolRef) != has(self.sandboxTemplateRef)",
                message: "exactly one of warmPoolRef and sandboxTemplateRef must be set",
                field: None,
            },
            // The default is let pass: an update through v1alpha1 fills it in for every claim.
            Rule {
                expression: "has(self.sandboxTemplateRef) || !has(self.warmpool) || \
                       self.warmpool in ['', 'default']",
                message: "warmpool may only be set together with sandboxTemplateRef",
                field: Some(".warmpool"),
            },
        ],
    );
    let mut schema = object(
        "A request for one sandbox, out of a warm pool or made to order.",
        &spec,
        Some(&structural::<SandboxClaimStatus>(PodSpecSchema::Full)),
    );
    add_rules(
        &mut schema,
        &[
            Rule {
                expression: &format!(
                    "{UNBOUND} || \
                     (has(self.spec.warmPoolRef) && has(oldSelf.spec.warmPoolRef) && \
                     self.spec.warmPoolRef.name == oldSelf.spec.warmPoolRef.name) || \
                     (has(self.spec.sandboxTemplateRef) && has(oldSelf.spec.sandboxTemplateRef) && \
                     self.spec.sandboxTemplateRef.name == oldSelf.spec.sandboxTemplateRef.name && \
                     (has(self.spec.warmpool) ? self.spec.warmpool : 'default') == \
                     (has(oldSelf.spec.warmpool) ? oldSelf.spec.warmpool : 'default'))"
                ),
                message: "warmPoolRef, sandboxTemplateRef and warmpool are immutable once the claim has a sandbox",
                field: Some(".spec"),
            },
            Rule {
                expression: &format!("{UNBOUND} || {}", unchanged("env")),
                message: "env is immutable once the claim has a sandbox",
                field: Some(".spec.env"),
            },
            Rule {
                expression: &format!("{UNBOUND} || {}", unchanged("volumeClaimTemplates")),
                message: "volumeClaimTemplates is immutable once the claim has a sandbox",
                field: Some(".spec.volumeClaimTemplates"),
            },
        ],
    );
    let columns = vec![
        ready_column(),
        column("Sandbox", "string", ".status.sandbox.name"),
        reason_column(),
        age_column(),
    ];
    let mut deprecated = schema.clone();
    if let Some(warmpool) =
        property_mut(&mut deprecated, "spec").and_then(|spec| property_mut(spec, "warmpool"))
    {
        insert(warmpool, "default", json!("default"));
    }
    definition::<SandboxClaim>(
        Version {
            schema,
            columns: columns.clone(),
            subresources: status_subresource(),
        },
        Version {
            schema: deprecated,
            columns,
            subresources: status_subresource(),
        },
    )
}

/// The definition of SandboxTemplate.
pub fn template() -> CustomResourceDefinition {
    let schema = object(
        "What sandboxes are made of, and the rules for those who claim them.",
        &structural::<SandboxTemplateSpec>(PodSpecSchema::Full),
        Some(&structural::<SandboxTemplateStatus>(PodSpecSchema::Full)),
    );
    let version = Version {
        schema,
        columns: vec![
            column(
                "NetworkPolicy",
                "string",
                ".status.conditions[?(@.type=='NetworkPolicyReady')].reason",
            ),
            age_column(),
        ],
        subresources: status_subresource(),
    };
    definition::<SandboxTemplate>(version.clone(), version)
}

/// The definition of SandboxWarmPool.
pub fn warm_pool() -> CustomResourceDefinition {
    let schema = object(
        "Sandboxes of one template, started ahead of the claims that will take them.",
        &structural::<SandboxWarmPoolSpec>(PodSpecSchema::Full),
        Some(&structural::<SandboxWarmPoolStatus>(PodSpecSchema::Full)),
    );
    let version = Version {
        schema,
        columns: vec![
            column("Ready", "integer", ".status.readyReplicas"),
            column("Desired", "integer", ".spec.replicas"),
            age_column(),
        ],
        subresources: scale_subresource(),
    };
    definition::<SandboxWarmPool>(version.clone(), version)
}

/// What the two versions of a kind may differ in.
#[derive(Clone)]
struct Version {
    schema: Value,
    columns: Vec<CustomResourceColumnDefinition>,
    subresources: Option<CustomResourceSubresources>,
}

/// A validation rule in the Common Expression Language.
struct Rule<'a> {
    expression: &'a str,
    message: &'a str,
    /// The field at fault, below where the rule stands, if it is one field.
    field: Option<&'a str>,
}

/// CEL: the claim had no sandbox before the update.
const UNBOUND: &str = "!has(oldSelf.status) || !has(oldSelf.status.sandbox) || \
                       !has(oldSelf.status.sandbox.name) || oldSelf.status.sandbox.name == ''";

/// CEL: a list of the spec is what it was, absent and empty being the same.
fn unchanged(list: &str) -> String {
    format!(
        "(has(self.spec.{list}) ? self.spec.{list} : []) == \
         (has(oldSelf.spec.{list}) ? oldSelf.spec.{list} : [])"
    )
}

fn definition<K: CustomResourceExt + kube::Resource<DynamicType = ()>>(
    stored: Version,
    deprecated: Version,
) -> CustomResourceDefinition {
    let mut crd = K::crd();
    let (group, kind) = (crd.spec.group.clone(), crd.spec.names.kind.clone());
    let mut deprecated = served(DEPRECATED_VERSION, deprecated);
    deprecated.deprecated = Some(true);
    deprecated.deprecation_warning = Some(format!(
        "{group}/{DEPRECATED_VERSION} {kind} is deprecated; use {group}/{STORED_VERSION} {kind} instead"
    ));
    let mut stored = served(STORED_VERSION, stored);
    stored.storage = true;
    crd.spec.versions = vec![stored, deprecated];
    crd.spec.names.list_kind = Some(format!("{kind}List"));
    crd
}

fn served(name: &str, version: Version) -> CustomResourceDefinitionVersion {
    CustomResourceDefinitionVersion {
        name: name.to_owned(),
        served: true,
        storage: false,
        schema: Some(CustomResourceValidation {
            open_api_v3_schema: Some(typed(version.schema)),
        }),
        additional_printer_columns: (!version.columns.is_empty()).then_some(version.columns),
        subresources: version.subresources,
        ..CustomResourceDefinitionVersion::default()
    }
}

#[expect(
    clippy::expect_used,
    reason = "the schemas are constants of this crate; a test builds every one"
)]
fn typed(schema: Value) -> JSONSchemaProps {
    serde_json::from_value(schema).expect("a structural schema is a JSONSchemaProps")
}

/// The schema of a whole object.
fn object(description: &str, spec: &Value, status: Option<&Value>) -> Value {
    let mut schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
        },
    });
    if let (Some(status), Some(properties)) = (status, schema.get_mut("properties")) {
        insert(properties, "status", status.clone());
    }
    schema
}

fn add_rules(schema: &mut Value, rules: &[Rule<'_>]) {
    let rules = rules
        .iter()
        .map(
            |Rule {
                 expression,
                 message,
                 field,
             }| {
                let mut printed = json!({ "rule": expression, "message": message });
                if let Some(field) = field {
                    insert(&mut printed, "fieldPath", json!(field));
                }
                printed
            },
        )
        .collect();
    insert(schema, "x-kubernetes-validations", Value::Array(rules));
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field it fills")]
fn status_subresource() -> Option<CustomResourceSubresources> {
    Some(CustomResourceSubresources {
        status: Some(CustomResourceSubresourceStatus(json!({}))),
        scale: None,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field it fills")]
fn scale_subresource() -> Option<CustomResourceSubresources> {
    Some(CustomResourceSubresources {
        status: Some(CustomResourceSubresourceStatus(json!({}))),
        scale: Some(CustomResourceSubresourceScale {
            spec_replicas_path: ".spec.replicas".to_owned(),
            status_replicas_path: ".status.replicas".to_owned(),
            label_selector_path: Some(".status.selector".to_owned()),
        }),
    })
}

fn column(name: &str, type_: &str, json_path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path: json_path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

fn ready_column() -> CustomResourceColumnDefinition {
    column(
        "Ready",
        "string",
        ".status.conditions[?(@.type=='Ready')].status",
    )
}

fn reason_column() -> CustomResourceColumnDefinition {
    column(
        "Reason",
        "string",
        ".status.conditions[?(@.type=='Ready')].reason",
    )
}

fn age_column() -> CustomResourceColumnDefinition {
    column("Age", "date", ".metadata.creationTimestamp")
}

#[cfg(test)]
mod tests;
