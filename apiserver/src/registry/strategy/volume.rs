//! Persistent volumes and claims.

use serde_json::{Value, json};

use super::{Context, Strategy};
use crate::meta;
use crate::registry::rules;
use crate::schema::FieldError;

/// Persistent volume claims: pending until somebody binds them, with a spec that can only grow.
#[derive(Debug)]
pub(super) struct Claim;

impl Strategy for Claim {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        meta::put(
            object,
            &["status".to_owned()],
            Some(json!({ "phase": "Pending" })),
        );
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let errors = rules::claim(new);
        let bound = old
            .and_then(|old| old.pointer("/status/phase"))
            .is_some_and(|phase| phase == "Bound");
        let Some(old) = old.and_then(|old| old.get("spec")) else {
            return errors;
        };
        let Some(new) = new.get("spec") else {
            return errors;
        };
        // The volume's name is filled in once; requests for a volume that is there may grow, which is
        // the provisioner's to judge.
        let comparable = |spec: &Value, volume: &Value| {
            let mut spec = spec.clone();
            if let Some(map) = spec.as_object_mut() {
                if bound {
                    map.shift_remove("resources");
                    map.shift_remove("volumeAttributesClassName");
                }
                if volume.is_null() || *volume == json!("") {
                    map.shift_remove("volumeName");
                }
            }
            spec
        };
        let volume = old.get("volumeName").cloned().unwrap_or_default();
        if comparable(new, &volume) == comparable(old, &volume) {
            return errors;
        }
        vec![FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims",
        )]
    }
}

/// Persistent volumes.
#[derive(Debug)]
pub(super) struct Volume;

impl Strategy for Volume {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        meta::put(
            object,
            &["status".to_owned()],
            Some(json!({ "phase": "Pending" })),
        );
    }
}
