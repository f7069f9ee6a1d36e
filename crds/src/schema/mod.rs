//! Schemas of the CRDs: from Rust types to what the API server calls a structural schema.
//!
//! [`structural`] turns a type's JSON schema into one; [`kubernetes`] holds the facts about Kubernetes' own types that
//! their published schemas lack. The functions in this file are the fragments our types refer to in their attributes.

pub(crate) mod kubernetes;
pub(crate) mod structural;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::pod_template::VolumeClaimTemplate;

/// How much a Sandbox's `podTemplate.spec` is checked when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSpecSchema {
    /// Containers are required to have names; everything else is kept as written and checked when the pod is created.
    /// Writes to a Sandbox cost the API server about half as much.
    Lean,
    /// Every field of core/v1, for `kubectl explain` and for validation when the Sandbox is written.
    Full,
}

/// An instant given by a user.
///
/// The pattern is narrower than the API server's reading of `date-time`, which lets offsets like `+99:99` pass that no
/// client can read back.
pub(crate) fn instant(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$",
    })
}

/// A list that is replaced as a whole.
pub(crate) fn atomic_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<T>(),
        "x-kubernetes-list-type": "atomic",
    })
}

/// `volumeClaimTemplates`, wherever they appear.
pub(crate) fn claim_templates(generator: &mut SchemaGenerator) -> Schema {
    atomic_list::<VolumeClaimTemplate>(generator)
}

/// `status.conditions`: a map by type, so that two writers do not lose each other's.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "message": { "type": "string", "maxLength": crate::condition::MAX_MESSAGE },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": crate::condition::MAX_REASON,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests;
