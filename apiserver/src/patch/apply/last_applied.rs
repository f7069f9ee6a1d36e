//! From client-side to server-side apply: the annotation that `kubectl apply` leaves.
//!
//! `kubectl` owns what its client-side apply last set, even though the record names another manager;
//! its first server-side apply must not conflict with itself. Only for the manager `kubectl`.

use serde_json::Value;

use super::fieldset::FieldSet;
use super::typed::{self, Type};
use crate::schema::render;

/// The manager that upgrades.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields that the last client-side apply set and that are still as it set them.
pub(super) fn owned(ty: Type<'_>, live: &Value, api_version: &str) -> FieldSet {
    let Some(applied) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return FieldSet::default();
    };
    if applied.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return FieldSet::default();
    }
    let diff = typed::compare(ty, &applied, live);
    typed::field_set(ty, &applied)
        .difference(&diff.modified)
        .difference(&diff.added)
        .difference(&diff.removed)
}

/// Keeps an existing annotation in step with what was applied.
pub(super) fn refresh(object: &mut Value, applied: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
        annotations.shift_remove(ANNOTATION);
    }
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.insert(
            ANNOTATION.to_owned(),
            Value::String(format!("{}\n", render::json(&applied))),
        );
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()
        .filter(|text| !text.is_empty())
}
