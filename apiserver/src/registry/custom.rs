//! From a `CustomResourceDefinition` to a [`Descriptor`].
//!
//! Pure: a definition is judged and translated without looking at anything else. Whether its names
//! are free, and when it becomes visible, is decided by the background part that owns the CRD
//! lifecycle.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Column, Deprecation, Descriptor, Origin, Plain, ScalePaths, Scope, SelectableField,
    Subresource, SubresourceAction, Verb, Version,
};
use crate::format::names;
use crate::meta;
use crate::schema::{FieldError, Rules, Structural};

/// How the lifecycle of a definition restricts its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything is allowed.
    Serving,
    /// The definition is being deleted: nothing new may be created.
    Terminating,
}

/// Translates a definition.
///
/// # Errors
/// Everything that is wrong with it, by field.
pub fn descriptor(definition: &Value, phase: Phase) -> Result<Descriptor, Vec<FieldError>> {
    let mut errors = Vec::new();
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let names = spec.get("names").unwrap_or(&Value::Null);
    let (group, plural) = (text(spec, "group"), text(names, "plural"));
    check_names(definition, spec, names, &mut errors);
    let scope = match text(spec, "scope") {
        "Cluster" => Scope::Cluster,
        "Namespaced" => Scope::Namespaced,
        other => {
            let supported = ["Cluster", "Namespaced"];
            errors.push(FieldError::not_supported(
                "spec.scope",
                &json!(other),
                supported,
            ));
            Scope::Namespaced
        }
    };
    check_conversion(spec, &mut errors);
    if spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true) {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            &json!(true),
            "must be false in order to use defaults in the schema",
        ));
    }
    let versions = versions(spec, &mut errors);
    check_versions(definition, &versions, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let kind = text(names, "kind");
    Ok(Descriptor {
        group: group.to_owned(),
        plural: plural.to_owned(),
        singular: or_else(text(names, "singular"), || kind.to_lowercase()),
        kind: kind.to_owned(),
        list_kind: or_else(text(names, "listKind"), || format!("{kind}List")),
        short_names: owned(names.get("shortNames")),
        categories: owned(names.get("categories")),
        scope,
        verbs: verbs(phase),
        versions,
        generation: true,
        create_on_update: false,
        unconditional_update: false,
        returns_deleted: false,
        stored_as: None,
        origin: Origin::Custom {
            uid: meta::text(definition, "uid").to_owned(),
        },
        strategy: Arc::new(Plain),
    })
}

/// The verbs of a custom resource.
pub(crate) fn verbs(phase: Phase) -> Vec<Verb> {
    let allowed = |verb: &Verb| phase == Phase::Serving || *verb != Verb::Create;
    Verb::ALL.into_iter().filter(allowed).collect()
}

fn check_names(definition: &Value, spec: &Value, names: &Value, errors: &mut Vec<FieldError>) {
    let (group, plural) = (text(spec, "group"), text(names, "plural"));
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        push_all(
            errors,
            "spec.group",
            group,
            names::dns1123_subdomain_errors(group),
        );
        if !group.contains('.') {
            let problem = "should be a domain with at least one dot";
            errors.push(FieldError::invalid("spec.group", &json!(group), problem));
        }
    }
    let required = [("plural", plural), ("kind", text(names, "kind"))];
    for (field, value) in required {
        if value.is_empty() {
            errors.push(FieldError::required(format_args!("spec.names.{field}"), ""));
        }
    }
    let lower = [("plural", plural), ("singular", text(names, "singular"))];
    for (field, value) in lower.into_iter().filter(|(_, value)| !value.is_empty()) {
        let path = format!("spec.names.{field}");
        push_all(errors, &path, value, names::dns1035_label_errors(value));
    }
    for field in ["kind", "listKind"] {
        let value = text(names, field);
        if !value.is_empty() {
            let path = format!("spec.names.{field}");
            push_all(
                errors,
                &path,
                value,
                names::dns1035_label_errors(&value.to_lowercase()),
            );
        }
    }
    for (field, list) in [
        ("shortNames", names.get("shortNames")),
        ("categories", names.get("categories")),
    ] {
        for (at, value) in meta::strings(list).into_iter().enumerate() {
            let path = format!("spec.names.{field}[{at}]");
            push_all(errors, &path, value, names::dns1035_label_errors(value));
        }
    }
    let name = meta::text(definition, "name");
    let expected = format!("{plural}.{group}");
    if name != expected {
        errors.push(FieldError::invalid(
            "metadata.name",
            &json!(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
}

fn check_conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let strategy = spec
        .get("conversion")
        .map_or("None", |conversion| text(conversion, "strategy"));
    if !matches!(strategy, "" | "None") {
        errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            &json!(strategy),
            ["None"],
        ));
    }
}

