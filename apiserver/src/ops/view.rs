//! Between the stored form of an object and the form of one version.
//!
//! Versions of one resource differ in `apiVersion`, in what their schemas prune and in what they default on writes;
//! there is no conversion beyond that, except for built-in views such as `events.k8s.io`. When the
//! version's schema is the storage schema, the stored text is what readers get.

use std::sync::Arc;

use serde_json::Value;

use super::Target;
use crate::registry::{Descriptor, Origin, Version};
use crate::schema::{apply_defaults, prune};
use crate::status::ApiError;
use crate::store::{Fields, Object};

/// Turns stored objects into one version's form.
#[derive(Debug, Clone)]
pub struct Encoder {
    descriptor: Arc<Descriptor>,
    version: Arc<Version>,
    api_version: String,
    /// Whether the stored text can be used as it is.
    verbatim: bool,
}

impl Encoder {
    /// An encoder for a version of a resource.
    pub fn new(descriptor: &Arc<Descriptor>, version: &Arc<Version>) -> Self {
        let verbatim = descriptor.stored_as.is_none() && shares_storage_schema(descriptor, version);
        Self {
            api_version: descriptor.api_version(&version.name),
            descriptor: descriptor.clone(),
            version: version.clone(),
            verbatim,
        }
    }

    /// An encoder for a target's version.
    pub fn of(target: &Target) -> Self {
        Self::new(&target.descriptor, &target.version)
    }

    /// The resource.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The version.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// `apiVersion` of what comes out.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Appends the object's JSON text.
    pub fn write(&self, object: &Object, out: &mut Vec<u8>) {
        if self.verbatim {
            object.write(&self.api_version, &self.descriptor.kind, out);
            return;
        }
        let outcome = serde_json::to_writer(out, &self.value(object));
        debug_assert!(outcome.is_ok(), "values serialise");
    }

    /// Appends the object's JSON text as an item of a list. Lists of built-in kinds name the type of
    /// their items once; those of custom resources repeat it.
    pub fn write_item(&self, object: &Object, out: &mut Vec<u8>) {
        if self.descriptor.origin != Origin::BuiltIn {
            self.write(object, out);
        } else if self.verbatim {
            object.write_untyped(out);
        } else {
            let outcome = serde_json::to_writer(out, &self.item(object));
            debug_assert!(outcome.is_ok(), "values serialise");
        }
    }

    /// The object as an item of a list.
    pub fn item(&self, object: &Object) -> Value {
        let mut value = self.value(object);
        if self.descriptor.origin == Origin::BuiltIn
            && let Some(fields) = value.as_object_mut()
        {
            fields.shift_remove("apiVersion");
            fields.shift_remove("kind");
        }
        value
    }

    /// The selectable fields of an object in this version's form.
    pub fn view_fields(&self, value: &Value) -> Fields {
        let fields = self.version.selectable_fields.iter();
        fields
            .map(|field| (Arc::from(field.label.as_str()), field.value(value)))
            .collect()
    }

    /// The object as a value.
    pub fn value(&self, object: &Object) -> Value {
        let value = object.value(&self.api_version, &self.descriptor.kind);
        if self.verbatim {
            return value;
        }
        let mut value = self.descriptor.strategy.view_form(value);
        if !shares_storage_schema(&self.descriptor, &self.version) {
            // What is filled in on the way out is the storage version's, and the stored form has it already.
            prune(&self.version.schema, &mut value);
        }
        value
    }
}

/// An object of a version in the form it is stored in.
pub(super) fn to_storage(target: &Target, object: Value) -> Result<Value, ApiError> {
    let mut stored = target.descriptor.strategy.stored_form(object);
    if !shares_storage_schema(&target.descriptor, &target.version) {
        let storage = target
            .descriptor
            .storage()
            .ok_or_else(|| ApiError::internal("a resource without a storage version"))?;
        prune(&storage.schema, &mut stored);
        apply_defaults(&storage.schema, &mut stored);
    }
    Ok(stored)
}

/// The selectable fields of a stored object, over all versions.
pub(crate) fn fields(descriptor: &Descriptor, stored: &Value) -> Fields {
    let mut seen: Vec<&str> = Vec::new();
    let mut pairs = Vec::new();
    for field in descriptor
        .versions
        .iter()
        .flat_map(|v| &v.selectable_fields)
    {
        if !seen.contains(&field.label.as_str()) {
            seen.push(&field.label);
            pairs.push((Arc::from(field.label.as_str()), field.value(stored)));
        }
    }
    pairs.into_iter().collect()
}

fn shares_storage_schema(descriptor: &Descriptor, version: &Version) -> bool {
    version.storage
        || descriptor
            .storage()
            .is_some_and(|storage| Arc::ptr_eq(&storage.schema, &version.schema))
}
