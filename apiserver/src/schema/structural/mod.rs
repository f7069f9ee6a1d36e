//! The parsed form of a schema: what every walk reads.
//!
//! A [`Structural`] is a cheap handle to a shared, immutable [`Node`]. Equal subtrees are one node
//! and equal names one string (see [`super::intern`]), so a dozen kinds that embed a pod template
//! cost little more than one. Recursive definitions are expanded level by level, when a walk first
//! gets there. Nothing here reads or changes objects.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::SchemaError;
use super::build;
use super::check;
use super::format::Format;
use super::intern::Interner;
use super::pattern::Pattern;
use super::resolve::{Definitions, Recursion};

/// The name of a property, shared by all schemas that have it.
pub type Name = Arc<str>;

/// A schema: a handle that is cheap to clone and share.
#[derive(Clone)]
pub struct Structural(Link);

#[derive(Clone)]
enum Link {
    Node(Arc<Node>),
    Recursive(Arc<Recursive>),
}

/// A reference to a definition that is being defined, expanded on first use.
struct Recursive {
    recursion: Recursion,
    node: OnceLock<Node>,
}

impl Structural {
    /// Parses the schema of a custom resource: `OpenAPI` v3 with `x-kubernetes-*` extensions.
    ///
    /// The structural-schema rules of Kubernetes are enforced, defaults included, and
    /// `apiVersion`, `kind` and `metadata` get their implied schemas. All findings are reported at
    /// once, with paths relative to `schema`.
    pub fn parse(schema: &Value) -> Result<Self, SchemaError> {
        Self::parse_with(&mut Interner::default(), schema)
    }

    /// Like [`Self::parse`], sharing equal parts with what `interner` has seen before.
    pub fn parse_with(interner: &mut Interner, schema: &Value) -> Result<Self, SchemaError> {
        SchemaError::check(check::schema(schema))?;
        let structural = build::custom(interner, schema);
        SchemaError::check(check::defaults(&structural))?;
        Ok(structural)
    }

    /// The schema of the definition `root` among `definitions`; see [`Definitions::resolve`].
    pub fn resolve(definitions: &Value, root: &str) -> Result<Self, SchemaError> {
        Definitions::new(definitions).resolve(root)
    }

    /// A schema that accepts every object and keeps every field.
    pub fn free_form() -> Self {
        Self::from_node(Node {
            kind: Kind::Object,
            preserve_unknown: true,
            ..Node::default()
        })
    }

    pub(super) fn from_node(node: Node) -> Self {
        Self(Link::Node(Arc::new(node)))
    }

    pub(super) fn from_shared(node: Arc<Node>) -> Self {
        Self(Link::Node(node))
    }

    pub(super) fn recursive(recursion: Recursion) -> Self {
        Self(Link::Recursive(Arc::new(Recursive {
            recursion,
            node: OnceLock::new(),
        })))
    }

    /// Whether both handles share one node.
    pub fn same(&self, other: &Self) -> bool {
        self.address() == other.address()
    }

    /// A number that equal handles share, for interning.
    pub(super) fn address(&self) -> usize {
        match &self.0 {
            Link::Node(node) => Arc::as_ptr(node).addr(),
            Link::Recursive(link) => Arc::as_ptr(link).addr(),
        }
    }

    /// Whether the definition of this schema leads back to itself.
    pub(super) fn is_recursive(&self) -> bool {
        match &self.0 {
            Link::Node(node) => node.recursive,
            Link::Recursive(_) => true,
        }
    }
}

impl Deref for Structural {
    type Target = Node;

    fn deref(&self) -> &Node {
        match &self.0 {
            Link::Node(node) => node,
            Link::Recursive(link) => link.node.get_or_init(|| link.recursion.expand()),
        }
    }
}

impl Default for Structural {
    /// [`Structural::free_form`].
    fn default() -> Self {
        Self::free_form()
    }
}

