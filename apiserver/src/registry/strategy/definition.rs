//! `CustomResourceDefinition`s: names completed, schema judged, instances deleted first.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, Deletion, Strategy, child, default, items_mut, text};
use crate::meta;
use crate::registry::custom::{self, Phase};
use crate::schema::FieldError;

/// Keeps a deleted definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Debug)]
pub(super) struct Definition;

impl Strategy for Definition {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        complete(object);
        let status = json!({
            "conditions": [],
            "acceptedNames": { "plural": "", "kind": "" },
            "storedVersions": storage_versions(object),
        });
        meta::put(object, &["status".to_owned()], Some(status));
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        if !ctx.subresource.is_empty() {
            return;
        }
        complete(new);
        let path = ["status", "storedVersions"].map(ToOwned::to_owned);
        let mut stored: Vec<String> = meta::strings(meta::at(new, &path))
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        for version in storage_versions(new) {
            if !stored.contains(&version) {
                stored.push(version);
            }
        }
        meta::put(new, &path, Some(stored.into()));
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        // A definition on its way out only loses finalizers.
        if meta::is_deleting(new) || old.is_some_and(|old| old.get("spec") == new.get("spec")) {
            return Vec::new();
        }
        let mut errors = custom::descriptor(new, Phase::Serving)
            .err()
            .unwrap_or_default();
        let Some(old) = old else { return errors };
        for path in [
            "spec.group",
            "spec.scope",
            "spec.names.plural",
            "spec.names.kind",
        ] {
            let steps: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
            let value = meta::at(new, &steps);
            if value != meta::at(old, &steps) {
                let value = value.unwrap_or(&Value::Null);
                errors.push(FieldError::invalid(path, value, "field is immutable"));
            }
        }
        errors
    }

    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Marked
    }

    fn mark_deleting(&self, object: &mut Value, now: Timestamp) {
        let path = ["status", "conditions"].map(ToOwned::to_owned);
        let marked = meta::at(object, &path)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|condition| text(condition, "type") == "Terminating");
        if marked {
            return;
        }
        meta::add_finalizer(object, CLEANUP);
        let terminating = json!({
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": meta::time(now),
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will \
                        begin soon",
        });
        let mut conditions = meta::at(object, &path)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        conditions.push(terminating);
        meta::put(object, &path, Some(conditions.into()));
    }
}

fn complete(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "conversion", json!({ "strategy": "None" }));
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            default(names, "singular", kind.to_lowercase());
            default(names, "listKind", format!("{kind}List"));
        }
    }
    for version in items_mut(spec, "versions") {
        let Some(columns) = version.get_mut("additionalPrinterColumns") else {
            continue;
        };
        for column in columns.as_array_mut().into_iter().flatten() {
            if column.get("priority") == Some(&json!(0)) {
                column
                    .as_object_mut()
                    .map(|column| column.shift_remove("priority"));
            }
        }
    }
}

fn storage_versions(object: &Value) -> Vec<String> {
    object
        .get("spec")
        .and_then(|spec| spec.get("versions"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .map(|version| text(version, "name").to_owned())
        .collect()
}
