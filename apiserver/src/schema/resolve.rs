//! References between definitions, as in the `OpenAPI` documents of the built-in kinds.
//!
//! Definitions are inlined with sharing. One that leads back to itself (`JSONSchemaProps`) becomes
//! a link that is expanded, level by level, only as far as a walk descends; the links hold the few
//! definitions they need and form no reference cycle.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::build::{self, Builder};
use super::error::{FieldError, SchemaError};
use super::intern::Interner;
use super::structural::{Kind, ListType, MapType, Node, Structural};

/// The definitions of an OpenAPI document, from which schemas are built.
///
/// What several schemas refer to is built once.
#[derive(Debug)]
pub struct Definitions<'d> {
    document: &'d Value,
    interner: Interner,
    done: HashMap<&'d str, Structural>,
}

impl<'d> Definitions<'d> {
    /// `document` is the `components.schemas` of a v3 document, or the `definitions` of a v2 one.
    pub fn new(document: &'d Value) -> Self {
        Self::with_interner(document, Interner::default())
    }

    /// Like [`Self::new`], sharing equal parts with what `interner` has seen before.
    pub fn with_interner(document: &'d Value, interner: Interner) -> Self {
        Self {
            document,
            interner,
            done: HashMap::new(),
        }
    }

    /// The interner, with what the schemas share.
    pub fn into_interner(self) -> Interner {
        self.interner
    }

    /// The schema of the definition `root`, references followed.
    ///
    /// Meant for built-in kinds: the structural rules are not enforced, zero-valued defaults that
    /// only say "not a pointer" are ignored, and objects without properties are free-form.
    pub fn resolve(&mut self, root: &str) -> Result<Structural, SchemaError> {
        let missing = |name: &str| FieldError::not_found("", &Value::String(name.to_owned()));
        let known = self
            .document
            .as_object()
            .and_then(|d| d.get_key_value(root));
        let Some((root, _)) = known else {
            return Err(SchemaError {
                errors: vec![missing(root)],
            });
        };
        let mut resolver = Resolver::new(Source::Document(self.document));
        resolver.done = std::mem::take(&mut self.done);
        let mut builder = Builder {
            interner: &mut self.interner,
            resolver: Some(resolver),
        };
        let schema = builder.definition(root, None);
        if let Some(resolver) = builder.resolver {
            SchemaError::check(resolver.missing.into_iter().map(missing).collect())?;
            self.done = resolver.done;
        }
        Ok(schema)
    }
}

/// The definitions that a recursive one leads to, kept for expanding it.
#[derive(Default)]
struct Kept {
    by_name: BTreeMap<Box<str>, Value>,
    /// Shares the parts of expanded levels that lead nowhere else.
    interner: Mutex<Interner>,
}

impl Kept {
    /// Copies what `root` leads to, without descriptions.
    fn reachable(definitions: &Value, root: &str) -> Self {
        let mut found = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(name) = open.pop() {
            if found.by_name.contains_key(name.as_str()) {
                continue;
            }
            if let Some(definition) = definitions.get(&name) {
                let definition = without_descriptions(definition, Place::Schema);
                collect_references(&definition, &mut open);
                found.by_name.insert(name.into_boxed_str(), definition);
            }
        }
        found
    }
}

/// Where definitions come from.
#[derive(Clone, Copy)]
enum Source<'d> {
    Document(&'d Value),
    Kept(&'d Arc<Kept>),
}

impl<'d> Source<'d> {
    fn get(self, name: &str) -> Option<&'d Value> {
        match self {
            Self::Document(document) => document.get(name),
            Self::Kept(definitions) => definitions.by_name.get(name),
        }
    }
}

/// Where a value stands in a schema document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A schema, or something inside of one.
    Schema,
    /// The `properties` of one, whose keys are names and not keywords.
    Properties,
}

fn without_descriptions(value: &Value, place: Place) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| {
                place == Place::Properties || *key != "description" || !value.is_string()
            })
            .map(|(key, value)| {
                let inner = if place == Place::Schema && key == "properties" {
                    Place::Properties
                } else {
                    Place::Schema
                };
                (key.clone(), without_descriptions(value, inner))
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| without_descriptions(item, Place::Schema))
            .collect(),
        other => other.clone(),
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = target(map) {
                found.push(name.to_owned());
            }
            for value in map.values() {
                collect_references(value, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                collect_references(item, found);
            }
        }
        _ => {}
    }
}

/// The definition that a `$ref` names.
fn target(doc: &Map<String, Value>) -> Option<&str> {
    let reference = doc.get("$ref")?.as_str()?;
    reference.rsplit('/').next()
}

/// Follows references while a schema is built.
pub(super) struct Resolver<'d> {
    source: Source<'d>,
    /// The definitions that are being built, outermost first.
    open: Vec<&'d str>,
    done: HashMap<&'d str, Structural>,
    missing: Vec<&'d str>,
    /// Made for the first recursive definition.
    kept: Option<Arc<Kept>>,
}

