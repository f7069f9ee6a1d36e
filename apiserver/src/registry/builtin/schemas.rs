//! The committed OpenAPI definitions of the built-in kinds.
//!
//! `data/schemas.json` has one definition a line, so a definition is found without parsing the rest
//! and its text is served as it is. It is written by `cargo xtask generate builtin-schemas` from the
//! documents Kubernetes publishes, without their prose.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The release the definitions come from, as `/version` announces it.
pub const RELEASE: &str = "v1.36.3";

const DATA: &str = include_str!("../../../data/schemas.json");

/// Where references between definitions point.
const PREFIX: &str = "#/components/schemas/";

/// Name of a definition to its JSON text.
static INDEX: LazyLock<HashMap<&'static str, &'static str>> =
    LazyLock::new(|| DATA.lines().filter_map(entry).collect());

/// One line: `"name":{...},`.
fn entry(line: &'static str) -> Option<(&'static str, &'static str)> {
    let (name, text) = line.strip_prefix('"')?.split_once("\":")?;
    Some((name, text.strip_suffix(',').unwrap_or(text)))
}

/// The JSON text of a definition.
pub fn text(name: &str) -> Option<&'static str> {
    INDEX.get(name).copied()
}

/// The names of the definitions that a schema's JSON text refers to, in order, with repetitions.
pub fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split(PREFIX)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}

/// Every definition, in the form that schemas are resolved from: without `required`.
///
/// A typed decoder fills absent fields with zero values, so a built-in object is never refused for
/// lacking a field; what must be set is a matter of the kind's validation.
pub(super) fn definitions() -> Value {
    let definitions = INDEX.iter().filter_map(|(name, text)| {
        let mut definition: Value = serde_json::from_str(text).ok()?;
        definition.as_object_mut()?.shift_remove("required");
        Some(((*name).to_owned(), definition))
    });
    Value::Object(definitions.collect::<Map<_, _>>())
}

/// The definition name of a kind, by the naming rule of the Kubernetes sources.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    crate::wire::definition_name(group, version, kind)
}
