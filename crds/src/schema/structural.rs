//! From a type's JSON schema to a structural schema: no references, no unions for optionality, and the facts of
//! [`kubernetes`](super::kubernetes) put in.
//!
//! Our own fields keep their descriptions for `kubectl explain`. Those of Kubernetes' types go: they are most of the
//! size of a definition, and their readers know them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::PodSpecSchema;
use super::kubernetes;

/// The structural schema of a type.
pub(crate) fn structural<T: JsonSchema>(pod_spec: PodSpecSchema) -> Value {
    let root = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    let mut definitions = root
        .get(DEFINITIONS)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    // The root is written out in place of being a definition, and is one all the same.
    let name = T::schema_name();
    definitions.insert(name.to_string(), root);
    Expansion {
        definitions,
        pod_spec,
    }
    .definition(&name)
}

/// Where schemars puts the definitions, and how it refers to them.
const DEFINITIONS: &str = "$defs";
const REFERENCE: &str = "#/$defs/";

/// Keywords that carry over as they are. Those that contain schemas are handled one by one; the rest has no place
/// in a structural schema.
const KEPT: &[&str] = &[
    "type",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "enum",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];

/// What happens to the descriptions of properties.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prose {
    Kept,
    Dropped,
}

struct Expansion {
    definitions: Map<String, Value>,
    pod_spec: PodSpecSchema,
}

impl Expansion {
    fn expand(&self, schema: &Value, prose: Prose) -> Value {
        let mut expanded = if let Some(name) = referred(schema) {
            self.definition(name)
        } else if let Some(some) = optional(schema) {
            self.expand(some, prose)
        } else {
            self.keywords(schema, prose)
        };
        // A default stands beside a reference as well as beside plain keywords.
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
            insert(&mut expanded, "default", default.clone());
        }
        expanded
    }

    fn definition(&self, name: &str) -> Value {
        if let Some(replacement) = kubernetes::replacement(name, self.pod_spec) {
            return replacement;
        }
        let prose = if name.starts_with("io.k8s.") {
            Prose::Dropped
        } else {
            Prose::Kept
        };
        let mut schema = self
            .definitions
            .get(name)
            .map(|definition| self.expand(definition, prose))
            .unwrap_or_default();
        add_facts(name, &mut schema);
        schema
    }

    fn property(&self, schema: &Value, prose: Prose) -> Value {
        let mut expanded = self.expand(schema, prose);
        if let (Prose::Kept, Some(text)) =
            (prose, schema.get("description").and_then(Value::as_str))
        {
            let words: Vec<_> = text.split_whitespace().collect();
            let plain = words.join(" ").replace('`', "");
            insert(&mut expanded, "description", json!(plain));
        }
        expanded
    }

    fn keywords(&self, schema: &Value, prose: Prose) -> Value {
        let mut kept = Map::new();
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let value = match keyword.as_str() {
                "type" => without_null(value),
                "properties" => value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, property)| (name.clone(), self.property(property, prose)))
                    .collect::<Map<_, _>>()
                    .into(),
                "items" | "additionalProperties" => self.expand(value, prose),
                _ if KEPT.contains(&keyword.as_str()) => value.clone(),
                _ => continue,
            };
            kept.insert(keyword.clone(), value);
        }
        kept.into()
    }
}

/// The definition a schema refers to.
fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}

/// The schema of `T` in that of `Option<T>`.
fn optional(schema: &Value) -> Option<&Value> {
    match schema.get("anyOf")?.as_array()?.as_slice() {
        [some, none] if none.get("type").and_then(Value::as_str) == Some("null") => Some(some),
        _ => None,
    }
}

/// `"x"` out of `["x", "null"]`: an API server drops nulls where a schema is not nullable, so absent is the only none.
fn without_null(kind: &Value) -> Value {
    match kind.as_array().map(Vec::as_slice) {
        Some([some, none]) if none == "null" => some.clone(),
        _ => kind.clone(),
    }
}

fn add_facts(definition: &str, schema: &mut Value) {
    if kubernetes::ATOMIC_OBJECTS.contains(&definition) {
        insert(schema, "x-kubernetes-map-type", json!("atomic"));
    }
    let here = |(of, property): (&str, &'static str)| (of == definition).then_some(property);
    for (of, property, keys) in kubernetes::LIST_MAPS {
        if let Some(list) = here((of, property)).and_then(|p| property_mut(schema, p)) {
            insert(list, "x-kubernetes-list-type", json!("map"));
            insert(list, "x-kubernetes-list-map-keys", json!(keys));
        }
    }
    for (of, property) in kubernetes::LIST_SETS {
        if let Some(list) = here((of, property)).and_then(|p| property_mut(schema, p)) {
            insert(list, "x-kubernetes-list-type", json!("set"));
        }
    }
    for (of, property) in kubernetes::ATOMIC_MAPS {
        if let Some(map) = here((of, property)).and_then(|p| property_mut(schema, p)) {
            insert(map, "x-kubernetes-map-type", json!("atomic"));
        }
    }
    for (of, property, default) in kubernetes::DEFAULTS {
        if let Some(filled) = here((of, property)).and_then(|p| property_mut(schema, p)) {
            insert(filled, "default", default.to_json());
            // What is filled in is not demanded.
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name != property);
                if required.is_empty() {
                    remove(schema, "required");
                }
            }
        }
    }
}

/// A property of an object schema.
pub(crate) fn property_mut<'a>(schema: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    schema.get_mut("properties")?.get_mut(name)
}

/// Sets a keyword of a schema.
pub(crate) fn insert(schema: &mut Value, keyword: &str, value: Value) {
    if let Some(keywords) = schema.as_object_mut() {
        keywords.insert(keyword.to_owned(), value);
    }
}

fn remove(schema: &mut Value, keyword: &str) {
    if let Some(keywords) = schema.as_object_mut() {
        keywords.shift_remove(keyword);
    }
}
