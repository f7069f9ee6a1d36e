//! The verbs: what create, update, patch, apply, delete and scale do to the store.
//!
//! [`Engine`] is the one write path. `http` calls it with decoded requests, `background` calls it
//! for garbage collection, namespaces and CRDs; both get the same rules. An operation reads an
//! object, computes the next one outside of any lock, and commits by compare-and-swap; whoever
//! loses the race starts over from a fresh read, unless the client named the version it meant.

mod amend;
mod create;
mod delete;
mod identity;
mod metadata;
mod options;
mod patch;
mod pod;
mod scale;
mod schema;
mod token;
mod update;
mod view;

pub use delete::{DeleteOptions, Deleted, Preconditions, Propagation};
pub(crate) use delete::{FOREGROUND, ORPHAN};
pub use identity::Ids;
pub use options::{FieldValidation, WriteOptions};
pub use patch::PatchKind;
pub use scale::ScaleChange;
pub use token::{TokenIssuer, TokenUser};
pub use view::Encoder;
pub(crate) use view::fields;

use std::sync::Arc;

use agent_sandbox_service::clock::Clock;
use jiff::Timestamp;
use serde_json::Value;

use crate::registry::{Context, Descriptor, Registry, Version};
use crate::status::ApiError;
use crate::store::{Draft, Object, Store};

/// How often a write that named no version starts over after losing a race.
const MAX_RACES: usize = 16;

/// Everything an operation needs. Clones share all of it.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The state.
    pub store: Store,
    /// What exists.
    pub registry: Registry,
    /// The time.
    pub clock: Clock,
    /// Where UIDs and generated names come from.
    pub ids: Ids,
    /// Who signs service-account tokens.
    pub tokens: TokenIssuer,
}

/// One resource in one version, and for operations on single objects which one.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource.
    pub descriptor: Arc<Descriptor>,
    /// The version of the request.
    pub version: Arc<Version>,
    /// Namespace from the path; empty for cluster-scoped resources.
    pub namespace: String,
    /// Name from the path; empty for collections.
    pub name: String,
}

impl Target {
    /// A target in the storage version.
    pub fn stored(
        descriptor: &Arc<Descriptor>,
        namespace: &str,
        name: &str,
    ) -> Result<Self, ApiError> {
        let version = descriptor
            .storage()
            .ok_or_else(|| ApiError::internal("a resource without a storage version"))?;
        Ok(Self {
            descriptor: descriptor.clone(),
            version: version.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The store's name of the resource that holds the objects.
    pub fn resource(&self) -> String {
        match &self.descriptor.stored_as {
            Some((group, plural)) if group.is_empty() => plural.clone(),
            Some((group, plural)) => format!("{plural}.{group}"),
            None => self.descriptor.qualified(),
        }
    }

    /// `apiVersion` of the request.
    pub fn api_version(&self) -> String {
        self.descriptor.api_version(&self.version.name)
    }

    /// Kind of one object.
    pub fn kind(&self) -> &str {
        &self.descriptor.kind
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.descriptor, &self.name)
    }

    fn conflict(&self) -> ApiError {
        ApiError::conflict(&self.descriptor, &self.name)
    }
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    /// The object after the write, or as it would be after a dry run.
    pub object: Arc<Object>,
    /// Whether it did not exist before.
    pub created: bool,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Engine {
    /// One object, or 404.
    pub fn read(&self, target: &Target) -> Result<Arc<Object>, ApiError> {
        self.store
            .get(&target.resource(), &target.namespace, &target.name)
            .ok_or_else(|| target.not_found())
    }

    /// The hooks' view of an operation.
    fn context<'a>(
        &'a self,
        target: &'a Target,
        name: &'a str,
        subresource: &'a str,
        now: Timestamp,
    ) -> Context<'a> {
        Context {
            now,
            namespace: &target.namespace,
            name,
            subresource,
            store: &self.store,
        }
    }

    /// The object as it will be stored, given in the target's version.
    fn draft(&self, target: &Target, object: Value) -> Result<Draft, ApiError> {
        let stored = view::to_storage(target, object)?;
        let holder = self.registry.snapshot().holder(&target.descriptor);
        let fields = fields(&holder, &stored);
        Ok(Draft::new(&stored, fields))
    }
}