impl PartialEq for Structural {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
            || match (&self.0, &other.0) {
                (Link::Node(a), Link::Node(b)) => a == b,
                (Link::Recursive(a), Link::Recursive(b)) => a.recursion == b.recursion,
                _ => false,
            }
    }
}

impl fmt::Debug for Structural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Link::Node(node) => node.fmt(f),
            Link::Recursive(link) => link.recursion.fmt(f),
        }
    }
}

/// One level of a schema.
#[derive(Debug, Default, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent keywords of a schema, kept small"
)]
pub struct Node {
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    pub(super) preserve_unknown: bool,
    pub(super) embedded: bool,
    /// Whether this node or one below it has rules.
    pub(super) rules_below: bool,
    /// Whether a node below leads back to its own definition.
    pub(super) recursive: bool,
    pub(super) list_type: ListType,
    pub(super) map_type: MapType,
    pub(super) format: Format,
    /// Sorted by name.
    pub(super) properties: Box<[(Name, Structural)]>,
    pub(super) items: Option<Structural>,
    pub(super) additional: Additional,
    pub(super) checks: Option<Box<Checks>>,
    pub(super) extra: Option<Box<Extra>>,
}

impl Node {
    /// The JSON type.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether `null` is a value of its own.
    pub const fn is_nullable(&self) -> bool {
        self.nullable
    }

    /// Whether unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub const fn preserves_unknown(&self) -> bool {
        self.preserve_unknown
    }

    /// Whether the value is a whole object of some kind (`x-kubernetes-embedded-resource`).
    pub const fn is_embedded_resource(&self) -> bool {
        self.embedded
    }

    /// How a list merges.
    pub const fn list_type(&self) -> ListType {
        self.list_type
    }

    /// How a map merges.
    pub const fn map_type(&self) -> MapType {
        self.map_type
    }

    /// The fields that identify an item of a list of type map.
    pub fn list_map_keys(&self) -> &[Name] {
        self.extra.as_ref().map_or(&[], |extra| &extra.map_keys)
    }

    /// The declared properties, sorted by name.
    pub fn properties(&self) -> &[(Name, Structural)] {
        &self.properties
    }

    /// The declared property `name`.
    pub fn property(&self, name: &str) -> Option<&Structural> {
        let at = self
            .properties
            .binary_search_by(|(key, _)| (**key).cmp(name))
            .ok()?;
        self.properties.get(at).map(|(_, schema)| schema)
    }

    /// The schema of list items.
    pub const fn items(&self) -> Option<&Structural> {
        self.items.as_ref()
    }

    /// The schema of map entries, when the values are described by one.
    pub const fn additional_properties(&self) -> Option<&Structural> {
        match &self.additional {
            Additional::Schema(schema) => Some(schema),
            Additional::None | Additional::Any => None,
        }
    }

    /// Whether entries may have any name and value (`additionalProperties: true`).
    pub fn allows_any_field(&self) -> bool {
        self.additional == Additional::Any
    }

    /// The schema of the value at `key`: the property's, else that of map entries.
    pub fn child(&self, key: &str) -> Option<&Structural> {
        self.property(key).or_else(|| self.additional_properties())
    }

    /// The default value.
    pub fn default_value(&self) -> Option<&Value> {
        self.extra.as_ref()?.default.as_ref()
    }

    /// The properties that must be present.
    pub fn required(&self) -> &[Name] {
        self.checks.as_ref().map_or(&[], |checks| &checks.required)
    }

    /// The allowed values; empty when every value is.
    pub fn enumeration(&self) -> &[Value] {
        self.checks
            .as_ref()
            .map_or(&[], |checks| &checks.enumeration)
    }

    /// `x-kubernetes-patch-merge-key`: the field that identifies an item in a strategic merge.
    pub fn patch_merge_key(&self) -> Option<&str> {
        self.extra.as_ref()?.merge_key.as_deref()
    }

    /// `x-kubernetes-patch-strategy` contains `merge`.
    pub fn patch_merges(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.patch_merges)
    }

    /// `x-kubernetes-patch-strategy` contains `retainKeys`.
    pub fn patch_retains_keys(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.patch_retains_keys)
    }

    /// The rules at this level (`x-kubernetes-validations`).
    pub fn rules(&self) -> &[Rule] {
        self.extra.as_ref().map_or(&[], |extra| &extra.rules)
    }

    /// Whether this node or one below it has rules.
    pub const fn has_rules(&self) -> bool {
        self.rules_below
    }

    /// The kinds this schema describes (`x-kubernetes-group-version-kind`).
    pub fn group_version_kinds(&self) -> &[GroupVersionKind] {
        self.extra.as_ref().map_or(&[], |extra| &extra.kinds)
    }

    pub(super) fn checks(&self) -> Option<&Checks> {
        self.checks.as_deref()
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// All schemas directly below this one, value validations included.
    pub(super) fn children(&self) -> impl Iterator<Item = &Structural> {
        let checks = self.checks.as_deref();
        self.properties
            .iter()
            .map(|(_, schema)| schema)
            .chain(self.items.as_ref())
            .chain(self.additional_properties())
            .chain(checks.into_iter().flat_map(|checks| {
                checks
                    .all_of
                    .iter()
                    .chain(&checks.any_of)
                    .chain(&checks.one_of)
                    .chain(checks.not.as_ref())
            }))
    }
}

