//! The OpenAPI half: reachable definitions, stripped of prose.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::Sources;

/// Where references in a document point.
const PREFIX: &str = "#/components/schemas/";

/// The definitions reachable from `kinds` and `extra`, by name, and the names of the roots.
pub(super) fn collect(
    sources: &Sources,
    kinds: &[(&str, &str, &[&str])],
    extra: &[&str],
) -> Result<(BTreeMap<String, Value>, Vec<String>)> {
    let mut available = BTreeMap::new();
    for (group, version, _) in kinds {
        available.extend(read_document(sources, group, version)?);
    }
    // Looked up among all documents: a subresource's body is described where its parent is.
    let mut roots = Vec::new();
    for (group, version, names) in kinds {
        for name in *names {
            roots.push(definition_of(&available, group, version, name)?);
        }
    }
    roots.extend(extra.iter().map(|name| (*name).to_owned()));

    let mut wanted = BTreeMap::new();
    let mut queue = roots.clone();
    while let Some(name) = queue.pop() {
        if wanted.contains_key(&name) {
            continue;
        }
        let definition = available
            .get(&name)
            .with_context(|| format!("no definition is called {name}"))?;
        let definition = without_prose(definition.clone());
        let mut references = BTreeSet::new();
        find_references(&definition, &mut references);
        queue.extend(references);
        wanted.insert(name, definition);
    }
    Ok((wanted, roots))
}

/// One JSON object with a definition a line.
pub(super) fn render(definitions: &BTreeMap<String, Value>) -> Result<String> {
    let mut lines = Vec::new();
    for (name, definition) in definitions {
        let name = serde_json::to_string(name)?;
        lines.push(format!("{name}:{}", serde_json::to_string(definition)?));
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

fn read_document(sources: &Sources, group: &str, version: &str) -> Result<Map<String, Value>> {
    let file = if group.is_empty() {
        format!("api__{version}_openapi.json")
    } else {
        format!("apis__{group}__{version}_openapi.json")
    };
    let path = sources.openapi.join(file);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut document: Value =
        serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    match document.pointer_mut("/components/schemas").map(Value::take) {
        Some(Value::Object(definitions)) => Ok(definitions),
        _ => bail!("{} has no components.schemas", path.display()),
    }
}

/// The definition whose group, version and kind are these.
fn definition_of(
    definitions: &BTreeMap<String, Value>,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<String> {
    let matches = |definition: &Value| {
        let gvks = definition
            .get("x-kubernetes-group-version-kind")
            .and_then(Value::as_array);
        gvks.into_iter().flatten().any(|gvk| {
            gvk.get("group").and_then(Value::as_str) == Some(group)
                && gvk.get("version").and_then(Value::as_str) == Some(version)
                && gvk.get("kind").and_then(Value::as_str) == Some(kind)
        })
    };
    definitions
        .iter()
        .find(|(_, definition)| matches(definition))
        .map(|(name, _)| name.clone())
        .with_context(|| format!("no definition for {kind} in {group}/{version}"))
}

/// Removes descriptions and defaults that only say that a Go field is not a pointer, and unwraps the
/// `allOf` around a lone reference.
fn without_prose(schema: Value) -> Value {
    let Value::Object(schema) = schema else {
        return schema;
    };
    let mut kept = Map::new();
    for (key, value) in schema {
        match key.as_str() {
            "description" => {}
            "default" if is_zero(&value) => {}
            // Below these, keys are names of fields, not of schema keywords.
            "properties" => {
                let Value::Object(properties) = value else {
                    continue;
                };
                let properties = properties
                    .into_iter()
                    .map(|(name, schema)| (name, without_prose(schema)));
                kept.insert(key, Value::Object(properties.collect()));
            }
            "items" | "additionalProperties" | "not" => {
                kept.insert(key, without_prose(value));
            }
            "allOf" | "oneOf" | "anyOf" => {
                let Value::Array(schemas) = value else {
                    continue;
                };
                kept.insert(
                    key,
                    Value::Array(schemas.into_iter().map(without_prose).collect()),
                );
            }
            // DeleteOptions and its like are bodies in every group; the list names all of them.
            "x-kubernetes-group-version-kind" => {
                if value.as_array().is_some_and(|gvks| gvks.len() == 1) {
                    kept.insert(key, value);
                }
            }
            _ => {
                kept.insert(key, value);
            }
        }
    }
    if kept.len() == 1
        && let Some(Value::Array(schemas)) = kept.get("allOf")
        && let [single] = schemas.as_slice()
    {
        return single.clone();
    }
    Value::Object(kept)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn find_references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("$ref", Value::String(target)) => {
                        found.insert(target.strip_prefix(PREFIX).unwrap_or(target).to_owned());
                    }
                    _ => find_references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find_references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prose_goes_and_meaning_stays() {
        let schema = json!({
            "description": "A thing.",
            "type": "object",
            "properties": {
                "description": {"type": "string", "description": "Its description.", "default": ""},
                "port": {"type": "string", "default": "TCP"},
                "ref": {"allOf": [{"$ref": "#/components/schemas/X"}], "default": {}},
                "list": {"type": "array", "items": {"default": 0, "type": "integer"},
                         "x-kubernetes-list-type": "atomic"},
            },
        });
        assert_eq!(
            without_prose(schema),
            json!({
                "type": "object",
                "properties": {
                    "description": {"type": "string"},
                    "port": {"type": "string", "default": "TCP"},
                    "ref": {"$ref": "#/components/schemas/X"},
                    "list": {"type": "array", "items": {"type": "integer"},
                             "x-kubernetes-list-type": "atomic"},
                },
            })
        );
    }

    #[test]
    fn references_are_found_at_any_depth() {
        let mut found = BTreeSet::new();
        find_references(
            &json!({"items": {"allOf": [{"$ref": "#/components/schemas/A"}]}, "not": {"$ref": "B"}}),
            &mut found,
        );
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["A", "B"]);
    }
}