impl<'d> Resolver<'d> {
    fn new(source: Source<'d>) -> Self {
        Self {
            source,
            open: Vec::new(),
            done: HashMap::new(),
            missing: Vec::new(),
            kept: match source {
                Source::Document(_) => None,
                Source::Kept(definitions) => Some(Arc::clone(definitions)),
            },
        }
    }

    /// A link to `name`, which is being built.
    fn recursion(&mut self, name: &str, siblings: Option<&Map<String, Value>>) -> Recursion {
        let outermost = self.open.first().copied().unwrap_or(name);
        let source = self.source;
        let kept = self.kept.get_or_insert_with(|| match source {
            Source::Document(document) => Arc::new(Kept::reachable(document, outermost)),
            Source::Kept(definitions) => Arc::clone(definitions),
        });
        Recursion {
            definitions: Arc::clone(kept),
            name: name.into(),
            siblings: siblings.cloned(),
        }
    }
}

impl<'d> Builder<'_, 'd> {
    /// The definition that `schema` refers to, directly or as the only entry of `allOf`, and the
    /// document with the keywords beside the reference.
    pub(super) fn reference(
        &self,
        schema: &'d Value,
    ) -> Option<(&'d str, Option<&'d Map<String, Value>>)> {
        self.resolver.as_ref()?;
        let doc = schema.as_object()?;
        if let Some(name) = target(doc) {
            return Some((name, Some(doc)));
        }
        match doc.get("allOf")?.as_array()?.as_slice() {
            [only] => Some((target(only.as_object()?)?, Some(doc))),
            _ => None,
        }
    }

    /// The definition `name`, changed by the keywords beside the reference.
    pub(super) fn definition(
        &mut self,
        name: &'d str,
        siblings: Option<&'d Map<String, Value>>,
    ) -> Structural {
        let siblings = siblings.filter(|doc| self.has_overrides(doc));
        let Some(resolver) = &mut self.resolver else {
            return Structural::free_form();
        };
        if resolver.open.contains(&name) {
            return Structural::recursive(resolver.recursion(name, siblings));
        }
        let known = resolver.done.get(name).cloned();
        let schema = known.unwrap_or_else(|| {
            let node = self.open(name);
            let schema = self.interner.node(node);
            if let Some(resolver) = &mut self.resolver {
                resolver.done.insert(name, schema.clone());
            }
            schema
        });
        match siblings {
            None => schema,
            Some(doc) => {
                let mut node = Node::clone(&schema);
                self.apply_overrides(&mut node, doc);
                self.interner.node(node)
            }
        }
    }

    /// Builds the definition `name`, in which references to it are recursive.
    fn open(&mut self, name: &'d str) -> Node {
        let definition = self.resolver.as_mut().and_then(|resolver| {
            resolver.open.push(name);
            let definition = resolver.source.get(name);
            if definition.is_none() {
                resolver.missing.push(name);
            }
            definition
        });
        let mut node = definition.map_or_else(Node::default, |doc| self.node(doc));
        if name.ends_with(".runtime.RawExtension") {
            node.map_type = MapType::Atomic;
        }
        if name.ends_with(".api.resource.Quantity") {
            node.kind = Kind::Quantity;
            node.checks = None;
        }
        if let Some(resolver) = &mut self.resolver {
            resolver.open.pop();
        }
        node
    }

    fn has_overrides(&self, doc: &Map<String, Value>) -> bool {
        const OVERRIDES: [&str; 5] = [
            "x-kubernetes-map-type",
            "x-kubernetes-list-type",
            "x-kubernetes-patch-strategy",
            "x-kubernetes-patch-merge-key",
            "nullable",
        ];
        OVERRIDES.iter().any(|key| doc.contains_key(*key))
            || doc
                .get("default")
                .is_some_and(|value| self.is_default(value))
    }

    fn apply_overrides(&mut self, node: &mut Node, doc: &Map<String, Value>) {
        let list_type = build::list_type(doc);
        if list_type != ListType::Unset {
            node.list_type = list_type;
        }
        let map_type = build::map_type(doc);
        if map_type != MapType::Unset {
            node.map_type = map_type;
        }
        node.nullable |= doc.get("nullable") == Some(&Value::Bool(true));
        let default = doc.get("default").filter(|value| self.is_default(value));
        if let Some(default) = default {
            node.extra_mut().default = Some(default.clone());
        }
        self.patch_extensions(doc, node.extra_mut());
    }
}

/// A reference to a definition from inside of itself.
pub(super) struct Recursion {
    definitions: Arc<Kept>,
    name: Box<str>,
    siblings: Option<Map<String, Value>>,
}

impl Recursion {
    /// One level of the definition.
    pub(super) fn expand(&self) -> Node {
        let mut interner = self.definitions.interner.lock();
        let mut builder = Builder {
            interner: &mut interner,
            resolver: Some(Resolver::new(Source::Kept(&self.definitions))),
        };
        let mut node = builder.open(&self.name);
        if let Some(siblings) = &self.siblings {
            builder.apply_overrides(&mut node, siblings);
        }
        node
    }
}

impl PartialEq for Recursion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.definitions, &other.definitions)
            && self.name == other.name
            && self.siblings == other.siblings
    }
}

impl fmt::Debug for Recursion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (recursive)", self.name)
    }
}