fn check_versions(definition: &Value, versions: &[Arc<Version>], errors: &mut Vec<FieldError>) {
    let stored = versions.iter().filter(|version| version.storage).count();
    if stored != 1 {
        let names: Vec<&str> = versions
            .iter()
            .map(|version| version.name.as_str())
            .collect();
        errors.push(FieldError::invalid(
            "spec.versions",
            &json!(names),
            "must have exactly one version marked as storage version",
        ));
    }
    for (at, version) in versions.iter().enumerate() {
        if versions
            .iter()
            .take(at)
            .any(|other| other.name == version.name)
        {
            let path = format!("spec.versions[{at}].name");
            errors.push(FieldError::duplicate(path, &json!(version.name)));
        }
    }
    let stored = definition
        .get("status")
        .and_then(|status| status.get("storedVersions"));
    for (at, name) in meta::strings(stored).into_iter().enumerate() {
        if versions.iter().all(|version| version.name != name) {
            let path = format!("status.storedVersions[{at}]");
            let problem = "missing from spec.versions; it was previously a storage version, and \
                           must remain in spec.versions until a storage migration ensures no data \
                           remains persisted in this version and removes it from \
                           status.storedVersions";
            errors.push(FieldError::invalid(path, &json!(name), problem));
        }
    }
}

/// Translates the versions; those with one schema share its parsed form.
fn versions(spec: &Value, errors: &mut Vec<FieldError>) -> Vec<Arc<Version>> {
    let list = spec
        .get("versions")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        errors.push(FieldError::required("spec.versions", ""));
    }
    let mut parsed: Vec<(&Value, Schema)> = Vec::new();
    let mut versions = Vec::new();
    for (at, version) in list.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        let name = text(version, "name");
        push_all(
            errors,
            &format!("{path}.name"),
            name,
            names::dns1035_label_errors(name),
        );
        let raw = version
            .get("schema")
            .and_then(|schema| schema.get("openAPIV3Schema"));
        let Some(raw) = raw.filter(|raw| raw.is_object()) else {
            let at = format!("{path}.schema.openAPIV3Schema");
            errors.push(FieldError::required(at, "schemas are required"));
            continue;
        };
        let known = parsed
            .iter()
            .find(|(other, _)| *other == raw)
            .map(|(_, schema)| schema.clone());
        let schema = match known {
            Some(schema) => schema,
            None => match Schema::parse(raw, &format!("{path}.schema.openAPIV3Schema")) {
                Ok(schema) => {
                    parsed.push((raw, schema.clone()));
                    schema
                }
                Err(found) => {
                    errors.extend(found);
                    continue;
                }
            },
        };
        versions.push(Arc::new(translate(spec, version, schema, &path, errors)));
    }
    sort_by_priority(&mut versions);
    versions
}

/// One parsed schema.
#[derive(Clone)]
struct Schema {
    structural: Arc<Structural>,
    rules: Arc<Rules>,
    text: Arc<str>,
}

impl Schema {
    fn parse(raw: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        let structural = Structural::parse(raw).map_err(|error| error.prefixed(path).errors)?;
        let rules = Rules::compile(&structural).map_err(|error| error.prefixed(path).errors)?;
        Ok(Self {
            structural: Arc::new(structural),
            rules: Arc::new(rules),
            text: raw.to_string().into(),
        })
    }
}