/// The JSON type of a value.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No type: every value.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
    /// `x-kubernetes-int-or-string`
    IntOrString,
    /// `io.k8s.apimachinery.pkg.api.resource.Quantity`: a string, or a number.
    Quantity,
}

impl Kind {
    /// The names of the types in messages.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
            Self::Quantity => "string,number",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListType {
    /// Not given: atomic.
    #[default]
    Unset,
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects identified by their key fields.
    Map,
}

/// `x-kubernetes-map-type`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapType {
    /// Not given: granular.
    #[default]
    Unset,
    /// Merged key by key.
    Granular,
    /// Replaced as a whole.
    Atomic,
}

/// `additionalProperties`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Additional {
    /// None beyond the declared properties.
    #[default]
    None,
    /// Any key with any value.
    Any,
    /// Any key with values of this schema.
    Schema(Structural),
}

/// Value validations; absent for most nodes.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Checks {
    pub(super) enumeration: Box<[Value]>,
    pub(super) required: Box<[Name]>,
    pub(super) maximum: Option<f64>,
    pub(super) minimum: Option<f64>,
    pub(super) exclusive_maximum: bool,
    pub(super) exclusive_minimum: bool,
    pub(super) unique_items: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) pattern: Option<Arc<Pattern>>,
    pub(super) all_of: Box<[Structural]>,
    pub(super) any_of: Box<[Structural]>,
    pub(super) one_of: Box<[Structural]>,
    pub(super) not: Option<Structural>,
}

/// What only few nodes have.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Extra {
    pub(super) default: Option<Value>,
    pub(super) map_keys: Box<[Name]>,
    pub(super) merge_key: Option<Name>,
    pub(super) patch_merges: bool,
    pub(super) patch_retains_keys: bool,
    pub(super) rules: Box<[Rule]>,
    pub(super) kinds: Box<[GroupVersionKind]>,
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The CEL expression that must be true.
    pub rule: String,
    /// The message when it is not; empty for a generated one.
    pub message: String,
    /// A CEL expression for the message; empty when there is none.
    pub message_expression: String,
    /// The machine-readable reason; empty for `FieldValueInvalid`.
    pub reason: String,
    /// Where to report, relative to the rule's node; empty for the node itself.
    pub field_path: String,
    /// Whether `oldSelf` is optional, so that the rule also runs without an old value.
    pub optional_old_self: bool,
}

/// A kind that a schema describes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GroupVersionKind {
    /// Empty for the core group.
    pub group: String,
    /// As in `v1`.
    pub version: String,
    /// As in `Pod`.
    pub kind: String,
}

#[cfg(test)]
mod tests;
