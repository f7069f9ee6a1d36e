//! Namespaces: held by `spec.finalizers` until their content is gone.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, Deletion, NameRule, Strategy};
use crate::meta;
use crate::schema::FieldError;

/// The label every namespace carries with its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug)]
pub(super) struct Namespace;

impl Strategy for Namespace {
    fn prepare_create(&self, ctx: &Context<'_>, object: &mut Value) {
        meta::put(
            object,
            &path(&["spec", "finalizers"]),
            Some(json!(["kubernetes"])),
        );
        meta::put(
            object,
            &path(&["status"]),
            Some(json!({ "phase": "Active" })),
        );
        label(ctx, object);
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if ctx.subresource != "finalize" {
            let finalizers = path(&["spec", "finalizers"]);
            meta::put(new, &finalizers, meta::at(old, &finalizers).cloned());
        }
        label(ctx, new);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let phase = new.get("status").and_then(|status| status.get("phase"));
        let terminating = phase.and_then(Value::as_str) == Some("Terminating");
        // The phase is not a switch: deleting the namespace is what terminates it.
        let wrong = old.is_some() && terminating != meta::is_deleting(new);
        match phase {
            Some(phase) if wrong => {
                let expected = if terminating { "Active" } else { "Terminating" };
                let problem = format!("may only be '{expected}'");
                vec![FieldError::invalid("status.phase", phase, problem)]
            }
            _ => Vec::new(),
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn keeps(&self, name: &str) -> Option<&'static str> {
        matches!(name, "default" | "kube-system" | "kube-public")
            .then_some("this namespace may not be deleted")
    }

    fn holds(&self, object: &Value) -> bool {
        meta::at(object, &path(&["spec", "finalizers"]))
            .and_then(Value::as_array)
            .is_some_and(|finalizers| !finalizers.is_empty())
    }

    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Marked
    }

    fn mark_deleting(&self, object: &mut Value, _now: Timestamp) {
        meta::put(
            object,
            &path(&["status", "phase"]),
            Some("Terminating".into()),
        );
    }
}

fn label(ctx: &Context<'_>, object: &mut Value) {
    meta::put(
        object,
        &path(&["metadata", "labels", NAME_LABEL]),
        Some(ctx.name.into()),
    );
}

fn path(steps: &[&str]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}