fn translate(
    spec: &Value,
    version: &Value,
    schema: Schema,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Version {
    let flag = |field: &str| version.get(field).and_then(Value::as_bool) == Some(true);
    let name = text(version, "name").to_owned();
    let (group, kind) = (
        text(spec, "group"),
        spec.get("names").map_or("", |n| text(n, "kind")),
    );
    let deprecation = flag("deprecated").then(|| Deprecation {
        warning: or_else(text(version, "deprecationWarning"), || {
            format!("{group}/{name} {kind} is deprecated")
        }),
    });
    Version {
        served: flag("served"),
        storage: flag("storage"),
        deprecation,
        schema: schema.structural,
        rules: schema.rules,
        openapi: Some(schema.text),
        columns: columns(version),
        selectable_fields: selectable_fields(version, path, errors),
        subresources: subresources(version, path, errors),
        name,
    }
}

fn columns(version: &Value) -> Vec<Column> {
    let list = version
        .get("additionalPrinterColumns")
        .and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|column| Column {
            name: text(column, "name").to_owned(),
            r#type: text(column, "type").to_owned(),
            format: text(column, "format").to_owned(),
            description: text(column, "description").to_owned(),
            priority: column
                .get("priority")
                .and_then(Value::as_i64)
                .and_then(|priority| i32::try_from(priority).ok())
                .unwrap_or(0),
            json_path: text(column, "jsonPath").to_owned(),
        })
        .collect()
}

