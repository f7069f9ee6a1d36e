//! Structural schemas: pruning, defaulting, validation and CEL for built-in and custom kinds alike.
//!
//! Every function is a pure walk over (schema, value). Callers run them in the order prune,
//! default, validate, CEL, and turn [`FieldError`]s into `metav1.Status` causes. Behaviour and
//! messages follow what Kubernetes publishes for structural schemas of `apiextensions.k8s.io/v1`.

mod build;
mod cel;
mod check;
mod correlate;
mod default;
mod duplicates;
mod duration;
mod embedded;
mod error;
mod field_path;
mod format;
#[cfg(test)]
mod golden;
mod intern;
mod lists;
mod meta;
mod path;
mod pattern;
mod prune;
pub(crate) mod render;
mod resolve;
#[cfg(test)]
mod robustness;
mod structural;
#[cfg(test)]
pub(crate) mod testing;
mod validate;

pub use cel::Rules;
pub use default::{apply_defaults, normalize_numbers};
pub use duplicates::duplicate_fields;
pub use error::{FieldError, FieldReason, SchemaError};
pub use intern::Interner;
pub use path::Path;
pub use prune::{prune, unknown_fields, unknown_fields_in_order};
pub use resolve::Definitions;
pub use structural::{GroupVersionKind, Kind, ListType, MapType, Name, Node, Rule, Structural};
pub use validate::{blocks_rules, validate};
