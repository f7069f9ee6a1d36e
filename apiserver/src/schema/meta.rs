//! What every object has: `apiVersion`, `kind` and `metadata`.
//!
//! Custom resources do not describe these fields, the API server implies them. Adding them to the
//! schema lets pruning, defaulting, validation and server-side apply treat them like any other
//! field. The definitions are those of `meta/v1` with their published merge behaviour.

use serde_json::Value;

use super::intern::Interner;
use super::resolve::Definitions;
use super::structural::{Kind, Name, Node, Structural};

/// Adds the implied fields to the schema of an object or of an embedded one.
///
/// What the schema says about metadata fields itself, for example a pattern for the name, stays.
pub(super) fn add_object_fields(node: &mut Node, interner: &mut Interner) {
    let mut properties = std::mem::take(&mut node.properties).into_vec();
    for name in ["apiVersion", "kind"] {
        if !properties.iter().any(|(known, _)| &**known == name) {
            let text = interner.node(Node {
                kind: Kind::String,
                ..Node::default()
            });
            properties.push((interner.name(name), text));
        }
    }
    let implied = object_meta(interner);
    let at = properties
        .iter()
        .position(|(name, _)| &**name == "metadata");
    match at.and_then(|at| properties.get_mut(at)) {
        Some((_, declared)) => *declared = overlay(&implied, declared, interner),
        None => properties.push((interner.name("metadata"), implied)),
    }
    properties.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    node.properties = properties.into_boxed_slice();
}

/// The implied metadata with the fields that `declared` describes itself.
fn overlay(implied: &Structural, declared: &Structural, interner: &mut Interner) -> Structural {
    let properties: Vec<(Name, Structural)> = implied
        .properties()
        .iter()
        .map(|(name, schema)| {
            let schema = declared.property(name).unwrap_or(schema);
            (Name::clone(name), schema.clone())
        })
        .collect();
    let mut node = Node::clone(implied);
    node.checks.clone_from(&declared.checks);
    node.extra.clone_from(&declared.extra);
    node.properties = properties.into_boxed_slice();
    interner.node(node)
}

/// The schema of `metadata`.
fn object_meta(interner: &mut Interner) -> Structural {
    let Ok(document) = serde_json::from_str::<Value>(DEFINITIONS) else {
        return Structural::free_form();
    };
    let mut definitions = Definitions::with_interner(&document, std::mem::take(interner));
    let schema = definitions.resolve("ObjectMeta").unwrap_or_default();
    *interner = definitions.into_interner();
    schema
}

const DEFINITIONS: &str = r##"{
  "Time": {"type": "string", "format": "date-time"},
  "ObjectMeta": {
    "type": "object",
    "properties": {
      "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
      "creationTimestamp": {"$ref": "#/Time"},
      "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
      "deletionTimestamp": {"$ref": "#/Time"},
      "finalizers": {
        "type": "array",
        "items": {"type": "string"},
        "x-kubernetes-list-type": "set",
        "x-kubernetes-patch-strategy": "merge"
      },
      "generateName": {"type": "string"},
      "generation": {"type": "integer", "format": "int64"},
      "labels": {"type": "object", "additionalProperties": {"type": "string"}},
      "managedFields": {
        "type": "array",
        "items": {
          "type": "object",
          "properties": {
            "apiVersion": {"type": "string"},
            "fieldsType": {"type": "string"},
            "fieldsV1": {"type": "object"},
            "manager": {"type": "string"},
            "operation": {"type": "string"},
            "subresource": {"type": "string"},
            "time": {"$ref": "#/Time"}
          }
        },
        "x-kubernetes-list-type": "atomic"
      },
      "name": {"type": "string"},
      "namespace": {"type": "string"},
      "ownerReferences": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["apiVersion", "kind", "name", "uid"],
          "properties": {
            "apiVersion": {"type": "string"},
            "blockOwnerDeletion": {"type": "boolean"},
            "controller": {"type": "boolean"},
            "kind": {"type": "string"},
            "name": {"type": "string"},
            "uid": {"type": "string"}
          },
          "x-kubernetes-map-type": "atomic"
        },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["uid"],
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": "uid"
      },
      "resourceVersion": {"type": "string"},
      "selfLink": {"type": "string"},
      "uid": {"type": "string"}
    }
  }
}"##;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{ListType, MapType};

    #[test]
    fn metadata_is_complete() {
        let meta = object_meta(&mut Interner::default());
        assert_eq!(meta.properties().len(), 15);
        let owners = meta.property("ownerReferences").unwrap();
        assert_eq!(owners.list_type(), ListType::Map);
        assert_eq!(owners.items().unwrap().map_type(), MapType::Atomic);
        let fields = meta.property("managedFields").unwrap().items().unwrap();
        assert!(fields.property("fieldsV1").unwrap().preserves_unknown());
    }

    #[test]
    fn restrictions_of_the_name_stay() {
        let schema = Structural::parse(&json!({
            "type": "object",
            "properties": {"metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 5}}
            }}
        }))
        .unwrap();
        let meta = schema.property("metadata").unwrap();
        let name = meta.property("name").unwrap();
        assert_eq!(name.checks().unwrap().max_length, Some(5));
        assert!(meta.property("labels").is_some());
        assert!(schema.property("kind").is_some());
    }
}
