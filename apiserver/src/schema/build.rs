//! From a schema document to [`Structural`].
//!
//! Shared by custom resources (documents that [`super::check`] has accepted) and built-in kinds
//! (definitions with references, see [`super::resolve`]). Building cannot fail: what is malformed
//! or unknown has been refused before, or is ignored.

use serde_json::{Map, Value};

use super::format::Format;
use super::intern::Interner;
use super::meta;
use super::resolve::Resolver;
use super::structural::{
    Additional, Checks, Extra, GroupVersionKind, Kind, ListType, MapType, Name, Node, Rule,
    Structural,
};

/// The schema of a custom resource, with the implied parts of an object.
pub(super) fn custom(interner: &mut Interner, schema: &Value) -> Structural {
    let mut builder = Builder {
        interner,
        resolver: None,
    };
    let mut node = builder.node(schema);
    meta::add_object_fields(&mut node, builder.interner);
    node.kind = Kind::Object;
    builder.interner.node(node)
}

/// Builds nodes from schema documents.
pub(super) struct Builder<'a, 'd> {
    pub(super) interner: &'a mut Interner,
    /// Where references lead; absent for custom resources, which have none.
    pub(super) resolver: Option<Resolver<'d>>,
}

impl<'d> Builder<'_, 'd> {
    /// The schema at `schema`, references followed.
    pub(super) fn schema(&mut self, schema: &'d Value) -> Structural {
        if let Some((name, siblings)) = self.reference(schema) {
            return self.definition(name, siblings);
        }
        let node = self.node(schema);
        self.interner.node(node)
    }

    /// The node at `schema`, which is not a reference.
    pub(super) fn node(&mut self, schema: &'d Value) -> Node {
        let Some(doc) = schema.as_object() else {
            return Node::default();
        };
        let kind = self.kind(doc);
        let mut node = Node {
            kind,
            nullable: flag(doc, "nullable"),
            preserve_unknown: flag(doc, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(doc, "x-kubernetes-embedded-resource"),
            list_type: list_type(doc),
            map_type: map_type(doc),
            format: text(doc, "format").map_or(Format::None, |name| Format::parse(name, kind)),
            properties: self.properties(doc),
            items: doc
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| self.schema(items)),
            additional: self.additional(doc),
            ..Node::default()
        };
        if self.resolver.is_some()
            && matches!(kind, Kind::Any | Kind::Object)
            && node.properties.is_empty()
            && node.additional == Additional::None
        {
            node.preserve_unknown = true;
        }
        node.checks = self.checks(doc, kind);
        node.extra = self.extra(doc);
        if node.embedded {
            meta::add_object_fields(&mut node, self.interner);
        }
        node
    }

    /// The type, with the forms that stand for "integer or string" and for quantities.
    fn kind(&self, doc: &Map<String, Value>) -> Kind {
        if flag(doc, "x-kubernetes-int-or-string") {
            return Kind::IntOrString;
        }
        if self.resolver.is_some() {
            let one_of: Vec<_> = array(doc, "oneOf")
                .iter()
                .filter_map(|schema| schema.get("type").and_then(Value::as_str))
                .collect();
            match (text(doc, "format"), one_of.as_slice()) {
                (Some("int-or-string"), _) | (_, ["integer", "string"]) => {
                    return Kind::IntOrString;
                }
                (_, ["string", "number"]) => return Kind::Quantity,
                _ => {}
            }
        }
        match text(doc, "type") {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    fn properties(&mut self, doc: &'d Map<String, Value>) -> Box<[(Name, Structural)]> {
        let Some(Value::Object(properties)) = doc.get("properties") else {
            return Box::default();
        };
        let mut built: Vec<_> = properties
            .iter()
            .map(|(name, schema)| (self.interner.name(name), self.schema(schema)))
            .collect();
        built.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        built.into_boxed_slice()
    }

    fn additional(&mut self, doc: &'d Map<String, Value>) -> Additional {
        match doc.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(schema @ Value::Object(_)) => Additional::Schema(self.schema(schema)),
            _ => Additional::None,
        }
    }

    fn checks(&mut self, doc: &'d Map<String, Value>, kind: Kind) -> Option<Box<Checks>> {
        let built_in = self.resolver.is_some();
        let mut checks = Checks {
            enumeration: array(doc, "enum").into(),
            required: self.names(doc, "required"),
            maximum: doc.get("maximum").and_then(Value::as_f64),
            minimum: doc.get("minimum").and_then(Value::as_f64),
            exclusive_maximum: flag(doc, "exclusiveMaximum"),
            exclusive_minimum: flag(doc, "exclusiveMinimum"),
            unique_items: flag(doc, "uniqueItems"),
            multiple_of: doc.get("multipleOf").and_then(Value::as_f64),
            max_length: size(doc, "maxLength"),
            min_length: size(doc, "minLength"),
            max_items: size(doc, "maxItems"),
            min_items: size(doc, "minItems"),
            max_properties: size(doc, "maxProperties"),
            min_properties: size(doc, "minProperties"),
            pattern: text(doc, "pattern")
                .filter(|pattern| !pattern.is_empty())
                .and_then(|pattern| self.interner.pattern(pattern).ok()),
            ..Checks::default()
        };
        // In built-in definitions these only spell out a type that `kind` has recognised.
        if !(built_in && matches!(kind, Kind::IntOrString | Kind::Quantity)) {
            checks.all_of = self.schemas(doc, "allOf");
            checks.any_of = self.schemas(doc, "anyOf");
            checks.one_of = self.schemas(doc, "oneOf");
            checks.not = doc.get("not").map(|schema| self.schema(schema));
        }
        (checks != Checks::default()).then(|| Box::new(checks))
    }

    fn extra(&mut self, doc: &Map<String, Value>) -> Option<Box<Extra>> {
        let mut extra = Extra {
            default: doc.get("default").filter(|v| self.is_default(v)).cloned(),
            map_keys: self.names(doc, "x-kubernetes-list-map-keys"),
            rules: array(doc, "x-kubernetes-validations")
                .iter()
                .filter_map(Value::as_object)
                .map(rule)
                .collect(),
            kinds: kinds(doc),
            ..Extra::default()
        };
        self.patch_extensions(doc, &mut extra);
        (extra != Extra::default()).then(|| Box::new(extra))
    }

    /// The strategic-merge extensions of a property.
    pub(super) fn patch_extensions(&mut self, doc: &Map<String, Value>, extra: &mut Extra) {
        if let Some(key) = text(doc, "x-kubernetes-patch-merge-key") {
            extra.merge_key = Some(self.interner.name(key));
        }
        if let Some(strategy) = text(doc, "x-kubernetes-patch-strategy") {
            extra.patch_merges = strategy.split(',').any(|s| s == "merge");
            extra.patch_retains_keys = strategy.split(',').any(|s| s == "retainKeys");
        }
    }

    /// Whether a `default` means something: never null, and in built-in definitions not the zero
    /// value that only tells that the field is no pointer.
    pub(super) fn is_default(&self, value: &Value) -> bool {
        let zero = match value {
            Value::Null => return false,
            Value::Bool(on) => !on,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        !(zero && self.resolver.is_some())
    }

    fn names(&mut self, doc: &Map<String, Value>, key: &str) -> Box<[Name]> {
        array(doc, key)
            .iter()
            .filter_map(Value::as_str)
            .map(|name| self.interner.name(name))
            .collect()
    }

    fn schemas(&mut self, doc: &'d Map<String, Value>, key: &str) -> Box<[Structural]> {
        array(doc, key)
            .iter()
            .map(|schema| self.schema(schema))
            .collect()
    }
}

pub(super) fn list_type(doc: &Map<String, Value>) -> ListType {
    match text(doc, "x-kubernetes-list-type") {
        Some("atomic") => ListType::Atomic,
        Some("set") => ListType::Set,
        Some("map") => ListType::Map,
        _ => ListType::Unset,
    }
}

pub(super) fn map_type(doc: &Map<String, Value>) -> MapType {
    match text(doc, "x-kubernetes-map-type") {
        Some("atomic") => MapType::Atomic,
        Some("granular") => MapType::Granular,
        _ => MapType::Unset,
    }
}

fn rule(doc: &Map<String, Value>) -> Rule {
    let field = |key| text(doc, key).unwrap_or_default().to_owned();
    Rule {
        rule: field("rule"),
        message: field("message"),
        message_expression: field("messageExpression"),
        reason: field("reason"),
        field_path: field("fieldPath"),
        optional_old_self: flag(doc, "optionalOldSelf"),
    }
}

fn kinds(doc: &Map<String, Value>) -> Box<[GroupVersionKind]> {
    array(doc, "x-kubernetes-group-version-kind")
        .iter()
        .filter_map(Value::as_object)
        .map(|entry| {
            let field = |key| text(entry, key).unwrap_or_default().to_owned();
            GroupVersionKind {
                group: field("group"),
                version: field("version"),
                kind: field("kind"),
            }
        })
        .collect()
}

fn flag(doc: &Map<String, Value>, key: &str) -> bool {
    doc.get(key) == Some(&Value::Bool(true))
}

fn text<'v>(doc: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
    doc.get(key).and_then(Value::as_str)
}

fn array<'v>(doc: &'v Map<String, Value>, key: &str) -> &'v [Value] {
    doc.get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A size; negative ones, which bound nothing, are as good as none.
fn size(doc: &Map<String, Value>, key: &str) -> Option<u64> {
    doc.get(key).and_then(Value::as_u64)
}