fn selectable_fields(
    version: &Value,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Vec<SelectableField> {
    let list = version.get("selectableFields").and_then(Value::as_array);
    let mut fields = Vec::new();
    for (at, field) in list.into_iter().flatten().enumerate() {
        let json_path = text(field, "jsonPath");
        if simple_path(json_path).is_some() {
            let label = json_path.trim_start_matches('.');
            fields.push(SelectableField::dotted(label));
        } else {
            let path = format!("{path}.selectableFields[{at}].jsonPath");
            let problem = "must be a simple path like .spec.field";
            errors.push(FieldError::invalid(path, &json!(json_path), problem));
        }
    }
    fields
}

fn subresources(version: &Value, path: &str, errors: &mut Vec<FieldError>) -> Vec<Subresource> {
    let verbs = vec![Verb::Get, Verb::Patch, Verb::Update];
    let mut found = Vec::new();
    let declared = version.get("subresources").unwrap_or(&Value::Null);
    if declared.get("status").is_some() {
        found.push(Subresource {
            name: "status".to_owned(),
            body: None,
            verbs: verbs.clone(),
            action: SubresourceAction::Part {
                paths: vec![vec!["status".to_owned()]],
            },
        });
    }
    if let Some(scale) = declared.get("scale") {
        let mut place = |field: &str, root: &str| {
            let json_path = text(scale, field);
            let steps = simple_path(json_path).filter(|steps| {
                steps.len() > 1 && steps.first().is_some_and(|first| first == root)
            });
            if steps.is_none() {
                let path = format!("{path}.subresources.scale.{field}");
                let problem = format!("should be a json path under .{root}");
                errors.push(FieldError::invalid(path, &json!(json_path), problem));
            }
            steps.unwrap_or_default()
        };
        let (spec, status) = (
            place("specReplicasPath", "spec"),
            place("statusReplicasPath", "status"),
        );
        let selector = simple_path(text(scale, "labelSelectorPath"));
        let body = (
            "autoscaling".to_owned(),
            "v1".to_owned(),
            "Scale".to_owned(),
        );
        found.push(Subresource {
            name: "scale".to_owned(),
            body: Some(body),
            verbs,
            action: SubresourceAction::Scale(ScalePaths {
                spec,
                status,
                selector,
            }),
        });
    }
    found
}

/// The steps of `.a.b.c`.
fn simple_path(json_path: &str) -> Option<Vec<String>> {
    let steps: Vec<String> = json_path
        .strip_prefix('.')?
        .split('.')
        .map(ToOwned::to_owned)
        .collect();
    let simple = steps.iter().all(|step| {
        !step.is_empty()
            && step
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    });
    simple.then_some(steps)
}

/// Orders versions the way discovery shows them: stable before beta before alpha, newer first.
fn sort_by_priority(versions: &mut [Arc<Version>]) {
    versions.sort_by(|a, b| {
        priority(&b.name)
            .cmp(&priority(&a.name))
            .then(a.name.cmp(&b.name))
    });
}

/// (is a version, stability, major, minor); larger comes first.
fn priority(name: &str) -> (bool, u8, u64, u64) {
    let parse = || {
        let rest = name.strip_prefix('v')?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (major, rest) = rest.split_at_checked(digits)?;
        let major = major.parse().ok()?;
        if rest.is_empty() {
            return Some((true, 3, major, 0));
        }
        let (stability, minor) = match rest.strip_prefix("beta") {
            Some(minor) => (2, minor),
            None => (1, rest.strip_prefix("alpha")?),
        };
        Some((true, stability, major, minor.parse().ok()?))
    };
    parse().unwrap_or((false, 0, 0, 0))
}

fn push_all(errors: &mut Vec<FieldError>, path: &str, value: &str, problems: Vec<String>) {
    let found = problems
        .into_iter()
        .map(|text| FieldError::invalid(path, &json!(value), text));
    errors.extend(found);
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

fn owned(list: Option<&Value>) -> Vec<String> {
    meta::strings(list)
        .into_iter()
        .map(ToOwned::to_owned)
        .collect()
}

fn or_else(text: &str, fallback: impl FnOnce() -> String) -> String {
    if text.is_empty() {
        fallback()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": {"name": "things.example.org", "uid": "u"},
            "spec": {
                "group": "example.org", "scope": "Namespaced",
                "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
                "versions": [
                    {"name": "v1alpha1", "served": true, "storage": false, "deprecated": true,
                     "schema": {"openAPIV3Schema": {"type": "object"}}},
                    {"name": "v1", "served": true, "storage": true,
                     "schema": {"openAPIV3Schema": {"type": "object"}},
                     "selectableFields": [{"jsonPath": ".spec.color"}],
                     "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector"}}},
                ],
            },
        })
    }

    fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut definition = definition();
        change(&mut definition);
        let errors = descriptor(&definition, Phase::Serving).unwrap_err();
        errors.into_iter().map(|error| error.path).collect()
    }

    #[test]
    fn a_definition_becomes_a_descriptor() {
        let thing = descriptor(&definition(), Phase::Serving).unwrap();
        assert_eq!(
            (thing.singular.as_str(), thing.list_kind.as_str()),
            ("thing", "ThingList")
        );
        let order: Vec<_> = thing.versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(order, ["v1", "v1alpha1"]);
        let (v1, alpha) = (&thing.versions[0], &thing.versions[1]);
        assert!(v1.storage && v1.has_status());
        assert!(
            Arc::ptr_eq(&v1.schema, &alpha.schema),
            "equal schemas are shared"
        );
        let warning = &alpha.deprecation.as_ref().unwrap().warning;
        assert_eq!(warning, "example.org/v1alpha1 Thing is deprecated");
        assert!(thing.allows(Verb::Create));
        assert!(
            !descriptor(&definition(), Phase::Terminating)
                .unwrap()
                .allows(Verb::Create)
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_field() {
        assert_eq!(
            problems(|d| d["metadata"]["name"] = "x".into()),
            ["metadata.name"]
        );
        assert_eq!(
            problems(|d| d["spec"]["scope"] = "Global".into()),
            ["spec.scope"]
        );
        let none = problems(|d| d["spec"]["versions"][1]["storage"] = false.into());
        assert_eq!(none, ["spec.versions"]);
        let webhook = problems(|d| d["spec"]["conversion"] = json!({"strategy": "Webhook"}));
        assert_eq!(webhook, ["spec.conversion.strategy"]);
        let missing = problems(|d| d["spec"]["versions"][0]["schema"] = json!({}));
        assert_eq!(missing, ["spec.versions[0].schema.openAPIV3Schema"]);
        let scale = problems(|d| {
            d["spec"]["versions"][1]["subresources"]["scale"]["specReplicasPath"] = "spec".into();
        });
        assert_eq!(
            scale,
            ["spec.versions[1].subresources.scale.specReplicasPath"]
        );
        let dropped = problems(|d| d["status"] = json!({"storedVersions": ["v1", "v0"]}));
        assert_eq!(dropped, ["status.storedVersions[1]"]);
    }

    #[test]
    fn versions_are_ordered_as_published() {
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
        ];
        let mut names: Vec<&str> = expected.to_vec();
        names.reverse();
        names.sort_by(|a, b| priority(b).cmp(&priority(a)).then(a.cmp(b)));
        assert_eq!(names, expected);
    }
}
