//! The description of one resource: everything the generic handlers need to serve it.
//!
//! Built-in descriptors come from a table, custom ones from a `CustomResourceDefinition`. Nothing
//! here has behaviour beyond lookups; behaviour that differs between kinds is in the strategy.

use std::sync::Arc;

use serde_json::Value;

use super::Strategy;
use crate::schema::{Rules, Structural};

/// One resource (`group` + `plural`) in all its versions.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each read at one place"
)]
pub struct Descriptor {
    /// API group; empty for the core group.
    pub group: String,
    /// Lower-case plural, the path segment.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Kind of one object, CamelCase.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Abbreviations that `kubectl` accepts.
    pub short_names: Vec<String>,
    /// Groupings such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Verbs of the main resource.
    pub verbs: Vec<Verb>,
    /// Versions in order of preference (the order discovery shows).
    pub versions: Vec<Arc<Version>>,
    /// Whether `metadata.generation` is maintained.
    pub generation: bool,
    /// Whether a PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// Whether a PUT may omit `metadata.resourceVersion`.
    pub unconditional_update: bool,
    /// Whether the answer to an immediate DELETE is the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Group and plural under which objects are stored, when it is another resource that this one
    /// is a view of; [`Strategy::stored_form`] and [`Strategy::view_form`] convert.
    pub stored_as: Option<(String, String)>,
    /// Where the descriptor came from.
    pub origin: Origin,
    /// Hooks for what data cannot express.
    pub strategy: Arc<dyn Strategy>,
}

impl Descriptor {
    /// The version with this name, if it is served.
    pub fn served(&self, version: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| v.name == version && v.served)
    }

    /// The version objects are stored in.
    pub fn storage(&self) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| v.storage)
    }

    /// `group/version`, or the bare version in the core group.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// `plural.group`, or the bare plural in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether the main resource answers `verb`.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

/// Cluster-wide or inside a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// No namespace in the path.
    Cluster,
    /// Every object belongs to one namespace.
    Namespaced,
}

/// Where a descriptor came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Part of the server.
    BuiltIn,
    /// Defined by the CRD with this UID.
    Custom {
        /// `metadata.uid` of the definition.
        uid: String,
    },
}

/// A Kubernetes API verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// POST to a collection or a create-only subresource.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET with `watch=true`.
    Watch,
}

impl Verb {
    /// All verbs of an ordinary stored resource.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The name used in discovery documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// One version of a resource.
#[derive(Debug, Clone)]
pub struct Version {
    /// `v1`, `v1beta1`, ...
    pub name: String,
    /// Whether clients may use it.
    pub served: bool,
    /// Whether objects are stored in it; true for exactly one version.
    pub storage: bool,
    /// Set when using the version earns a `Warning` header.
    pub deprecation: Option<Deprecation>,
    /// What prunes, defaults and validates objects of this version.
    pub schema: Arc<Structural>,
    /// The CEL rules found in the schema.
    pub rules: Arc<Rules>,
    /// The schema as OpenAPI v3 JSON text, for `/openapi/v3`; `None` publishes a free-form object.
    pub openapi: Option<Arc<str>>,
    /// Columns beyond Name (and Age, which is printed when no column replaces it).
    pub columns: Vec<Column>,
    /// Fields usable in field selectors besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<SelectableField>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
}

impl Version {
    /// The subresource with this path segment.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether `status` is a subresource of its own.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// That a version should no longer be used.
#[derive(Debug, Clone)]
pub struct Deprecation {
    /// The text of the `Warning` header.
    pub warning: String,
}

/// A printer column (`additionalPrinterColumns`).
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub r#type: String,
    /// OpenAPI format, may be empty.
    pub format: String,
    /// Text for `kubectl explain`-like uses.
    pub description: String,
    /// 0 is always shown, larger numbers only in wide output.
    pub priority: i32,
    /// JSONPath into the object (`.spec.replicas`); computed columns of built-in kinds use a name
    /// the table renderer knows instead.
    pub json_path: String,
}

/// A field usable in field selectors.
#[derive(Debug, Clone)]
pub struct SelectableField {
    /// The name in the selector, for example `spec.nodeName`.
    pub label: String,
    /// Paths into the object; the first that holds a non-empty value wins.
    pub paths: Vec<Vec<String>>,
    /// What the field counts as when it is absent: `false` for a flag, otherwise empty.
    pub absent: &'static str,
}

impl SelectableField {
    /// A field whose selector name is its dotted path.
    pub fn dotted(path: &str) -> Self {
        Self {
            label: path.to_owned(),
            paths: vec![path.split('.').map(ToOwned::to_owned).collect()],
            absent: "",
        }
    }

    /// The field's value as selectors compare it.
    pub fn value(&self, object: &Value) -> String {
        self.paths
            .iter()
            .filter_map(|path| path.iter().try_fold(object, |at, step| at.get(step)))
            .map(|value| match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
            })
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| self.absent.to_owned())
    }
}

/// One subresource of a version.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// Path segment, for example `status`.
    pub name: String,
    /// Group, version and kind of its body when it differs from the parent's.
    pub body: Option<(String, String, String)>,
    /// Verbs it answers.
    pub verbs: Vec<Verb>,
    /// What it does.
    pub action: SubresourceAction,
}

/// What a subresource does.
#[derive(Debug, Clone)]
pub enum SubresourceAction {
    /// Reads the object and writes only the listed parts of it (`status`, `ephemeralcontainers`,
    /// `finalize`, `resize`): each entry is a path from the root.
    Part {
        /// The paths that a write may change.
        paths: Vec<Vec<String>>,
    },
    /// An `autoscaling/v1` Scale over the object.
    Scale(ScalePaths),
    /// `pods/binding`: sets `spec.nodeName`.
    Binding,
    /// `pods/eviction`: deletes the pod.
    Eviction,
    /// `serviceaccounts/token`: answers a `TokenRequest`.
    Token,
    /// Streams to the node that runs the pod (`log`, `exec`, `attach`, `portforward`).
    Connect,
}

/// Where a Scale reads and writes.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    /// Path of the wanted replicas, under `.spec`.
    pub spec: Vec<String>,
    /// Path of the observed replicas, under `.status`.
    pub status: Vec<String>,
    /// Path of the label selector in string form, or of a `LabelSelector` object.
    pub selector: Option<Vec<String>>,
}
