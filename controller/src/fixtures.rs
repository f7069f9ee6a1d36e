//! Objects for unit tests, built from JSON the way the API server sends them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::intern::Interner;
use crate::objects::Row;

/// A row from an object as the API server would send it; what metadata lacks is filled in.
pub(crate) fn row<R: Row>(mut object: Value) -> Arc<R> {
    let defaults = json!({
        "name": "x", "namespace": "n", "uid": uid(1), "resourceVersion": "10", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    for (key, value) in defaults.as_object().unwrap() {
        if object["metadata"].get(key).is_none() {
            object["metadata"][key] = value.clone();
        }
    }
    let wire = serde_json::from_value(object).unwrap();
    Arc::new(R::from_wire(wire, &Interner::default()).unwrap())
}

/// The `n`th UID.
pub(crate) fn uid(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// A controlling owner reference.
pub(crate) fn owner(kind: &str, name: &str, uid: &str) -> Value {
    let api = match kind {
        "Sandbox" => "agents.x-k8s.io/v1beta1",
        "SandboxClaim" | "SandboxWarmPool" | "SandboxTemplate" => {
            "extensions.agents.x-k8s.io/v1alpha1"
        }
        _ => "apps/v1",
    };
    json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// A condition as on the wire.
pub(crate) fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    })
}

/// A moment.
pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
