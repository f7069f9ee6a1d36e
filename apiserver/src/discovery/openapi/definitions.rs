//! The `components.schemas` of a document: the schemas of its kinds and everything they refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::registry::builtin::schemas;
use crate::registry::{Descriptor, Origin, Version};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Definitions by name, as JSON text.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    by_name: BTreeMap<String, String>,
}

impl Definitions {
    /// Adds the schemas of a kind and of its list; returns the name of the former.
    pub(super) fn add_kind(&mut self, descriptor: &Descriptor, version: &Version) -> String {
        let name = match descriptor.origin {
            Origin::BuiltIn => {
                schemas::definition_name(&descriptor.group, &version.name, &descriptor.kind)
            }
            Origin::Custom { .. } => custom_name(descriptor, version),
        };
        match descriptor.origin {
            Origin::BuiltIn => self.add(&name),
            Origin::Custom { .. } => {
                self.insert(name.clone(), &custom_schema(descriptor, version));
            }
        }
        let list = list_schema(descriptor, version, &name);
        self.insert(list_name(&name, descriptor), &list);
        name
    }

    /// Adds a committed definition and what it refers to; unknown names are left out.
    pub(super) fn add(&mut self, name: &str) {
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            if self.by_name.contains_key(name) {
                continue;
            }
            if let Some(text) = schemas::text(name) {
                self.by_name.insert(name.to_owned(), text.to_owned());
                open.extend(schemas::references(text));
            }
        }
    }

    fn insert(&mut self, name: String, schema: &Value) {
        let text = schema.to_string();
        for reference in schemas::references(&text) {
            self.add(reference);
        }
        self.by_name.insert(name, text);
    }

    /// One JSON object with all of them.
    pub(super) fn into_text(self) -> String {
        let mut text = String::from("{");
        for (name, definition) in self.by_name {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&Value::from(name).to_string());
            text.push(':');
            text.push_str(&definition);
        }
        text.push('}');
        text
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The name of a list's definition, beside that of its items.
pub(super) fn list_name(name: &str, descriptor: &Descriptor) -> String {
    match name.rsplit_once('.') {
        Some((package, _)) => format!("{package}.{}", descriptor.list_kind),
        None => descriptor.list_kind.clone(),
    }
}

/// `com.example.v1.Widget` for `Widget` in `example.com/v1`.
fn custom_name(descriptor: &Descriptor, version: &Version) -> String {
    let reversed: Vec<&str> = descriptor.group.rsplit('.').collect();
    format!(
        "{}.{}.{}",
        reversed.join("."),
        version.name,
        descriptor.kind
    )
}

fn kind_extension(descriptor: &Descriptor, version: &Version, kind: &str) -> Value {
    json!([{ "group": descriptor.group, "kind": kind, "version": version.name }])
}

/// The two fields every object starts with.
fn type_fields() -> [(&'static str, Value); 2] {
    [
        (
            "apiVersion",
            json!({ "type": "string", "description": "Group and version of the schema that this \
                object follows." }),
        ),
        (
            "kind",
            json!({ "type": "string", "description": "The kind of resource that this object is, in \
                CamelCase. It cannot change." }),
        ),
    ]
}

/// The published form of a custom resource's schema.
fn custom_schema(descriptor: &Descriptor, version: &Version) -> Value {
    let own = version
        .openapi
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    let mut schema = match own {
        Some(Value::Object(schema)) => {
            let mut schema = Value::Object(schema);
            announce_alternatives(&mut schema);
            schema
        }
        _ => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
    };
    let Some(fields) = schema.as_object_mut() else {
        return schema;
    };
    let own = fields.shift_remove("properties");
    let mut properties = Map::new();
    for (name, description) in type_fields() {
        properties.insert(name.to_owned(), description);
    }
    properties.insert(
        "metadata".to_owned(),
        json!({
            "description": "Name, labels, owners and the like.",
            "allOf": [reference(OBJECT_META)],
        }),
    );
    if let Some(Value::Object(own)) = own {
        let own = own
            .into_iter()
            .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        properties.extend(own);
    }
    fields.insert("properties".to_owned(), Value::Object(properties));
    fields.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        kind_extension(descriptor, version, &descriptor.kind),
    );
    schema
}

/// Spells out what `x-kubernetes-int-or-string` means, for readers that do not know the extension.
fn announce_alternatives(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for value in fields.values_mut() {
                announce_alternatives(value);
            }
            let either = fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
            if either && !fields.contains_key("anyOf") && !fields.contains_key("allOf") {
                fields.insert(
                    "anyOf".to_owned(),
                    json!([{ "type": "integer" }, { "type": "string" }]),
                );
            }
        }
        Value::Array(items) => items.iter_mut().for_each(announce_alternatives),
        _ => {}
    }
}

fn list_schema(descriptor: &Descriptor, version: &Version, item: &str) -> Value {
    let mut properties: Map<String, Value> = type_fields()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    properties.insert("metadata".to_owned(), reference(LIST_META));
    properties.insert(
        "items".to_owned(),
        json!({ "type": "array", "items": reference(item) }),
    );
    json!({
        "type": "object",
        "description": format!("A list of {} objects.", descriptor.kind),
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind":
            kind_extension(descriptor, version, &descriptor.list_kind),
    })
}
