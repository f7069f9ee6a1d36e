//! Persistent volumes and claims.

use serde_json::{Value, json};

use super::{Context, Strategy, child, default};
use crate::meta;
use crate::schema::FieldError;

/// Persistent volume claims: pending until somebody binds them, with a spec that can only grow.
#[derive(Debug)]
pub(super) struct Claim;

impl Strategy for Claim {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        complete_claim(object);
        meta::put(
            object,
            &["status".to_owned()],
            Some(json!({ "phase": "Pending" })),
        );
    }

    fn prepare_update(&self, _ctx: &Context<'_>, subresource: &str, new: &mut Value, _old: &Value) {
        if subresource.is_empty()
            && let Some(spec) = child(new, "spec")
        {
            default(spec, "volumeMode", "Filesystem");
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(old) = old.and_then(|old| old.get("spec")) else {
            return Vec::new();
        };
        let Some(new) = new.get("spec") else {
            return Vec::new();
        };
        // The volume's name is filled in once; requests may grow, which is the provisioner's to
        // judge.
        let comparable = |spec: &Value, volume: &Value| {
            let mut spec = spec.clone();
            if let Some(map) = spec.as_object_mut() {
                map.shift_remove("resources");
                map.shift_remove("volumeAttributesClassName");
                if volume.is_null() || *volume == json!("") {
                    map.shift_remove("volumeName");
                }
            }
            spec
        };
        let volume = old.get("volumeName").cloned().unwrap_or_default();
        if comparable(new, &volume) == comparable(old, &volume) {
            return Vec::new();
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
        if let Some(spec) = child(object, "spec") {
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default(spec, "volumeMode", "Filesystem");
        }
        meta::put(
            object,
            &["status".to_owned()],
            Some(json!({ "phase": "Pending" })),
        );
    }
}

/// Completes the spec of a claim or of a claim template.
pub(super) fn complete_claim(claim: &mut Value) {
    if let Some(spec) = child(claim, "spec") {
        default(spec, "volumeMode", "Filesystem");
    }
}
