//! A reference by name to an object of a known kind in the same namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of an object; kind and namespace follow from where the reference stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
}

impl ObjectReference {
    /// A reference to the object of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
