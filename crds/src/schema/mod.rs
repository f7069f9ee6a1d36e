//! Fragments of the CRDs' schemas that our types refer to.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::pod_template::VolumeClaimTemplate;

/// Stands for a core/v1 `PodSpec` in our schemas under a name of its own, so that it can be told from others.
#[derive(Debug)]
pub struct CorePodSpec;

impl JsonSchema for CorePodSpec {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplateSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PodSpec::json_schema(generator)
    }
}

/// An instant given by a user.
pub fn instant(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// A list that is replaced as a whole.
pub fn atomic_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<T>(),
        "x-kubernetes-list-type": "atomic",
    })
}

/// `volumeClaimTemplates`, wherever they appear.
pub fn claim_templates(generator: &mut SchemaGenerator) -> Schema {
    atomic_list::<VolumeClaimTemplate>(generator)
}

/// `status.conditions`: a map by type, so that two writers do not lose each other's.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Condition>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
